"""utils.py, training: settings, counting, train and test, History, and what wrong input gets."""

import copy
import functools
import itertools
import math
import re
import shutil
import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT, Linear, run_python, same, sgd, uneven_loader
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchvision import datasets, transforms

import utils
from benchmarks import conventional
from model import NetGAP, NetMini

IMAGES = torch.zeros(4, 1, 28, 28)
LABELS = torch.arange(4)
BATCHES = [(IMAGES, LABELS)]
DIGITS = utils.Digits(torch.zeros(4, 28, 28, dtype=torch.uint8), LABELS)


def train(batches=BATCHES, criterion=F.nll_loss, model=None):
    model = model or Linear()
    optimizer = sgd(Linear() if isinstance(model, type) else model, 0.1)
    return utils.train(model, "cpu", batches, optimizer, criterion, half_precision=False)


def run(batches=BATCHES, criterion=F.nll_loss, model=None):
    return utils.test(model or Linear(), "cpu", batches, criterion)


def predict(batches=BATCHES, criterion=None, model=None):
    return utils.predict(model or Linear(), "cpu", batches)


ALL = [train, run, predict]
LOSSES = [train, run]


# --- Settings -----------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many CUDA devices, which its driver can use or not, and with MPS or not."""

    def build(cudas=0, mps=False, usable=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: usable and cudas > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cudas)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return build


@pytest.mark.parametrize(
    ("has", "wanted", "device"),
    [
        ({}, "", "cpu"),
        ({"mps": True}, "", "mps"),
        ({"cudas": 2, "mps": True}, "", "cuda"),
        ({"cudas": 1, "usable": False}, "", "cpu"),  # the driver is too old for this PyTorch
        ({"cudas": 2, "mps": True}, "cpu", "cpu"),
        ({"cudas": 2, "mps": True}, "mps", "mps"),
        ({"cudas": 2, "mps": True}, "cuda:1", "cuda:1"),
    ],
)
def test_the_device_is_the_fastest_or_the_chosen_one(machine, monkeypatch, has, wanted, device):
    machine(**has)
    monkeypatch.setenv("DEVICE", wanted)
    assert utils.get_device() == torch.device(device)


@pytest.mark.parametrize("name", ["gpu", "mps", "CPU", "cuda:2"])
def test_an_unknown_device_gets_one_sentence(machine, monkeypatch, name):
    machine(cudas=2)
    monkeypatch.setenv("DEVICE", name)
    has = "which has: cuda, cuda:0, cuda:1, cpu"
    with pytest.raises(ValueError, match=f"^DEVICE={name} is not a device of this machine, {has}$"):
        utils.get_device()


@pytest.mark.parametrize(
    ("smoke", "setting", "epochs"),
    [("", "", 20), ("1", "", 1), ("1", "3 ", 3), ("0", "", 20), ("false", "", 20)],
)
def test_epochs(monkeypatch, smoke, setting, epochs):
    monkeypatch.setenv("SMOKE_TEST", smoke)
    monkeypatch.setenv("EPOCHS", setting)
    assert utils.get_epochs(20) == epochs


@pytest.mark.parametrize("setting", ["0", "-1", "many", "1.5"])
def test_impossible_epochs(monkeypatch, setting):
    monkeypatch.setenv("EPOCHS", setting)
    with pytest.raises(ValueError, match=f"EPOCHS={setting} is not a number of epochs"):
        utils.get_epochs(20)


def test_the_root_is_the_argument_else_the_environments_else_data(monkeypatch):
    monkeypatch.delenv("MNIST_ROOT", raising=False)
    assert utils.get_root() == "data"
    for written in ['"~/digits"', " ~/digits "]:
        monkeypatch.setenv("MNIST_ROOT", written)
        assert Path(utils.get_root()) == Path.home() / "digits"
    assert utils.get_root("other") == "other"


# --- train and test -----------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_right_answers_are_counted(size, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    answers = torch.randn(size, classes, generator=generator)
    labels = torch.randint(0, classes, (size,), generator=generator)
    by_hand = 0
    for row, label in zip(answers.tolist(), labels.tolist()):
        by_hand += row[label] == max(row)
    count = utils.GetCorrectPredCount(answers, labels)
    assert count == by_hand
    assert type(count) is int


class Own(nn.Module):
    """A learner's network, whose `view` some layouts of the numbers would not allow."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 26 * 26, 10)

    def forward(self, x):
        x = self.norm(F.relu(self.conv(x)))
        return F.log_softmax(self.fc(x.view(len(x), -1)), dim=1)


@pytest.mark.parametrize("build", [Linear, Own])
def test_training_is_plain_gradient_descent(build):
    """The oracle: the same steps written out."""
    loader = uneven_loader()
    torch.manual_seed(1)
    ours = build()
    train(loader, model=ours)
    torch.manual_seed(1)
    by_hand = build()
    for images, labels in loader:
        loss = F.nll_loss(by_hand(images), labels)
        weights = list(by_hand.parameters())
        for weight, slope in zip(weights, torch.autograd.grad(loss, weights)):
            weight.data -= 0.1 * slope
    torch.testing.assert_close(ours.state_dict(), by_hand.state_dict())


@pytest.mark.parametrize(
    "criterion",
    [nn.NLLLoss(), nn.CrossEntropyLoss(), F.nll_loss, F.cross_entropy],
    ids=["NLLLoss", "CrossEntropyLoss", "nll_loss", "cross_entropy"],
)
def test_means_are_over_images_not_over_batches(criterion):
    model = Linear()
    loader = uneven_loader()
    images, labels = loader.dataset.tensors
    with torch.no_grad():
        answers = model(images)
    accuracy = 100 * (answers.argmax(1) == labels).sum().item() / 25
    expected = pytest.approx((accuracy, F.nll_loss(answers, labels).item()), rel=1e-5)
    assert run(loader, criterion, model) == expected
    # With a learning rate of 0 the network stays the same, so training must report the same.
    still = utils.train(model, "cpu", loader, sgd(model, 0.0), criterion, half_precision=False)
    assert still == expected


def test_scheduler_steps_once_a_batch():
    model = Linear()
    optimizer = sgd(model, 1.0)
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
    utils.train(model, "cpu", uneven_loader(), optimizer, F.nll_loss, scheduler)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)


def test_test_prints_the_known_line(capsys):
    model = Linear()
    model.fc.bias.data[0] = 100  # it takes every digit for a 0
    loader = DataLoader(TensorDataset(IMAGES, torch.tensor([0, 0, 0, 1])), 3)
    accuracy, loss = utils.test(model, torch.device("cpu"), loader, F.nll_loss)
    assert accuracy == 75.0
    line = f"Test set: Average loss: {loss:.4f}, Accuracy: 3/4 (75.00%)\n\n"
    assert capsys.readouterr().out == line
    utils.test(model, "cpu", loader, quiet=True)
    assert capsys.readouterr().out == ""


def test_progress_bar_shows_the_last_batch(capsys):
    accuracy, _ = train(uneven_loader())
    last = capsys.readouterr().err.split("\r")[-1]
    text = rf"Train: Loss=\d+\.\d{{4}} Batch_id=2 Accuracy={accuracy:.2f}: 100%\|.*\| 3/3 "
    assert re.match(text, last)


@pytest.mark.slow
def test_tqdm_can_be_switched_off_from_outside():
    """tqdm reads TQDM_DISABLE when it is imported; an explicit argument would overrule it."""
    program = ROOT / "tests" / "programs" / "one_bar.py"
    assert run_python(program, TQDM_DISABLE="1") == "trained\n"


def test_two_trainings_at_once_do_not_disturb_each_other():
    """As in two cells of threads: the layout of a network is its own, and so is every mode."""

    def whole_training(loader, results):
        model = NetGAP(dropout=0)
        model.load_state_dict(start)
        optimizer = sgd(model, 0.01)
        for _ in range(3):
            utils.train(model, "cpu", loader, optimizer, F.nll_loss)
            run(loader, model=model)
        results.append(model.state_dict())

    start = NetGAP(dropout=0).state_dict()
    loader = uneven_loader()
    alone, together = [], []
    whole_training(loader, alone)
    threads = [threading.Thread(target=whole_training, args=(loader, together)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(together) == 2
    for result in together:
        for name, value in alone[0].items():
            torch.testing.assert_close(result[name], value, rtol=1e-3, atol=1e-4)


class Endless(IterableDataset):
    def __iter__(self):
        for number in range(8):
            yield torch.rand(1, 28, 28), number


@pytest.mark.parametrize("make", [lambda: DataLoader(Endless(), 4), lambda: iter(BATCHES * 2)])
def test_loaders_that_do_not_know_their_length(make, capsys):
    assert 0 <= train(make())[0] <= 100
    assert 0 <= run(make())[0] <= 100
    assert "Batch_id=1" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_of_any_whole_type(kind):
    """26 letters: 26 times a label is more than 8 bits hold."""
    labels = torch.arange(260) % 26
    loader = DataLoader(TensorDataset(torch.rand(260, 1, 28, 28), labels.to(kind)), 52)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 26))
    train(loader, nn.CrossEntropyLoss(), model)
    run(loader, nn.CrossEntropyLoss(), model)
    assert utils.confusion_matrix(model, "cpu", loader).sum(dim=1).tolist() == [10] * 26


# --- Modes and precision ------------------------------------------------------------------------


class Spy(nn.Module):
    """Notes how it is used: in which mode, with gradients or not, in what precision."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 10, 28)
        self.seen = set()

    def forward(self, x):
        x = self.conv(x)
        self.seen.add((self.training, torch.is_grad_enabled(), x.dtype))
        return x.flatten(1)


@pytest.mark.parametrize("call", ALL)
def test_each_function_sets_the_modes_it_needs(call):
    """Whatever an interrupt has left switched on or off."""
    is_training = call is train
    model = Spy().train(not is_training)
    torch.set_grad_enabled(False)
    torch.set_autocast_enabled("cpu", True)
    call(uneven_loader(), F.cross_entropy, model)
    assert model.seen == {(is_training, is_training, torch.float32)}
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("capabilities", "wanted", "kind"),
    [
        ({"avx512_bf16": True}, {}, torch.bfloat16),
        ({"avx512_bf16": True}, {"half_precision": False}, torch.float32),
        ({"avx512_bf16": False}, {}, torch.float32),
        (None, {}, torch.float32),  # an older PyTorch cannot say
    ],
)
def test_half_precision_is_for_training_where_it_is_faster(monkeypatch, capabilities, wanted, kind):
    losses = set()

    def criterion(prediction, target):
        losses.add(prediction.dtype)
        return F.cross_entropy(prediction, target)

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    if capabilities is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities")
    model = Spy()
    utils.train(model, "cpu", uneven_loader(), sgd(model), criterion, **wanted)
    run(uneven_loader(), criterion, model)
    assert model.seen == {(True, True, kind), (False, False, torch.float32)}
    assert losses == {model.conv.weight.grad.dtype} == {torch.float32}


def test_only_a_cpu_rounds(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    with utils.bfloat16("cuda"):
        assert not torch.is_autocast_enabled("cpu")


def test_a_16_bit_network_is_measured_with_32_bits():
    """Also on bright pixels, whose sum 16 bits cannot hold."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.LogSoftmax(dim=1)).half()
    images = 100 * torch.rand(4, 1, 28, 28).half()
    with torch.no_grad():
        expected = F.nll_loss(model(images).float(), LABELS).item()
    assert run([(images, LABELS)], model=model)[1] == pytest.approx(expected, rel=1e-6)


# --- The history of a training ------------------------------------------------------------------


@pytest.fixture
def history():
    model = nn.Linear(1, 1)
    return utils.History(model, sgd(model, 0.05))


def test_history_prints_one_line_an_epoch(history, capsys):
    numbers = history.epochs(2)
    assert next(numbers) == 1
    history.add((90.5, 0.31), (95.25, 0.125))
    history.optimizer.param_groups[0]["lr"] = 0.0025
    assert next(numbers) == 2
    history.add((99.0, 0.03), (98.0, 0.0625))
    assert list(numbers) == []
    first, second = capsys.readouterr().out.splitlines()
    start = "Epoch  1: training 90.50 % (loss 0.3100), test 95.25 % (loss 0.1250), "
    assert first.startswith(start + "learning rate 0.05, ")
    assert "Epoch  2: " in second
    assert "learning rate 0.0025," in second
    assert history.curves == {
        "train_losses": [0.31, 0.03],
        "train_acc": [90.5, 99.0],
        "test_losses": [0.125, 0.0625],
        "test_acc": [95.25, 98.0],
    }


def test_history_of_a_training_without_tests(history, capsys):
    history.add((90.5, 0.31))
    assert (history.done, history.curves["test_acc"]) == (1, [])
    assert "(loss 0.3100), learning rate 0.05, " in capsys.readouterr().out


def test_the_result_of_a_history_is_its_last_epoch(history, digits):
    with pytest.raises(ValueError, match="no epoch has been tested yet: run the training first"):
        history.result(digits)
    for accuracy in [99.0, 98.0]:
        history.add((50.0, 1.0), (accuracy, 0.5))
    row = history.result(digits)
    assert (row["network"], row["epochs"], row["accuracy"]) == ("Linear", 2, 98.0)
    assert row["seconds"] == history.seconds


@pytest.mark.parametrize("live", [True, False])
def test_history_redraws_one_picture_in_a_notebook(monkeypatch, live):
    """In place of a notebook: a display that is noted. tests/test_utils_pictures.py looks at it."""
    shown = []
    curves = []

    class Display:
        def __init__(self, picture, display_id):
            shown.append(self)

        def update(self, picture):
            curves.append(picture.axes[0].lines[0].get_ydata().tolist())

    monkeypatch.setattr(utils, "is_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", Display)
    model = Linear()
    history = utils.History(model, sgd(model), live=live)
    for epoch in history.epochs(2):
        history.add((90.0, epoch), (95.0, 0.1))
    assert len(shown) == live
    assert curves == ([[1], [1, 2]] if live else [])


def test_results_that_are_none_leave_no_trace(history):
    with pytest.raises(TypeError):
        history.add((70.0, 0.9), None)
    assert history.done == 0
    assert not any(history.curves.values())


@pytest.mark.parametrize("times", [0, 2])
def test_an_epoch_has_one_result(history, times):
    with pytest.raises(RuntimeError, match="once in each epoch"):
        for _ in history.epochs(2):
            for _ in range(times):
                history.add((70.0, 0.9), (60.0, 1.0))


@pytest.mark.parametrize(
    ("with_epochs", "clock", "seconds"),
    [(True, [0.0, 10.0, 13.0, 100.0, 104.5], [3, 4]), (False, [0.0, 2.0, 5.0], [2, 3])],
)
def test_the_seconds_are_those_of_the_epochs(monkeypatch, capsys, with_epochs, clock, seconds):
    """Without `epochs`, each epoch begins where the one before has ended."""
    clock = iter(clock)
    monkeypatch.setattr(utils.time, "perf_counter", lambda: next(clock))
    model = Linear()
    history = utils.History(model, sgd(model), live=False)
    for _ in history.epochs(2) if with_epochs else range(2):
        history.add((50.0, 1.0), (60.0, 0.9))
    printed = [int(number) for number in re.findall(r", (\d+) s\n", capsys.readouterr().out)]
    assert printed == seconds
    assert history.seconds == pytest.approx(sum(seconds), abs=0.5)


PLACES = ["in batch 1", "in batch 2", "trained", "added", "stepped"]


def new_training(loader, by_batch):
    """A training that has not begun; its rate changes after each batch or after each epoch."""
    torch.manual_seed(1)
    model = NetMini()
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    if by_batch:
        schedule = optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=3 * len(loader))
    else:
        schedule = optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    return utils.History(model, optimizer, schedule)


def go_on(history, loader, by_batch, stop=lambda: None):
    """Train until there are three epochs; `stop` is called wherever an interrupt may come."""
    model = history.model
    schedule = history.scheduler
    in_each_batch = schedule if by_batch else None
    hook = model.register_forward_hook(lambda *_: stop())
    for _ in history.epochs(3):
        trained = utils.train(model, "cpu", loader, history.optimizer, F.nll_loss, in_each_batch)
        stop()
        history.add(trained, trained)
        stop()
        if not by_batch:
            schedule.step()
        stop()
    hook.remove()


@pytest.mark.parametrize("place", range(5), ids=PLACES)
@pytest.mark.parametrize("by_batch", [True, False])
def test_an_interrupted_epoch_starts_over(digits, place, by_batch):
    """Curves, weights and rate are those of a training that nobody interrupted."""
    digits.transform = utils.Augment()
    loader = DataLoader(digits, 50, shuffle=True)
    whole = new_training(loader, by_batch)
    go_on(whole, loader, by_batch)
    places = itertools.count()

    def stop():
        if next(places) == 5 + place:  # in the second epoch
            raise KeyboardInterrupt

    stopped = new_training(loader, by_batch)
    with pytest.raises(KeyboardInterrupt):
        go_on(stopped, loader, by_batch, stop)
    go_on(stopped, loader, by_batch)
    assert stopped.curves == whole.curves
    assert same(stopped.model.state_dict(), whole.model.state_dict())
    assert stopped.scheduler.get_last_lr() == whole.scheduler.get_last_lr()


# --- Wrong input --------------------------------------------------------------------------------


class Twice(Linear):
    """Returns two tensors, as networks with a second output do."""

    def forward(self, x):
        return super().forward(x), x


NO_LOADER = DIGITS, DataLoader(DIGITS, 2)  # what get_trainloader returns
ONE_BY_ONE = DataLoader(TensorDataset(IMAGES), 2)
NAMED = [{"image": IMAGES, "label": LABELS}]
SUM = functools.partial(F.nll_loss, reduction="sum")
WRONG = [
    (ALL, {"batches": [(IMAGES, LABELS[:3])]}, "4 predictions need 4 integer labels"),
    (ALL, {"batches": [(IMAGES, LABELS[:, None])]}, "integer labels, got torch.int64 [4, 1]"),
    (ALL, {"batches": [(IMAGES, LABELS.float())]}, "must be integers, got torch.float32 [4]"),
    (ALL, {"batches": [(IMAGES, LABELS > 0)]}, "must be integers, got torch.bool [4]"),
    (ALL, {"batches": [(IMAGES, LABELS - 1)]}, "labels must be from 0 to 9, got -1 to 2"),
    (ALL, {"batches": [(IMAGES, LABELS + 7)]}, "labels must be from 0 to 9, got 7 to 10"),
    (ALL, {"batches": [(IMAGES + math.nan, LABELS)]}, "pixels that are nan or infinite"),
    (ALL, {"batches": []}, "the loader is empty"),
    (ALL, {"batches": DIGITS}, "this Digits is not a loader of batches (images, labels)"),
    (ALL, {"batches": NO_LOADER}, "this tuple is not a loader of batches (images, labels)"),
    (ALL, {"batches": ONE_BY_ONE}, "expected 2, got 1"),
    (ALL, {"batches": NAMED}, "must deliver batches (images, labels), tensors; got str and str"),
    (ALL, {"model": Linear}, "Linear is a class: write Linear(...) to make one"),
    (ALL, {"model": Twice()}, "one tensor of shape [N, classes], got tuple"),
    (LOSSES, {"criterion": nn.NLLLoss}, "NLLLoss is a class: write NLLLoss(...) to make one"),
    (LOSSES, {"criterion": 3}, "such as nn.NLLLoss(), not 3: call train(model, device, train_lo"),
    (LOSSES, {"criterion": nn.NLLLoss(reduction="sum")}, 'use reduction="mean" instead of "sum"'),
    (LOSSES, {"criterion": SUM}, 'use reduction="mean" instead of "sum"'),
    (LOSSES, {"criterion": lambda p, _: p.sum(dim=1)}, 'the shape [4]: use reduction="mean"'),
]


@pytest.mark.parametrize(
    ("call", "named", "sentence"),
    [(call, named, sentence) for calls, named, sentence in WRONG for call in calls],
    ids=[f"{call.__name__}: {sentence}" for calls, _, sentence in WRONG for call in calls],
)
def test_wrong_input_gets_one_sentence_and_changes_no_weight(call, named, sentence):
    named = {"model": Linear()} | named
    before = copy.deepcopy(named["model"])
    with pytest.raises((ValueError, TypeError)) as error:
        call(**named)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    if isinstance(before, nn.Module):
        assert same(named["model"].state_dict(), before.state_dict())


def test_counting_alone_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="need 4 integer labels, got torch.float32"):
        utils.GetCorrectPredCount(torch.zeros(4, 10), LABELS.float())
    with pytest.raises(ValueError, match="one tensor of shape .N, classes., got torch.Size"):
        utils.GetCorrectPredCount(torch.zeros(10), LABELS)


@pytest.mark.parametrize("criterion", [F.nll_loss, nn.NLLLoss()], ids=["nll_loss", "NLLLoss"])
@pytest.mark.parametrize("measure", LOSSES)
def test_scores_are_not_taken_for_logarithms(measure, criterion):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="nll_loss needs log-probabilities: end with log_softmax"):
        measure(BATCHES, criterion, model)
    assert same(model.state_dict(), before)
    measure(BATCHES, nn.CrossEntropyLoss(), model)  # which takes scores


def test_softmax_applied_twice_is_said_once():
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Softmax(dim=1))
    with pytest.warns(UserWarning, match="cross_entropy applies softmax itself") as said:
        train(BATCHES * 3, nn.CrossEntropyLoss(), model)
    assert len({str(warning.message) for warning in said}) == 1
    _, _, probabilities = predict(BATCHES, model=model)
    torch.testing.assert_close(probabilities, model(IMAGES).detach())


@pytest.mark.parametrize("scores", [torch.eye(4, 10) - 0.1, torch.rand(4, 10), -torch.rand(4, 10)])
def test_other_outputs_are_not_taken_for_probabilities(scores):
    assert not utils.are_probabilities(scores)
    assert utils.are_probabilities(scores.softmax(dim=1))
    assert utils.are_probabilities((1e3 * scores).softmax(dim=1)), "some are 0 if it is sure"


def schedule_of_another(model):
    return optim.lr_scheduler.StepLR(sgd(model), 15)


@pytest.mark.parametrize(
    ("optimizer", "schedule", "sentence"),
    [
        (lambda model: sgd(Linear()), None, "this optimizer belongs to another network: make a"),
        (lambda model: optim.SGD, None, r"SGD is a class: write SGD\(...\) to make one"),
        (lambda model: sgd(model.requires_grad_(False)), None, "all weights of this model are fro"),
        (sgd, lambda model: True, "the scheduler must have a method step, unlike True"),
        (sgd, schedule_of_another, "this scheduler belongs to another optimizer: make a new one"),
    ],
)
def test_an_optimizer_or_a_scheduler_that_does_not_fit(optimizer, schedule, sentence):
    model = Linear()
    made = optimizer(model), schedule and schedule(model)
    with pytest.raises((ValueError, TypeError), match=sentence):
        utils.train(model, "cpu", BATCHES, made[0], F.nll_loss, made[1])
    if not isinstance(made[0], type):
        with pytest.raises((ValueError, TypeError), match=sentence):
            utils.History(model, *made)


def test_an_optimizer_may_know_less_or_more_than_the_network():
    model = NetMini()
    part = sgd(model.classes)
    both = optim.SGD([*NetMini().parameters(), *model.parameters()])
    for optimizer in [part, both]:
        utils.train(model, "cpu", BATCHES, optimizer, F.nll_loss)
    optimizer = sgd(model)
    model.classes = nn.Linear(12, 10)  # the optimizer still has the old layer
    with pytest.raises(ValueError, match="make a new one for this model"):
        utils.train(model, "cpu", BATCHES, optimizer, F.nll_loss)
    model.classes.requires_grad_(False)
    utils.train(model, "cpu", BATCHES, optimizer, F.nll_loss)  # what is frozen needs no optimizer


def test_a_loss_that_is_not_a_number_stops_before_it_does_harm():
    model = Linear()
    losses = iter([1.0, math.nan])

    def criterion(prediction, target):
        return F.nll_loss(prediction, target) * next(losses)

    with pytest.raises(FloatingPointError, match="loss became nan at batch 1: use a smaller"):
        train(uneven_loader(), criterion, model)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_bad_pixel_does_no_harm(value):
    """The good batch before is learned; batch norm has not seen the bad one."""
    good = torch.randn(4, 1, 28, 28), LABELS
    bad = IMAGES.clone()
    bad[2, 0, 5, 5] = value
    model = NetMini()
    twin = copy.deepcopy(model)
    with pytest.raises(ValueError, match="pixels that are nan or infinite"):
        train([good, (bad, LABELS)], model=model)
    train([good], model=twin)
    assert same(model.state_dict(), twin.state_dict())


def test_a_loader_that_breaks_off_is_no_riddle(capsys):
    """Its own error arrives, and the next progress bar starts in a line of its own."""

    def broken():
        yield from BATCHES
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        train(broken())
    train()
    assert "\x1b[A" not in capsys.readouterr().err, "it would be written above another bar"


# --- Tables, and course material written against the original assignments ------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its imshow gets tensors
def test_original_course_material_runs_unchanged(figures, capsys):
    """The cells of an original assignment, on torchvision's own data set and loaders."""
    grey = transforms.Compose([transforms.ToTensor(), lambda image: image[:1]])
    data = datasets.FakeData(64, (1, 28, 28), 10, grey)
    names = {"train_data": data, "test_data": data}
    exec((ROOT / "tests" / "programs" / "original_assignment.py").read_text(), names)
    printed = capsys.readouterr().out
    assert printed.count("Test set: Average loss: ") == 2
    assert "Total params: 593,200" in printed
    assert len(figures) == 2


def test_the_original_transforms_prepare_digits_as_most_courses_do(digits):
    distorted = conventional.as_in_lesson_5()
    assert str(utils.train_transforms.transforms[:3]) == str(distorted)
    digits.transform = utils.test_transforms
    theirs = digits[3][0]
    digits.transform = utils.Normalize()
    torch.testing.assert_close(theirs, digits[3][0])


@pytest.mark.parametrize("plot", [utils.train_test_plot, utils.Plotting])
def test_the_original_plots_draw_what_was_collected(plot, figures, monkeypatch):
    for name in ["train_acc", "train_losses", "test_acc", "test_losses"]:
        monkeypatch.setattr(utils, name, [])
    trained = train()
    tested = run()
    plot()
    assert [ax.get_title() for ax in figures[0].axes] == [
        f"Training loss: {trained[1]:.4f} after epoch 1",
        f"Test loss: {tested[1]:.4f} after epoch 1",
        f"Training accuracy: {trained[0]:.2f} % after epoch 1",
        f"Test accuracy: {tested[0]:.2f} % after epoch 1",
    ]
    plot([0.5, 0.4], [80, 90], [0.6, 0.5], [70, 80])
    assert figures[1].axes[3].get_title() == "Test accuracy: 80.00 % after epoch 2"


def test_get_summary_leaves_everything_as_it_was(capsys):
    model = NetMini().train()
    before = copy.deepcopy(model.state_dict())
    random_numbers = torch.get_rng_state()
    utils.get_summary(model)
    assert "5,797" in capsys.readouterr().out
    assert model.training
    assert same(model.state_dict(), before)
    utils.get_summary(lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
    assert "7,850" in capsys.readouterr().out
    assert torch.equal(torch.get_rng_state(), random_numbers)


def test_the_results_of_a_smoke_test_are_marked(monkeypatch, digits):
    monkeypatch.setenv("SMOKE_TEST", "1")
    assert utils.result(Linear(), digits, 1, 50.0, 3.0)["data"] == "smoke"


def test_pytest_does_not_take_test_for_a_test():
    assert utils.test.__test__ is False


@pytest.mark.slow
def test_utils_works_alone(tmp_path):
    shutil.copy(ROOT / "utils.py", tmp_path)
    code = "from utils import *; print(device, plt, nn, optim, F, get_device(), train, plot_loss)"
    assert "function plot_loss" in run_python("-c", code, cwd=tmp_path, PYTHONPATH="")
