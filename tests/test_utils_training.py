"""utils.py, training: settings, counting, train and test, History, and what wrong input gets."""

import copy
import functools
import math
import re
import shutil
import threading
import types
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from helpers import HERE, PATIENCE, Linear, run_python, same, sgd, uneven_loader
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchvision import datasets, transforms

import utils
from model import NetGAP, NetMini
from utils import GetCorrectPredCount

IMAGES = torch.zeros(4, 1, 28, 28)
LABELS = torch.arange(4)
BATCHES = [(IMAGES, LABELS)]
DIGITS = utils.Digits(torch.zeros(4, 28, 28, dtype=torch.uint8), LABELS)


def train(batches=BATCHES, criterion=F.nll_loss, model=None):
    model = model or Linear()
    return utils.train(model, "cpu", batches, sgd(model, 0.1), criterion, half_precision=False)


def run(batches=BATCHES, criterion=F.nll_loss, model=None):
    return utils.test(model or Linear(), "cpu", batches, criterion)


def predict(batches, criterion=None, model=None):
    return utils.predict(model or Linear(), "cpu", batches)


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
    ("found", "fastest"),
    [
        ({}, "cpu"),
        ({"mps": True}, "mps"),
        ({"cudas": 1, "usable": False}, "cpu"),  # the driver is too old for this PyTorch
        ({"cudas": 2, "mps": True}, "cuda"),
    ],
)
def test_device_is_the_fastest_there_is(machine, found, fastest):
    machine(**found)
    assert utils.get_device() == torch.device(fastest)


@pytest.mark.parametrize("name", ["cpu", "mps", "cuda:1"])
def test_device_can_be_chosen(machine, monkeypatch, name):
    machine(cudas=2, mps=True)
    monkeypatch.setenv("DEVICE", name)
    assert utils.get_device() == torch.device(name)


@pytest.mark.parametrize("name", ["gpu", "mps", "CPU", "cpu:one", "cuda:2", "cuda:"])
def test_an_unknown_device_gets_one_sentence(machine, monkeypatch, name):
    machine(cudas=2)
    monkeypatch.setenv("DEVICE", name)
    has = "which has: cuda, cuda:0, cuda:1, cpu"
    with pytest.raises(ValueError, match=f"^DEVICE={name} is not a device of this machine, {has}$"):
        utils.get_device()


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({}, 20),
        ({"SMOKE_TEST": "1"}, 1),
        ({"SMOKE_TEST": "1", "EPOCHS": "3 "}, 3),
        ({"SMOKE_TEST": "0"}, 20),
        ({"SMOKE_TEST": "false"}, 20),
        ({"SMOKE_TEST": "off", "EPOCHS": ""}, 20),
    ],
)
def test_epochs(monkeypatch, settings, epochs):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert utils.get_epochs(20) == epochs


@pytest.mark.parametrize("epochs", ["0", "-1", "many", "1.5"])
def test_impossible_epochs(monkeypatch, epochs):
    monkeypatch.setenv("EPOCHS", epochs)
    with pytest.raises(ValueError, match=f"EPOCHS={epochs} is not a number of epochs"):
        utils.get_epochs(20)


def test_the_root_is_the_argument_else_the_environments_else_data(monkeypatch):
    monkeypatch.delenv("MNIST_ROOT", raising=False)
    assert utils.get_root() == "data"
    for written in ["~/digits", '"~/digits"', " ~/digits "]:
        monkeypatch.setenv("MNIST_ROOT", written)
        assert Path(utils.get_root()) == Path.home() / "digits"
    assert utils.get_root("other") == "other"


# --- Counting -----------------------------------------------------------------------------------

quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)


@quick
@given(st.integers(1, 40), st.integers(2, 12), seeds)
def test_right_answers_are_counted(size, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    answers = torch.randn(size, classes, generator=generator)
    labels = torch.randint(0, classes, (size,), generator=generator)
    by_hand = 0
    for row, label in zip(answers.tolist(), labels.tolist()):
        by_hand += row[label] == max(row)
    count = GetCorrectPredCount(answers, labels)
    assert count == by_hand and type(count) is int


@pytest.mark.parametrize(
    "criterion", [nn.NLLLoss(), nn.CrossEntropyLoss(), F.nll_loss, F.cross_entropy], ids=str
)
def test_means_are_over_images_not_over_batches(criterion):
    model, loader = Linear(), uneven_loader()
    images, labels = loader.dataset.tensors
    with torch.no_grad():
        answers = model(images)
    accuracy = 100 * (answers.argmax(1) == labels).sum().item() / 25
    expected = pytest.approx((accuracy, F.nll_loss(answers, labels).item()), rel=1e-5)
    assert run(loader, criterion, model) == expected
    # With a learning rate of 0 the network stays the same, so training must report the same.
    still = utils.train(model, "cpu", loader, sgd(model, 0.0), criterion, half_precision=False)
    assert still == expected


@quick
@given(st.integers(1, 30), st.integers(1, 12), seeds)
def test_averages_are_over_digits_however_they_are_batched(size, batch_size, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (size, 28, 28), dtype=torch.uint8, generator=generator)
    digits = utils.Digits(images, torch.randint(0, 10, (size,), generator=generator))
    model = Linear()
    whole = utils.test(model, "cpu", DataLoader(digits, size), quiet=True)
    parts = utils.test(model, "cpu", DataLoader(digits, batch_size), quiet=True)
    assert parts == pytest.approx(whole, rel=1e-4)
    matrix = utils.confusion_matrix(model, "cpu", DataLoader(digits, batch_size))
    assert matrix.sum() == size and 100 * matrix.trace() / size == pytest.approx(whole[0])


# --- train and test -----------------------------------------------------------------------------


def test_training_is_plain_gradient_descent():
    """The oracle: the same steps written out."""
    model, loader = Linear(), uneven_loader()
    twin = copy.deepcopy(model)
    train(loader, model=model)
    for images, labels in loader:
        gradients = torch.autograd.grad(F.nll_loss(twin(images), labels), list(twin.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(twin.parameters(), gradients):
                parameter -= 0.1 * gradient
    for ours, theirs in zip(model.parameters(), twin.parameters()):
        torch.testing.assert_close(ours, theirs)


def test_scheduler_steps_once_a_batch():
    model = Linear()
    optimizer = sgd(model, 1.0)
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
    utils.train(model, "cpu", uneven_loader(), optimizer, F.nll_loss, scheduler)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)


def test_test_prints_the_known_line(capsys):
    class Half(nn.Module):
        def forward(self, x):
            always_0 = torch.zeros(len(x), dtype=torch.long)
            return F.one_hot(always_0, 10).float().log_softmax(1)

    loader = DataLoader(TensorDataset(IMAGES, torch.tensor([0, 0, 0, 1])), 3)
    accuracy, loss = utils.test(Half(), torch.device("cpu"), loader, F.nll_loss)
    assert accuracy == 75.0
    line = f"Test set: Average loss: {loss:.4f}, Accuracy: 3/4 (75.00%)\n\n"
    assert capsys.readouterr().out == line


def test_progress_bar_shows_the_last_batch(capsys):
    accuracy, _ = train(uneven_loader())
    last = capsys.readouterr().err.split("\r")[-1]
    text = rf"Train: Loss=\d+\.\d{{4}} Batch_id=2 Accuracy={accuracy:.2f}: 100%\|.*\| 3/3 "
    assert re.match(text, last)


class Spy(Linear):
    """Notes how it is used."""

    def __init__(self):
        super().__init__()
        self.modes = []

    def forward(self, x):
        mode = self.training, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
        self.modes.append(mode)
        return super().forward(x)


def test_train_and_test_set_the_modes_they_need():
    """Whatever an interrupt has left switched on or off."""
    torch.set_grad_enabled(False)
    torch.set_autocast_enabled("cpu", True)
    model = Spy().eval()
    train(uneven_loader(), model=model)
    torch.set_autocast_enabled("cpu", True)
    run(uneven_loader(), model=model)
    torch.set_autocast_enabled("cpu", True)
    predict(uneven_loader(), model=model)
    assert model.modes == [(True, True, False)] * 3 + [(False, False, False)] * 6
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("flatten", [lambda x: x.view(len(x), -1), torch.nn.Flatten()])
def test_networks_of_ones_own_learn_the_same_as_by_hand(flatten):
    """Also with `view`, which some layouts of the numbers would not allow."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 8, 3)
            self.bn, self.fc = nn.BatchNorm2d(8), nn.Linear(8 * 24 * 24, 10)

        def forward(self, x):
            x = self.bn(F.relu(self.conv2(F.relu(self.conv1(x)))))
            return F.log_softmax(self.fc(flatten(x)), dim=1)

    ours, loader = Own(), uneven_loader()
    by_hand = copy.deepcopy(ours)
    train(loader, model=ours)
    optimizer = sgd(by_hand, 0.1)
    for images, labels in loader:
        optimizer.zero_grad()
        F.nll_loss(by_hand(images), labels).backward()
        optimizer.step()
    assert same(ours.state_dict(), by_hand.state_dict())
    images, _, probabilities = predict(loader, model=ours)
    torch.testing.assert_close(probabilities, ours(images).exp().detach())


@pytest.mark.parametrize(
    "layers",
    [
        [nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10)],
        [nn.Unflatten(1, (1, 1)), nn.Conv3d(1, 2, (1, 3, 3)), nn.Flatten(), nn.Linear(1352, 10)],
    ],
    ids=["lazy", "3d"],
)
def test_unusual_layers_are_trained_too(layers):
    model, loader = nn.Sequential(*layers), uneven_loader()
    before = run(loader, F.cross_entropy, model)
    train(loader, F.cross_entropy, model)
    assert run(loader, F.cross_entropy, model) != before


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
        thread.join(timeout=PATIENCE)
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
    assert 0 <= train(make())[0] <= 100 and 0 <= run(make())[0] <= 100
    assert "Batch_id=1" in capsys.readouterr().err


def test_the_loss_of_a_16_bit_network_is_computed_in_32():
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.LogSoftmax(dim=1)).bfloat16()
    images = torch.rand(4, 1, 28, 28).bfloat16()
    with torch.no_grad():
        expected = F.nll_loss(model(images).float(), LABELS).item()
    assert run([(images, LABELS)], model=model)[1] == pytest.approx(expected, rel=1e-6)


def test_bright_pixels_of_16_bits_are_finite():
    """Their sum is not, with 16 bits."""
    images = torch.full((4, 1, 28, 28), 100.0, dtype=torch.float16)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).half()
    assert predict([(images, LABELS)], model=model)[0].dtype == torch.float16


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_of_any_whole_type(kind):
    """26 letters: 26 times a label is more than 8 bits hold."""
    labels = torch.arange(260) % 26
    loader = DataLoader(TensorDataset(torch.rand(260, 1, 28, 28), labels.to(kind)), 52)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 26))
    train(loader, nn.CrossEntropyLoss(), model)
    run(loader, nn.CrossEntropyLoss(), model)
    assert utils.confusion_matrix(model, "cpu", loader).sum(dim=1).tolist() == [10] * 26


def test_the_curves_of_the_original_assignments_grow(monkeypatch):
    for name in ["train_acc", "train_losses", "test_acc", "test_losses"]:
        monkeypatch.setattr(utils, name, [])
    model = Linear()
    trained, tested = train(uneven_loader(), model=model), run(uneven_loader(), model=model)
    assert (utils.train_acc, utils.train_losses) == ([trained[0]], [trained[1]])
    assert (utils.test_acc, utils.test_losses) == ([tested[0]], [tested[1]])


# --- Half precision -----------------------------------------------------------------------------


def processor_with(monkeypatch, **capabilities):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)


@pytest.mark.parametrize(
    ("is_faster", "wanted", "kind"),
    [
        (True, {}, torch.bfloat16),
        (True, {"half_precision": False}, torch.float32),
        (False, {}, torch.float32),
    ],
)
def test_half_precision_rounds_only_where_it_is_faster(monkeypatch, is_faster, wanted, kind):
    kinds, losses = set(), []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 10, 28)

        def forward(self, x):
            x = self.conv(x)
            kinds.add(x.dtype)
            return x.flatten(1)

    def criterion(prediction, target):
        losses.append(prediction.dtype)
        return F.cross_entropy(prediction, target)

    model = Spy()
    processor_with(monkeypatch, avx512_bf16=is_faster)
    utils.train(model, "cpu", uneven_loader(), sgd(model), criterion, **wanted)
    assert kinds == {kind} and set(losses) == {torch.float32}, "the loss is computed with 32 bits"
    assert model.conv.weight.dtype == model.conv.weight.grad.dtype == torch.float32
    kinds.clear()
    run(uneven_loader(), F.cross_entropy, model)
    assert kinds == {torch.float32}, "testing never rounds"


def test_bfloat16_is_for_processors_that_say_so(monkeypatch):
    def rounds(device, *wanted):
        with utils.bfloat16(device, *wanted):
            return torch.is_autocast_enabled("cpu")

    processor_with(monkeypatch, avx512_bf16=True)
    assert rounds("cpu") and not rounds("cuda") and not rounds("cpu", False)
    processor_with(monkeypatch)
    assert not rounds("cpu")
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not rounds("cpu"), "an older PyTorch"


def test_half_precision_learns_like_full_precision(monkeypatch):
    """One step from the same weights: the gradients differ by rounding only."""
    processor_with(monkeypatch, avx512_bf16=True)
    layers = nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 10, 13), nn.Flatten()
    start = nn.Sequential(*layers)
    loader = uneven_loader(10)
    steps = []
    for half in [True, False]:
        model = copy.deepcopy(start)
        utils.train(model, "cpu", loader, sgd(model, 0.1), F.cross_entropy, half_precision=half)
        moved = [new - old for new, old in zip(model.parameters(), start.parameters())]
        steps.append(torch.cat([part.detach().flatten() for part in moved]))
    assert F.cosine_similarity(*steps, dim=0) > 0.999


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
    assert first.startswith(start + "learning rate 0.05, ") and first.endswith(" s")
    assert "Epoch  2: " in second and "learning rate 0.0025," in second
    assert history.curves == {
        "train_losses": [0.31, 0.03],
        "train_acc": [90.5, 99.0],
        "test_losses": [0.125, 0.0625],
        "test_acc": [95.25, 98.0],
    }


def test_history_of_a_training_without_tests(history, capsys):
    for _ in history.epochs(2):
        history.add((90.5, 0.31))
    assert history.done == 2 and history.curves["test_acc"] == []
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
def test_history_redraws_one_picture_in_a_notebook(history, monkeypatch, live):
    """In place of a notebook: a display that is noted."""
    shown, updated = [], []

    def display(picture, display_id=False):
        shown.append(picture)
        return types.SimpleNamespace(update=updated.append) if display_id else None

    monkeypatch.setattr(utils, "is_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", display)
    history = utils.History(history.model, history.optimizer, live=live)
    for _ in history.epochs(3):
        history.add((90.0, 0.3), (95.0, 0.1))
    assert (len(shown), len(updated)) == ((1, 3) if live else (0, 0)), "one picture, replaced"
    if live:
        losses, accuracies = updated[-1].axes
        assert [line.get_label() for line in losses.lines] == ["training", "test"]
        assert list(losses.lines[0].get_ydata()) == [0.3] * 3
        assert list(accuracies.lines[1].get_ydata()) == [95.0] * 3
        assert not plt.get_fignums(), "an open figure would appear again at the end of the cell"


def test_results_that_are_none_leave_no_trace(history):
    with pytest.raises(TypeError):
        history.add((70.0, 0.9), None)
    assert history.done == 0 and not any(history.curves.values())


@pytest.mark.parametrize("times", [0, 2])
def test_an_epoch_has_one_result(history, times):
    with pytest.raises(RuntimeError, match="once in each epoch"):
        for _ in history.epochs(2):
            for _ in range(times):
                history.add((70.0, 0.9), (60.0, 1.0))


def test_a_schedule_belongs_to_its_optimizer(history):
    """Else the rate stays what it is, whatever the schedule says."""
    old = sgd(history.model)
    schedule = optim.lr_scheduler.StepLR(old, 15)
    with pytest.raises(ValueError, match="this scheduler belongs to another optimizer"):
        utils.History(history.model, history.optimizer, schedule)
    with pytest.raises(ValueError, match="this scheduler belongs to another optimizer"):
        model = Linear()
        utils.train(model, "cpu", BATCHES, sgd(model), F.nll_loss, schedule)


class Interrupted(Exception):
    pass


PLACES = ["in training", "before the results", "after the results", "after the schedule"]


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


def go_on(history, loader, by_batch, interrupt=None):
    """Train until there are three epochs, or break off at this place of the second one."""

    def perhaps_interrupt(place):
        if (place, history.done) == (interrupt, 1 + (place in PLACES[2:])):
            raise Interrupted

    model, optimizer, schedule = history.model, history.optimizer, history.scheduler
    in_each_batch = schedule if by_batch else None
    for _ in history.epochs(3):
        if interrupt == "in training" and history.done == 1:
            utils.train(model, "cpu", list(loader)[:2], optimizer, F.nll_loss, in_each_batch)
        perhaps_interrupt("in training")
        trained = utils.train(model, "cpu", loader, optimizer, F.nll_loss, in_each_batch)
        perhaps_interrupt("before the results")
        history.add(trained, trained)
        perhaps_interrupt("after the results")
        if not by_batch:
            schedule.step()
        perhaps_interrupt("after the schedule")


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("by_batch", [True, False])
def test_an_interrupted_epoch_starts_over(digits, where, by_batch):
    """Curves, weights and rate are those of a training that nobody interrupted."""
    digits.transform = utils.Augment()
    loader = DataLoader(digits, 25, shuffle=True)
    whole = new_training(loader, by_batch)
    go_on(whole, loader, by_batch)
    stopped = new_training(loader, by_batch)
    with pytest.raises(Interrupted):
        go_on(stopped, loader, by_batch, where)
    go_on(stopped, loader, by_batch)
    assert stopped.curves == whole.curves
    assert same(stopped.model.state_dict(), whole.model.state_dict())
    assert stopped.scheduler.get_last_lr() == whole.scheduler.get_last_lr()


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
    assert printed == seconds and history.seconds == pytest.approx(sum(seconds), abs=0.5)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory from /proc")
def test_two_hundred_epochs_need_no_more_memory_than_forty(digits):
    def megabytes():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    model = NetMini()
    few = utils.Digits(digits.data[:50], digits.targets[:50], utils.Augment())
    loader = DataLoader(few, 25, shuffle=True)
    history, occupied = utils.History(model, sgd(model, 0.05)), {}
    for epoch in history.epochs(200):
        trained = utils.train(model, "cpu", loader, history.optimizer, F.nll_loss)
        history.add(trained, utils.test(model, "cpu", loader, F.nll_loss))
        occupied[epoch] = megabytes()
    assert occupied[200] - occupied[40] < 20


# --- Wrong input --------------------------------------------------------------------------------


class Twice(Linear):
    """Returns two tensors, as networks with a second output do."""

    def forward(self, x):
        return super().forward(x), x


class BreaksOff(list):
    """A loader whose disk fails after the first batch."""

    def __iter__(self):
        yield from BATCHES
        raise RuntimeError("the disk is gone")


def one_pixel(value):
    images = IMAGES.clone()
    images[2, 0, 5, 5] = value
    return images


ALL = [train, run, predict]
LOSSES = [train, run]
WRONG = [
    (ALL, {"batches": [(IMAGES, LABELS[:3])]}, "4 predictions need 4 integer labels"),
    (ALL, {"batches": [(IMAGES, LABELS[:, None])]}, "integer labels, got torch.int64 [4, 1]"),
    (ALL, {"batches": [(IMAGES, F.one_hot(LABELS, 10))]}, "labels, got torch.int64 [4, 10]"),
    (ALL, {"batches": [(IMAGES, LABELS.float())]}, "must be integers, got torch.float32 [4]"),
    (ALL, {"batches": [(IMAGES, LABELS > 0)]}, "must be integers, got torch.bool [4]"),
    (ALL, {"batches": [(IMAGES, LABELS - 1)]}, "labels must be from 0 to 9, got -1 to 2"),
    (ALL, {"batches": [(IMAGES, LABELS - 100)]}, "labels must be from 0 to 9, got -100 to -97"),
    (ALL, {"batches": [(IMAGES, LABELS + 7)]}, "labels must be from 0 to 9, got 7 to 10"),
    (ALL, {"batches": [(one_pixel(math.nan), LABELS)]}, "pixels that are nan or infinite"),
    (ALL, {"batches": [(one_pixel(math.inf), LABELS)]}, "pixels that are nan or infinite"),
    (ALL, {"batches": [(one_pixel(-math.inf), LABELS)]}, "pixels that are nan or infinite"),
    (ALL, {"batches": []}, "the loader is empty"),
    (ALL, {"batches": iter([])}, "the loader is empty"),
    (ALL, {"batches": BreaksOff([1, 2])}, "the disk is gone"),
    (ALL, {"batches": DIGITS}, "this Digits is not a loader of batches (images, labels)"),
    (ALL, {"batches": (DIGITS, DataLoader(DIGITS, 2))}, "this tuple is not a loader"),
    (ALL, {"batches": TensorDataset(IMAGES, LABELS)}, "this TensorDataset is not a loader"),
    (ALL, {"batches": DataLoader(TensorDataset(IMAGES), 2)}, "expected 2, got 1"),
    (ALL, {"batches": [{"image": IMAGES, "label": LABELS}]}, "tensors; got str and str"),
    (ALL, {"model": Linear, "batches": BATCHES}, "Linear is a class: write Linear(...) to make"),
    (ALL, {"model": Twice(), "batches": BATCHES}, "one tensor of shape [N, classes], got tuple"),
    (LOSSES, {"criterion": nn.NLLLoss}, "NLLLoss is a class: write NLLLoss(...) to make one"),
    (LOSSES, {"criterion": 3}, "such as nn.NLLLoss(), not 3: call train(model, device, train_lo"),
    (LOSSES, {"criterion": []}, "and test(model, device, test_loader, criterion)"),
    (LOSSES, {"criterion": nn.NLLLoss(reduction="sum")}, 'use reduction="mean" instead of "sum"'),
    (LOSSES, {"criterion": nn.NLLLoss(reduction="none")}, 'reduction="mean" instead of "none"'),
    (
        LOSSES,
        {"criterion": functools.partial(F.nll_loss, reduction="sum")},
        'use reduction="mean" instead of "sum"',
    ),
    (
        LOSSES,
        {"criterion": lambda prediction, _: prediction.sum(dim=1)},
        'the loss has the shape [4]: use reduction="mean"',
    ),
]


@pytest.mark.parametrize(
    ("call", "named", "sentence"),
    [(call, named, sentence) for calls, named, sentence in WRONG for call in calls],
    ids=[f"{call.__name__}: {sentence}" for calls, _, sentence in WRONG for call in calls],
)
def test_wrong_input_gets_one_sentence(call, named, sentence, capsys):
    if isinstance(named.get("batches"), type(iter([]))):
        named = named | {"batches": iter([])}
    if isinstance(named.get("model"), type):  # the optimizer needs a network that exists
        with pytest.raises(TypeError) as error:
            if call is train:
                utils.train(named["model"], "cpu", BATCHES, sgd(Linear()), F.nll_loss)
            else:
                call(**named)
    else:
        model = named.get("model") or Linear()
        before = copy.deepcopy(model.state_dict())
        with pytest.raises((ValueError, TypeError, RuntimeError)) as error:
            call(**named | {"model": model})
        if "disk" not in sentence:
            assert same(model.state_dict(), before), "no weight has changed"
    assert sentence in str(error.value) and "\n" not in str(error.value)
    assert not utils.tqdm._instances, "an open bar would push the next one down a line"


@pytest.mark.parametrize(
    ("prediction", "labels", "sentence"),
    [
        (
            torch.zeros(4, 10),
            LABELS[:1],
            "4 predictions need 4 integer labels, got torch.int64 [1]",
        ),
        (torch.zeros(10), LABELS, "one tensor of shape [N, classes], got torch.Size([10])"),
        (torch.zeros(4, 10), LABELS.float(), "need 4 integer labels, got torch.float32 [4]"),
        (torch.zeros(4, 3), LABELS, "labels must be from 0 to 2, got 0 to 3"),
    ],
)
def test_counting_refuses_what_does_not_fit(prediction, labels, sentence):
    with pytest.raises(ValueError) as error:
        GetCorrectPredCount(prediction, labels)
    assert sentence in str(error.value)


@pytest.mark.parametrize("criterion", [F.nll_loss, nn.NLLLoss()], ids=str)
@pytest.mark.parametrize("measure", LOSSES)
def test_scores_are_not_taken_for_logarithms(measure, criterion):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="nll_loss needs log-probabilities: end with log_softmax"):
        measure(BATCHES, criterion, model)
    assert same(model.state_dict(), before)
    measure(BATCHES, nn.CrossEntropyLoss(), model)  # which takes scores


def test_softmax_applied_twice_is_said_once(recwarn):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Softmax(dim=1))
    with pytest.warns(UserWarning, match="cross_entropy applies softmax itself") as said:
        train(BATCHES * 3, nn.CrossEntropyLoss(), model)
    assert len({str(warning.message) for warning in said}) == 1
    images, _, probabilities = predict(BATCHES, model=model)
    torch.testing.assert_close(probabilities, model(images).detach())


@pytest.mark.parametrize("scores", [torch.eye(4, 10) - 0.1, torch.rand(4, 10), -torch.rand(4, 10)])
def test_other_outputs_are_not_taken_for_probabilities(scores):
    assert not utils.are_probabilities(scores)
    assert utils.are_probabilities(scores.softmax(dim=1))
    assert utils.are_probabilities((1e3 * scores).softmax(dim=1)), "some are 0 if it is sure"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda model: sgd(Linear()), "this optimizer belongs to another network: make a new one"),
        (lambda model: optim.SGD, "SGD is a class: write SGD(...) to make one"),
        (lambda model: sgd(model.requires_grad_(False)), "all weights of this model are frozen"),
    ],
)
def test_an_optimizer_that_cannot_train_this_network(change, sentence):
    model = Linear()
    with pytest.raises((ValueError, TypeError)) as error:
        utils.train(model, "cpu", BATCHES, change(model), F.nll_loss)
    assert sentence in str(error.value)


def test_an_optimizer_may_know_less_or_more_than_the_network():
    model = NetMini()
    part, both = sgd(model.classes), optim.SGD([*NetMini().parameters(), *model.parameters()])
    for optimizer in [part, both]:
        utils.train(model, "cpu", BATCHES, optimizer, F.nll_loss)
    optimizer = sgd(model)
    model.classes = nn.Linear(12, 10)  # the optimizer still has the old layer
    with pytest.raises(ValueError, match="make a new one for this model"):
        utils.train(model, "cpu", BATCHES, optimizer, F.nll_loss)
    model.classes.requires_grad_(False)
    utils.train(model, "cpu", BATCHES, optimizer, F.nll_loss)  # what is frozen needs no optimizer


def test_a_scheduler_has_steps():
    model = Linear()
    with pytest.raises(TypeError, match="the scheduler must have a method step, unlike True"):
        utils.train(model, "cpu", BATCHES, sgd(model), F.nll_loss, True)


def test_a_loss_that_is_not_a_number_stops_before_it_does_harm():
    """The good batch before is learned; the bad one changes nothing."""
    model = Linear()
    losses = iter([1.0, float("nan")])

    def criterion(prediction, target):
        return F.nll_loss(prediction, target) * next(losses)

    with pytest.raises(FloatingPointError, match="loss became nan at batch 1: use a smaller"):
        train(uneven_loader(), criterion, model)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_bad_batches_do_no_harm(value):
    model, good = NetMini(), (torch.randn(4, 1, 28, 28), LABELS)
    twin = copy.deepcopy(model)
    with pytest.raises(ValueError, match="nan or infinite"):
        train([good, (one_pixel(value), LABELS)], model=model)
    train([good], model=twin)
    assert same(model.state_dict(), twin.state_dict())


# --- Course material written against the original assignments -----------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its imshow gets tensors
def test_original_course_material_runs_unchanged(figures, capsys):
    """The cells of an original assignment, on torchvision's own data set and loaders."""
    grey = transforms.Compose([transforms.ToTensor(), lambda image: image[:1]])
    data = datasets.FakeData(64, (1, 28, 28), 10, grey)
    names = {"train_data": data, "test_data": data}
    exec((HERE / "tests" / "programs" / "original_assignment.py").read_text(), names)
    printed = capsys.readouterr().out
    assert printed.count("Test set: Average loss: ") == 2 and "Total params: 593,200" in printed
    assert len(figures) == 2


def test_the_original_transforms_prepare_digits_as_lesson_5_does(digits):
    assert isinstance(utils.train_transforms.transforms[0].transforms[0], transforms.CenterCrop)
    digits.transform = utils.test_transforms
    theirs = digits[3][0]
    digits.transform = utils.Normalize()
    torch.testing.assert_close(theirs, digits[3][0])
    digits.transform = utils.train_transforms
    assert digits[3][0].shape == (1, 28, 28)


@pytest.mark.parametrize("plot", [utils.train_test_plot, utils.Plotting])
def test_the_original_plots_draw_what_was_collected(plot, figures, monkeypatch):
    for name in ["train_acc", "train_losses", "test_acc", "test_losses"]:
        monkeypatch.setattr(utils, name, [])
    model = Linear()
    train(model=model), run(model=model)
    plot()
    assert figures[0].axes[0].get_title().endswith("after epoch 1")
    plot([0.5, 0.4], [80, 90], [0.6, 0.5], [70, 80])
    assert figures[1].axes[3].get_title() == "Test accuracy: 80.00 % after epoch 2"


def test_get_summary_leaves_everything_as_it_was(capsys):
    model = NetMini().train()
    before = copy.deepcopy(model.state_dict())
    random_numbers = torch.get_rng_state()
    utils.get_summary(model)
    assert "5,797" in capsys.readouterr().out and model.training
    assert same(model.state_dict(), before)
    utils.get_summary(lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
    assert "7,850" in capsys.readouterr().out
    assert torch.equal(torch.get_rng_state(), random_numbers)


def test_the_results_of_a_smoke_test_are_marked(monkeypatch, digits, capsys):
    row = utils.result(Linear(), digits, 1, 50.0, 3.0)
    monkeypatch.setenv("SMOKE_TEST", "1")
    utils.print_results([row, utils.result(Linear(), digits, 1, 50.0, 3.0)])
    _, usual, smoke = capsys.readouterr().out.splitlines()
    assert usual.split() == ["Linear", "7,850", "1", "MNIST", "50.00", "%", "3"]
    assert smoke.split()[3] == "smoke"


def test_pytest_does_not_take_test_for_a_test():
    assert utils.test.__test__ is False


@pytest.mark.slow
def test_tqdm_can_be_switched_off_from_outside():
    """tqdm reads TQDM_DISABLE when it is imported; an explicit argument would overrule it."""
    program = HERE / "tests" / "programs" / "one_bar.py"
    assert run_python(program, TQDM_DISABLE="1") == ""
    assert "Batch_id=0" in run_python(program, TQDM_DISABLE="")


@pytest.mark.slow
def test_utils_works_alone(tmp_path):
    shutil.copy(HERE / "utils.py", tmp_path)
    code = "from utils import *; print(device, plt, nn, optim, F, get_device(), train, plot_loss)"
    printed = run_python("-c", code, cwd=tmp_path, PYTHONPATH="")
    assert "function plot_loss" in printed
