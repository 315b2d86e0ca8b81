"""The cells of the lessons do what their text says.

They run one by one, with made-up networks and digits.
"""

import copy
import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
import torchvision
from helpers import Linear, code_cells, read
from torch import nn, optim
from torch.utils.data import DataLoader

import course.spreadsheet
import utils
from course.checkpoints import get_trained
from model import Net, NetFC, NetGAP, NetMini


def source_of(lesson, *phrases):
    """The one code cell that holds all of these."""
    (source,) = [
        c.source for c in code_cells(read(lesson)) if all(phrase in c.source for phrase in phrases)
    ]
    return source


class Spy:
    """Stands for `train` or `test`: notes what it gets, and returns an accuracy and a loss."""

    def __init__(self, accuracies):
        self.calls, self.accuracies = [], iter(accuracies)

    def __call__(self, model, device, loader, *others, quiet=False):
        optimizer = next((each for each in others if isinstance(each, optim.Optimizer)), None)
        if optimizer:
            optimizer.step()  # or a scheduler warns
        rate = optimizer.param_groups[0]["lr"] if optimizer else None
        self.calls.append({"model": model, "loader": loader, "rate": rate, "others": others})
        accuracy = next(self.accuracies)
        return accuracy, 1 - accuracy / 100


@pytest.fixture
def names(digits, monkeypatch):
    """What the cells before have defined."""
    monkeypatch.delenv("EPOCHS", raising=False)
    return {
        "torch": torch,
        "F": F,
        "nn": nn,
        "optim": optim,
        "utils": utils,
        "DataLoader": DataLoader,
        "device": "cpu",
        "get_epochs": utils.get_epochs,
        "train_data": digits,
        "test_data": digits,
        "train_loader": DataLoader(digits, 50),
        "test_loader": DataLoader(digits, 100),
        "criterion": nn.CrossEntropyLoss(),
        "Net": Linear,
        "train": Spy([50.0, 60, 70, 80, 90] * 9),
        "test": Spy([55.0, 65, 75, 99, 85] * 9),
    }


class Film:
    def __init__(self, *_):
        pass

    def record(self, epochs):
        yield from epochs


def test_the_20_epochs_of_lesson_5(names, capsys):
    names["TrainingFilm"], names["image"] = Film, None
    exec(source_of("S5", "film.record("), names)
    train, test = names["train"], names["test"]
    assert len(train.calls) == len(test.calls) == 20
    rates = [call["rate"] for call in train.calls]
    assert rates == pytest.approx([0.01] * 15 + [0.001] * 5), (
        "divided by ten after 15 epochs, as the text says"
    )
    assert all(call["loader"] is names["train_loader"] for call in train.calls)
    assert all(call["loader"] is names["test_loader"] for call in test.calls)
    assert all(call["model"] is names["model"] for call in train.calls + test.calls)
    assert names["optimizer"].defaults["momentum"] == 0.9
    exec(source_of("S5", "results = [utils.result("), names)
    (row,) = names["results"]
    assert row["accuracy"] == 85 and row["epochs"] == 20, "the last epoch is reported, not the best"


def test_running_the_training_cell_again_starts_over(names, capsys):
    names["TrainingFilm"], names["image"], names["get_epochs"] = Film, None, lambda _: 2
    exec(source_of("S5", "film.record("), names)
    first = names["model"]
    exec(source_of("S5", "film.record("), names)
    assert names["model"] is not first and names["history"].done == 2
    weights = zip(first.parameters(), names["model"].parameters())
    assert all(torch.equal(a, b) for a, b in weights), "the same start"


def test_overfitting_is_measured_on_other_digits(names, capsys):
    exec(source_of("S5", "def train_on_few"), names)
    curves = names["train_on_few"](utils.Normalize(), 3)
    assert curves["train_acc"] == [50, 60, 70] and curves["test_acc"] == [55, 65, 75]
    trained_on, measured_on = (names[name].calls[0]["loader"].dataset for name in ("train", "test"))
    digits = names["train_data"]
    assert len(trained_on) == len(measured_on) == 50
    said = capsys.readouterr().out
    assert "validation" in said and "test" not in said
    assert torch.equal(torch.cat([trained_on.data, measured_on.data]), digits.data), (
        "no digit is in both"
    )
    assert all(call["loader"].dataset is measured_on for call in names["test"].calls)
    names["train_on_few"](utils.Augment(), 1)
    transforms = [type(call["loader"].dataset.transform).__name__ for call in names["train"].calls]
    assert transforms == ["Normalize"] * 3 + ["Augment"]


def test_one_cycle_of_lesson_6(names, capsys):
    exec(source_of("S6", "def fit("), names)
    model = Linear()
    history = names["fit"](model, names["train_loader"], names["test_loader"], 3, 0.25)
    (call, *_), (tested, *_) = names["train"].calls, names["test"].calls
    scheduler = next(
        other for other in call["others"] if isinstance(other, optim.lr_scheduler.OneCycleLR)
    )
    group = scheduler.optimizer.param_groups[0]
    assert scheduler.total_steps == 3 * 2, "a step for each batch of each epoch"
    assert group["max_lr"] == 0.25 and group["nesterov"] and group["weight_decay"] == 1e-4
    assert call["loader"] is names["train_loader"] and tested["loader"] is names["test_loader"]
    assert history.model is model and history.curves["test_acc"] == [55, 65, 75]


# --- The other cells of lesson 5 ----------------------------------------------------------------


class Notes:
    """Stands for a module: notes what its functions get.

    Those that show nothing do their work as well.
    """

    def __init__(self, module=None, shows=()):
        self.module, self.shows, self.calls = module, shows, {}

    def __getattr__(self, name):
        def function(*arguments, **options):
            self.calls.setdefault(name, []).append(arguments)
            if self.module and not name.startswith("plot_") and name not in self.shows:
                return getattr(self.module, name)(*arguments, **options)
            return None

        return function

    def given(self, name):
        """The arguments of the only call of this function."""
        (arguments,) = self.calls[name]
        return arguments


@pytest.mark.parametrize(("has_mnist", "size", "epochs"), [(True, 128, 1), (False, 32, 4)])
def test_the_first_network_of_lesson_5(names, made_up_digits, has_mnist, size, epochs):
    exec(source_of("S5", "mini = NetMini()"), names | {"has_mnist": has_mnist, "NetMini": NetMini})
    calls, (tested,) = names["train"].calls, names["test"].calls
    assert len(calls) == epochs and calls[0]["loader"].batch_size == size
    assert type(calls[0]["loader"].dataset.transform).__name__ == "Normalize"
    (scheduler,) = [
        each for each in calls[0]["others"] if isinstance(each, optim.lr_scheduler.OneCycleLR)
    ]
    assert scheduler.total_steps == epochs * len(calls[0]["loader"])
    assert tested["loader"] is names["test_loader"] and tested["model"] is calls[0]["model"]


@pytest.mark.parametrize(("has_mnist", "size"), [(True, 512), (False, 32)])
def test_small_batches_for_few_digits(names, made_up_digits, has_mnist, size):
    names |= {"has_mnist": has_mnist, "utils": Notes(utils, ["data_visualization"])}
    exec(source_of("S5", "data_visualization(train_loader"), names)
    assert names["train_loader"].batch_size == size
    assert type(names["train_loader"].dataset.transform).__name__ == "Augment"


def test_one_step_lowers_the_loss(names, capsys):
    exec(source_of("S5", "trial_optimizer.step()"), names)
    before, after = map(float, re.findall(r"\d\.\d+", capsys.readouterr().out))
    assert after < before


class Moody(Linear):
    """Has worked properly only if it was in training mode."""

    def forward(self, x):
        assert self.training
        return super().forward(x)


def test_the_loop_written_out_trains_on_60_batches(names, digits, capsys):
    """Notices: gradients not cleared, a network left in `eval` mode, and digits counted wrongly."""
    made = []
    names["NetMini"] = lambda: made.append(Moody().eval()) or made[0]
    names["train_loader"] = DataLoader([*digits, *digits], 3)
    torch.manual_seed(1)
    exec(source_of("S5", "net = NetMini()"), names)
    torch.manual_seed(1)
    model, right = Linear(), 0
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for images, labels in list(names["train_loader"])[:60]:
        optimizer.zero_grad()
        answers = model(images)
        F.cross_entropy(answers, labels).backward()
        optimizer.step()
        right += int((answers.argmax(dim=1) == labels).sum())
    assert all(torch.equal(a, b) for a, b in zip(made[0].parameters(), model.parameters()))
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("batch 60: loss ") and last.endswith(
        f"accuracy so far {100 * right / 180:.1f} %"
    )


def test_eval_makes_the_answer_independent_of_the_other_digits(names, capsys):
    torch.manual_seed(1)
    exec(
        source_of("S5", "eight = torch.stack("),
        names | {"mini": NetMini(), "label": 7, "copy": copy},
    )
    lines = re.findall(
        r"^(\w+), batch of (\d): .* a 7 with (\S+)%$", capsys.readouterr().out, re.MULTILINE
    )
    assert [line[:2] for line in lines] == [
        ("train", "1"),
        ("train", "8"),
        ("eval", "1"),
        ("eval", "8"),
    ]
    assert lines[0][2] != lines[1][2] and float(lines[2][2]) == pytest.approx(
        float(lines[3][2]), abs=1e-3
    )


@pytest.fixture
def pictured(names):
    """The names as after the training, with pictures that are noted but not drawn."""
    names |= {"utils": Notes(utils), "insight": Notes(), "model": Linear(), "mini": Linear()}
    names["image"], names["label"] = names["test_data"][0]
    return names


def test_pictures_of_lesson_5_are_of_the_test_digits(pictured, capsys):
    model, loader = pictured["model"], pictured["test_loader"]
    exec(source_of("S5", "confusion_matrix("), pictured)
    exec(source_of("S5", "plot_misclassified("), pictured)
    exec(source_of("S5", "plot_heat_maps("), pictured)
    for name in ["confusion_matrix", "get_misclassified"]:
        network, _, measured_on = pictured["utils"].given(name)
        assert network is model and measured_on is loader
    mistakes = pictured["mistakes"]
    network, image, true_digit = pictured["insight"].given("plot_heat_maps")
    assert (
        network is model
        and image is mistakes["images"][0]
        and true_digit == mistakes["ground_truths"][0]
    )


def test_the_most_confident_mistake_is_shown_with_its_label(pictured):
    exec(source_of("S5", "show_answer(mini, wrong"), pictured)
    network, image, title = pictured["insight"].given("show_answer")
    wrong = utils.get_misclassified(pictured["mini"], "cpu", pictured["test_loader"])
    assert network is pictured["mini"] and torch.equal(image, wrong["images"][0])
    assert title == f"a {wrong['ground_truths'][0]}"


def test_film_and_lens_are_of_the_trained_network_and_the_first_digit(pictured, capsys):
    noted = Notes()
    pictured["get_epochs"] = lambda _: 1
    pictured["ConvolutionLens"] = noted.lens
    pictured["TrainingFilm"] = lambda *arguments: noted.film(*arguments) or Film()
    exec(source_of("S5", "film.record("), pictured)
    exec(source_of("S5", "ConvolutionLens(model"), pictured)
    assert noted.given("film") == (pictured["history"], pictured["image"])
    assert noted.given("lens") == (pictured["model"], pictured["image"])


def test_the_gaps_are_compared_under_the_right_names(pictured):
    exec(source_of("S5", "plot_gaps("), pictured | {"train_on_few": lambda transform, _: transform})
    (curves,) = pictured["insight"].given("plot_gaps")
    transforms = {name: type(transform).__name__ for name, transform in curves.items()}
    assert transforms == {"plain digits": "Normalize", "with augmentation": "Augment"}


def test_the_digit_is_turned_as_the_titles_say(pictured):
    exec(
        source_of("S5", "rotated by 15°"),
        pictured | {"utils": (noted := Notes(utils, ["show_digits"]))},
    )
    pictures, titles = noted.given("show_digits")
    angles = [15.0 if "by 15" in title else -15.0 for title in titles[2:]]
    assert angles == [15, -15]
    still = torch.zeros(1, 2), torch.ones(1)
    for angle, picture in zip(angles, pictures[2:]):
        assert torch.equal(picture, utils.warp(pictures[0], torch.tensor([angle]), *still))


def test_a_photo_becomes_bright_ink_on_black(names, tmp_path, capsys):
    noted = Notes(utils, ["show_digits"])
    names |= {
        "utils": noted,
        "torchvision": torchvision,
        "model": Linear(),
        "Path": lambda _: tmp_path,
    }
    names["tempfile"] = SimpleNamespace(mkdtemp=lambda: "")
    exec(source_of("S5", "photo.thumbnail("), names)
    exec(source_of("S5", "halfway = "), names)
    photo, ink = names["photo"], names["ink"]
    assert torch.equal(names["stages"]["inverted"].int() + photo, torch.full_like(photo, 255).int())
    assert photo[ink > 0].max() < photo[ink == 0].min() and 0.01 < (ink > 0).float().mean() < 0.1
    pictures, titles = noted.given("show_digits")
    assert [list(picture.shape) for picture in pictures] == [[28, 28]] * 4
    assert all(
        10 <= int(re.fullmatch(r"[\w ,]+:\n\d \((\d+)%\)", title)[1]) <= 100 for title in titles
    )


def test_the_weights_that_are_loaded_are_those_that_were_saved(names, tmp_path):
    noted = Notes()
    names |= {"model": Net(), "Net": Net, "folder": tmp_path, "insight": noted}
    names |= {"prepare": lambda ink: ink, "ink": torch.zeros(28, 28, dtype=torch.uint8)}
    exec(source_of("S5", "torch.save("), names)
    loaded, *_ = noted.given("show_answer")
    assert loaded is not names["model"]
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), names["model"].parameters()))


# --- The other cells of lesson 6 ----------------------------------------------------------------


@pytest.fixture
def part_1(names):
    """What the cells of part 1 have defined, with unusual numbers."""
    numbers = {"inputs": [0.3, -0.2], "targets": [0.1, 0.8], "learning_rate": 0.7}
    return names | numbers | {"weights": [0.1 * n for n in range(1, 9)]}


def test_bench_and_spreadsheet_get_the_numbers_of_the_lesson(part_1, monkeypatch):
    exec(source_of("S6", "BackpropBench("), part_1)
    bench, noted = part_1["bench"], Notes()
    for name in ["inputs", "targets", "weights", "learning_rate"]:
        assert getattr(bench, name) == part_1[name], name
    monkeypatch.setattr(course.spreadsheet, "write_spreadsheet", noted.write)
    exec(source_of("S6", "write_spreadsheet("), part_1)
    assert noted.given("write")[1:] == tuple(
        part_1[name] for name in ["inputs", "weights", "targets", "learning_rate"]
    )


@pytest.fixture
def try_out(names, digits):
    """The function of "When it does not learn", and the names of its cells."""
    both = {name: lambda limit: (digits, None) for name in ["get_trainloader", "get_testloader"]}
    names["utils"] = SimpleNamespace(Normalize=utils.Normalize, **both)
    exec(source_of("S6", "def small_network("), names)
    exec(source_of("S6", "def try_out("), names)
    return names


def test_gradients_add_up_if_they_are_not_cleared(try_out, capsys):
    gradients = []
    for clear in [True, False]:
        torch.manual_seed(1)
        model = Linear()
        before = copy.deepcopy(model)
        try_out["try_out"](model, rate=0, clear=clear)
        assert torch.equal(model.fc.weight, before.fc.weight), "a rate of 0 changes nothing"
        gradients.append(model.fc.weight.grad)
    images, labels = utils.Normalize()(try_out["few_data"].data), try_out["few_data"].targets
    for start in range(0, 100, 32):
        F.cross_entropy(before(images[start : start + 32]), labels[start : start + 32]).backward()
    torch.testing.assert_close(gradients[1], 10 * before.fc.weight.grad, atol=1e-4, rtol=1e-4)
    assert gradients[0].norm() < gradients[1].norm() / 4


def test_what_is_tried_out_is_measured_on_the_other_digits(try_out, digits, capsys):
    try_out["other_data"] = utils.Digits(digits.data, (digits.targets + 1) % 10)
    try_out["try_out"](Linear())
    assert capsys.readouterr().out.endswith("; 0 % of the other digits are right\n")
    prepared = []
    try_out["try_out"](Linear(), 0, lambda images: prepared.append(images) or images.float())
    assert [
        images is data for images, data in zip(prepared, [digits.data, try_out["other_data"].data])
    ]
    assert len(prepared) == 2


def test_the_mistakes_are_made_one_at_a_time(try_out, digits, capsys):
    calls = []
    try_out["try_out"] = lambda model, rate=0.1, prepare=None, clear=True: calls.append(
        (
            rate,
            clear,
            prepare and prepare(digits.data).max().item(),
            model[1].weight.std(dim=0).max().item(),
        )
    )
    for phrase in ["for rate in [0.0001", "clear=False)", "prepare=lambda images", "nn.init."]:
        exec(source_of("S6", "try_out(", phrase), try_out)
    assert [call[0] for call in calls] == [0.0001, 0.1, 10, 0.1, 0.1, 0.1]
    assert [call[1] for call in calls] == [True] * 3 + [False] + [True] * 2
    assert [call[2] for call in calls] == [None] * 4 + [250, None], "from 0 to 255, as in the file"
    assert [call[3] > 0 for call in calls] == [True] * 5 + [False]


def test_only_eval_gives_the_same_digit_the_same_answer(try_out, capsys):
    exec(
        source_of("S6", "the same digit three times"),
        try_out | {"copy": copy, "try_out": lambda _: None},
    )
    lines = re.findall(r"(\w+) eval: .* times (\S+) (\S+) (\S+);", capsys.readouterr().out)
    assert [(name, len(set(answers)) > 1) for name, *answers in lines] == [
        ("without", True),
        ("with", False),
    ]


def test_both_networks_of_lesson_6_get_the_same_training(names):
    noted = Notes()

    def fit(*arguments):
        noted.fit(*arguments)
        return SimpleNamespace(curves={"network": type(arguments[0]).__name__})

    names |= {"fit": fit, "NetGAP": NetGAP, "NetFC": NetFC, "has_mnist": True, "peak": 0.05}
    names["utils"] = Notes(utils)
    names["utils"].plot_loss = lambda network, save: noted.show(network, save)
    for phrase in ["gap = NetGAP()", "**gap_history.curves", "fc = NetFC()", "**fc_history.curves"]:
        exec(source_of("S6", phrase), names)
    gap, fc = noted.calls["fit"]
    assert (
        gap[0] is names["gap"]
        and type(gap[0]) is NetGAP
        and fc[0] is names["fc"]
        and type(fc[0]) is NetFC
    )
    assert gap[1] is fc[1] is names["train_loader"] and gap[2] is fc[2] is names["test_loader"]
    assert gap[3:] == (19, 0.05) and fc[3:] == (18, 0.05)
    exec(source_of("S6", "gap = NetGAP()"), names | {"has_mnist": False})
    assert noted.calls["fit"][-1][3] == 30, "few digits need more epochs"
    assert [(name, name in save) for name, save in noted.calls["show"]] == [
        ("NetGAP", True),
        ("NetFC", True),
    ]


def test_both_test_curves_and_the_last_epochs_are_compared(names, digits, figures, capsys):
    """Notices: the best epoch, the training's curve, and a curve under the other's name."""
    for key, Network, curve in [
        ("gap", NetGAP, [98, 99.5, 99.1]),
        ("fc", NetFC, [97, 99.3, 99.2, 98.9]),
    ]:
        names[f"{key}_history"] = SimpleNamespace(
            model=Network(),
            done=len(curve),
            curves={"test_acc": curve, "train_acc": [50] * 4},
            seconds=9,
        )
        names[f"{key}_epochs"] = len(curve)
    exec(source_of("S6", "for run, colour in [(gap_history"), names | {"plt": plt})
    (figure,) = figures
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    plt.close(figure)
    assert figure.axes[0].get_xlim() == (0.5, 4.5), "all epochs of both"
    assert lines == {"NetGAP": [98, 99.5, 99.1], "NetFC": [97, 99.3, 99.2, 98.9]}
    _, gap, fc = (line.split() for line in capsys.readouterr().out.splitlines())
    assert [gap[0], gap[2], gap[4]] == ["NetGAP", "3", "99.10"] and [fc[0], fc[2], fc[4]] == [
        "NetFC",
        "4",
        "98.90",
    ]


def test_the_last_pictures_of_lesson_6(names, capsys):
    noted, pictures = Notes(utils), Notes()
    names |= {"utils": noted, "insight": pictures, "gap": Linear(), "fc": Linear()}
    exec(source_of("S6", "get_misclassified("), names)
    assert noted.given("get_misclassified")[::2] == (names["gap"], names["test_loader"])
    network, _, true_digit = pictures.given("plot_heat_maps")
    assert network is names["gap"] and true_digit == names["mistakes"]["ground_truths"][0]


def test_the_ablation_is_about_validation_digits(names):
    options = {}
    names["pictures"] = SimpleNamespace(
        get_ablation=list, plot_seeds=lambda _, **given: options.update(given)
    )
    exec(source_of("S6", "get_ablation()"), names)
    assert options["digits"] == "validation"


def test_the_pad_reads_with_the_trained_network(names):
    exec(source_of("S6", "DigitPad("), names)
    weights = zip(names["pad"]._network.parameters(), get_trained(Net).parameters())
    assert all(torch.equal(a, b) for a, b in weights)


def test_the_learning_rate_that_was_chosen_is_marked(names):
    marked = {}
    names |= {
        "NetGAP": NetGAP,
        "peak": 0.03,
        "learning_rate_test": lambda *_, steps: ([1.0] * steps, []),
    }
    names["plot_learning_rates"] = lambda rates, _, chosen, save: marked.update(
        chosen=chosen, rates=rates
    )
    exec(source_of("S6", "learning_rate_test("), names)
    assert marked == {"chosen": 0.03, "rates": [1, 1]}, "one for each batch"
