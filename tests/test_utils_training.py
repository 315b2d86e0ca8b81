"""utils.py, training: settings, counting, train and test, History, and what they say to wrong input."""

import copy
import functools
import math
import re
import shutil
import sys
import types
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from helpers import HERE, Linear, run_python, sgd, uneven_loader
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset
from torchvision import datasets, transforms

import utils
from course.checkpoints import kept
from model import NetMini
from utils import GetCorrectPredCount

# --- Settings ----------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many CUDA devices, which its driver can use or not, and with MPS or not."""

    def build(cudas=0, mps=False, usable=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: usable and cudas > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cudas)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return build


def test_device_is_the_fastest_there_is(machine, monkeypatch):
    machine()
    assert utils.get_device() == torch.device("cpu")
    machine(mps=True)
    assert utils.get_device() == torch.device("mps")
    machine(cudas=1, usable=False)  # the driver is too old for this PyTorch
    assert utils.get_device() == torch.device("cpu")
    machine(cudas=2, mps=True)
    assert utils.get_device() == torch.device("cuda")
    for name in ["cpu", "mps", "cuda:1"]:
        monkeypatch.setenv("DEVICE", name)
        assert utils.get_device() == torch.device(name)


@pytest.mark.parametrize("name", ["gpu", "mps", "CPU", "cpu:one", "cuda:2", "cuda:"])
def test_an_unknown_device_gets_one_sentence(machine, monkeypatch, name):
    machine(cudas=2)
    monkeypatch.setenv("DEVICE", name)
    sentence = f"DEVICE={name} is not a device of this machine, which has: cuda, cuda:0, cuda:1, cpu"
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        utils.get_device()


def test_epochs(monkeypatch):
    assert utils.get_epochs(20) == 20
    monkeypatch.setenv("SMOKE_TEST", "1")
    assert utils.get_epochs(20) == 1
    monkeypatch.setenv("EPOCHS", "3")
    assert utils.get_epochs(20) == 3


@pytest.mark.parametrize("epochs", ["0", "-1", "many", "1.5"])
def test_impossible_epochs(monkeypatch, epochs):
    monkeypatch.setenv("EPOCHS", epochs)
    with pytest.raises(ValueError, match=f"EPOCHS={epochs} is not a number of epochs"):
        utils.get_epochs(20)


def test_the_root_is_the_argument_else_the_environments_else_data(monkeypatch):
    monkeypatch.delenv("MNIST_ROOT", raising=False)
    assert utils.get_root() == "data"
    monkeypatch.setenv("MNIST_ROOT", "~/digits")
    assert Path(utils.get_root()) == Path.home() / "digits" and utils.get_root("other") == "other"


# --- Counting ----------------------------------------------------------------------------------


def test_correct_predictions_are_counted():
    prediction = torch.tensor([[0.1, 0.8, 0.1], [0.5, 0.2, 0.3], [0.2, 0.2, 0.6]])
    count = GetCorrectPredCount(prediction, torch.tensor([1, 2, 2]))
    assert count == 2 and type(count) is int


CRITERIA = {
    "module": nn.NLLLoss(),
    "cross entropy": nn.CrossEntropyLoss(),
    "function": F.nll_loss,
    "other function": F.cross_entropy,
    "sum": nn.NLLLoss(reduction="sum"),
    "partial sum": functools.partial(F.nll_loss, reduction="sum"),
}


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA.keys())
def test_means_are_over_images_not_over_batches(criterion, capsys):
    model, loader = Linear(), uneven_loader()
    images, labels = loader.dataset.tensors
    with torch.no_grad():
        answers = model(images)
    accuracy = 100 * (answers.argmax(1) == labels).sum().item() / 25
    loss = F.nll_loss(answers, labels).item()

    measured = utils.test(model, "cpu", loader, criterion)
    assert measured == pytest.approx((accuracy, loss), rel=1e-5)
    # With a learning rate of 0 the network stays the same, so training must report the same.
    trained = utils.train(model, "cpu", loader, sgd(model, 0.0), criterion, half_precision=False)
    assert trained == pytest.approx((accuracy, loss), rel=1e-5)


def test_test_prints_the_known_line(capsys):
    class Half(nn.Module):
        def forward(self, x):
            return F.one_hot(torch.zeros(len(x), dtype=torch.long), 10).float().log_softmax(1)

    labels = torch.tensor([0, 0, 0, 1])
    loader = DataLoader(TensorDataset(torch.zeros(4, 1, 28, 28), labels), 3)
    accuracy, loss = utils.test(Half(), torch.device("cpu"), loader, F.nll_loss)
    assert accuracy == 75.0
    assert capsys.readouterr().out == f"Test set: Average loss: {loss:.4f}, Accuracy: 3/4 (75.00%)\n\n"


def test_progress_bar_shows_the_last_batch(capsys):
    model = Linear()
    accuracy, _ = utils.train(model, "cpu", uneven_loader(), sgd(model), F.nll_loss)
    last = capsys.readouterr().err.split("\r")[-1]
    assert re.match(rf"Train: Loss=\d+\.\d{{4}} Batch_id=2 Accuracy={accuracy:.2f}: 100%\|.*\| 3/3 ", last)


def test_training_is_plain_gradient_descent():
    """The oracle: the same steps written out."""
    model, twin, loader = Linear(), Linear(), uneven_loader()
    twin.load_state_dict(model.state_dict())
    utils.train(model, "cpu", loader, sgd(model, 0.1), F.nll_loss, half_precision=False)
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


def test_train_and_test_set_their_modes():
    modes = []

    class Spy(Linear):
        def forward(self, x):
            modes.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    model = Spy()
    utils.train(model, "cpu", uneven_loader(), sgd(model), F.nll_loss)
    utils.test(model, "cpu", uneven_loader(), F.nll_loss)
    assert modes == [(True, True)] * 3 + [(False, False)] * 3


def test_fast_changes_neither_answers_nor_the_model():
    layers = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(8 * 24 * 24, 10)
    model = nn.Sequential(*layers)
    images = torch.randn(4, 1, 28, 28)
    before = model(images)
    with utils.fast(model, "cpu"):
        assert model[2].weight.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(model(images), before, rtol=1e-4, atol=1e-5)
    assert torch.equal(model(images), before)
    assert all(parameter.is_contiguous() for parameter in model.parameters())


class Viewing(nn.Module):
    """A network that flattens with `view`, as many do."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 8, 3), nn.Linear(8 * 24 * 24, 10)

    def forward(self, x):
        x = F.relu(self.conv2(F.relu(self.conv1(x)))).view(-1, 8 * 24 * 24)
        return F.log_softmax(self.fc(x), dim=1)


def test_networks_with_view_learn_the_same_as_by_hand(capsys):
    ours, by_hand = Viewing(), Viewing()
    by_hand.load_state_dict(ours.state_dict())
    loader = uneven_loader()
    utils.train(ours, "cpu", loader, sgd(ours), F.nll_loss, half_precision=False)
    optimizer = sgd(by_hand)
    for images, labels in loader:
        optimizer.zero_grad()
        F.nll_loss(by_hand(images), labels).backward()
        optimizer.step()
    for name, weight in ours.state_dict().items():
        torch.testing.assert_close(weight, by_hand.state_dict()[name], rtol=1e-4, atol=1e-5)
    images, _, probabilities = utils.predict(ours, "cpu", loader)
    torch.testing.assert_close(probabilities, ours(images).exp().detach(), rtol=1e-4, atol=1e-5)


class Call(nn.Module):
    """A layer that is any function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Inherited(Viewing):
    """The `view` stands in another class, as in a network that changes one layer of another."""

    def forward(self, x):
        return super().forward(x)


def flat(x):
    return x.view(size=(len(x), -1))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.view(len(x), -1),
        lambda x: flat(x),
        lambda x: torch.cat([part.view(1, -1) for part in x.split(1)]),
        Viewing(),
        Inherited(),
    ],
)
def test_view_is_allowed_wherever_a_network_uses_it(function):
    if isinstance(function, nn.Module):
        model = nn.Sequential(function)
    else:
        model = nn.Sequential(nn.Conv2d(1, 4, 3), Call(function), nn.Flatten(), nn.Linear(4 * 26 * 26, 10))
    images = torch.rand(2, 1, 28, 28)
    expected = model(images)
    with utils.fast(model, "cpu"):
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)
    assert torch.Tensor.view is torch._C.TensorBase.view, "afterwards it is PyTorch's own again"


@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_network_may_use_view(in_place):
    model, images = Viewing(), torch.rand(2, 1, 28, 28)
    expected = model(images)
    if in_place:
        model.compile(backend="eager")
    else:
        model = torch.compile(model, backend="eager")
    with utils.fast(model, "cpu"):
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)


def test_a_view_as_another_type_stays_a_view():
    numbers = torch.tensor([1.0, 2.0])
    with utils.fast(nn.Linear(1, 1), "cpu"):
        assert (
            numbers.view(torch.int32).tolist()
            == numbers.view(dtype=torch.int32).tolist()
            == [2**23 * 127, 2**30]
        )
        assert numbers.t().view(-1).data_ptr() == numbers.data_ptr(), "nothing is copied without need"
        with pytest.raises(RuntimeError, match="invalid for input of size 2"):
            numbers.view(3)


def test_layers_that_do_not_know_their_size_yet():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
    loader = uneven_loader()
    for _ in range(2):
        utils.train(model, "cpu", loader, sgd(model), F.cross_entropy)
    assert model[3].weight.shape == (10, 4 * 26 * 26)


def processor_with(monkeypatch, **capabilities):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)


@pytest.mark.parametrize(
    ("able", "wanted", "kind"),
    [
        (True, {}, torch.bfloat16),
        (True, {"half_precision": False}, torch.float32),
        (False, {}, torch.float32),
    ],
)
def test_half_precision_rounds_only_where_it_is_faster(monkeypatch, able, wanted, kind):
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
    processor_with(monkeypatch, avx512_bf16=able)
    utils.train(model, "cpu", uneven_loader(), sgd(model), criterion, **wanted)
    assert kinds == {kind} and set(losses) == {torch.float32}, "the loss is computed with 32 bits"
    assert model.conv.weight.dtype == model.conv.weight.grad.dtype == torch.float32
    kinds.clear()
    utils.test(model, "cpu", uneven_loader(), F.cross_entropy)
    assert kinds == {torch.float32}, "testing never rounds"


def test_bfloat16_is_for_processors_that_say_so(monkeypatch):
    def rounds(device, wanted=True):
        with utils.bfloat16(device, wanted):
            return torch.is_autocast_enabled("cpu")

    processor_with(monkeypatch, avx512_bf16=True)
    assert rounds("cpu") and not rounds("cuda") and not rounds("cpu", wanted=False)
    processor_with(monkeypatch)
    assert not rounds("cpu")
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not rounds("cpu"), "an older PyTorch"


def test_half_precision_learns_like_full_precision(monkeypatch):
    """One step from the same weights: the gradients differ by rounding only."""
    processor_with(monkeypatch, avx512_bf16=True)
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 10, 13), nn.Flatten()]
    model = nn.Sequential(*layers)
    twin = copy.deepcopy(model)
    loader = uneven_loader(10)
    before = torch.cat([parameter.flatten() for parameter in model.parameters()])
    for network, half in [(model, True), (twin, False)]:
        utils.train(network, "cpu", loader, sgd(network, 0.1), F.cross_entropy, half_precision=half)
    step, exact = (
        torch.cat([parameter.detach().flatten() for parameter in network.parameters()]) - before
        for network in (model, twin)
    )
    assert F.cosine_similarity(step, exact, dim=0) > 0.999


def test_networks_with_3d_convolutions_train_too():
    """PyTorch has no channels-last layout for them, so `fast` must let them be."""
    model = nn.Sequential(
        nn.Unflatten(1, (1, 1)), nn.Conv3d(1, 2, (1, 3, 3)), nn.Flatten(), nn.Linear(1352, 10)
    )
    before = model[1].weight.detach().clone()
    utils.train(model, "cpu", uneven_loader(), sgd(model), nn.CrossEntropyLoss())
    assert not torch.equal(model[1].weight, before)


# --- The history of a training --------------------------------------------------------------------


@pytest.fixture
def history():
    model = nn.Linear(1, 1)
    return utils.History(model, torch.optim.SGD(model.parameters(), lr=0.05))


def test_history_prints_one_line_an_epoch(history, capsys):
    numbers = history.epochs(2)
    assert next(numbers) == 1
    history.add((90.5, 0.31), (95.25, 0.125))
    history.optimizer.param_groups[0]["lr"] = 0.0025
    assert next(numbers) == 2
    history.add((99.0, 0.03), (98.0, 0.0625))
    assert list(numbers) == []
    first, second = capsys.readouterr().out.splitlines()
    start = "Epoch  1: training 90.50 % (loss 0.3100), test 95.25 % (loss 0.1250), learning rate 0.05, "
    assert first.startswith(start) and first.endswith(" s")
    assert "Epoch  2: " in second and "learning rate 0.0025," in second
    assert history.curves == {
        "train_losses": [0.31, 0.03],
        "train_acc": [90.5, 99.0],
        "test_losses": [0.125, 0.0625],
        "test_acc": [95.25, 98.0],
    }
    assert 0 < history.seconds < 60


def test_history_draws_nothing_outside_a_notebook(history):
    next(history.epochs(1))
    assert history._picture is None


def test_history_redraws_one_picture_in_a_notebook(history, monkeypatch):
    """In place of a notebook: ipykernel among the modules, and a display that is noted."""
    shown, updated = [], []

    class Handle:
        def update(self, picture):
            updated.append(picture)

    def display(picture, display_id=False):
        shown.append(picture)
        return Handle() if display_id else None

    monkeypatch.delenv("PYTEST_VERSION", raising=False)
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setattr("IPython.display.display", display)
    for _ in history.epochs(3):
        history.add((90.0, 0.3), (95.0, 0.1))
    assert len(shown) == 1 and len(updated) == 3, "one picture that is replaced, not four below each other"
    losses, accuracies = updated[-1].axes
    assert [line.get_label() for line in losses.lines] == ["training", "test"]
    assert list(losses.lines[0].get_ydata()) == [0.3] * 3
    assert list(accuracies.lines[1].get_ydata()) == [95.0] * 3
    assert not plt.get_fignums(), "an open figure would appear once more at the end of the cell"

    quiet = utils.History(history.model, history.optimizer, live=False)
    next(quiet.epochs(1))
    assert quiet._picture is None


def test_results_that_are_none_leave_no_trace(history):
    with pytest.raises(TypeError):
        history.add((70.0, 0.9), None)
    assert history.done == 0 and not any(history.curves.values())


def test_an_epoch_without_results_is_noticed(history):
    with pytest.raises(RuntimeError, match="once in each epoch"):
        for _ in history.epochs(2):
            pass


@pytest.mark.parametrize("where", ["in training", "before the results", "after the results"])
def test_an_interrupted_epoch_starts_over(where, capsys):
    """Curves and weights are those of a training that nobody interrupted; one cycle stays one cycle."""
    loader = uneven_loader()

    def training():
        torch.manual_seed(1)
        model = Linear()
        optimizer = sgd(model, 0.01)
        schedule = optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=3 * len(loader))
        return utils.History(model, optimizer, schedule)

    def go_on(history, interrupt=None):
        model, optimizer, schedule = history.model, history.optimizer, history.scheduler
        for epoch in history.epochs(3):
            if (epoch, interrupt) == (2, "in training"):
                utils.train(model, "cpu", list(loader)[:2], optimizer, F.nll_loss, schedule)
                break
            trained = utils.train(model, "cpu", loader, optimizer, F.nll_loss, schedule)
            if (epoch, interrupt) == (2, "before the results"):
                break
            history.add(trained, trained)
            if (epoch, interrupt) == (2, "after the results"):
                break

    whole, stopped = training(), training()
    go_on(whole)
    go_on(stopped, where)
    assert stopped.done == (2 if where == "after the results" else 1)
    go_on(stopped)
    assert stopped.curves == whole.curves
    assert all(torch.equal(a, b) for a, b in zip(stopped.model.parameters(), whole.model.parameters()))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory from /proc")
def test_two_hundred_epochs_need_no_more_memory_than_forty(digits, tmp_path):
    def megabytes():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    model = NetMini()
    few = utils.Digits(digits.data[:50], digits.targets[:50], utils.Augment())
    loader = DataLoader(few, 25, shuffle=True)
    history, occupied = utils.History(model, sgd(model, 0.05)), {}
    for epoch in kept(history, 200, tmp_path / "a.pt"):
        trained = utils.train(model, "cpu", loader, history.optimizer, F.nll_loss)
        history.add(trained, utils.test(model, "cpu", loader, F.nll_loss))
        if epoch % 20 == 0:
            history._draw()
        occupied[epoch] = megabytes()
    assert occupied[200] - occupied[40] < 20


# --- Wrong input -------------------------------------------------------------------------------

IMAGES, LABELS, ANSWERS = torch.zeros(4, 1, 28, 28), torch.arange(4), torch.zeros(4, 10)
DIGITS = utils.Digits(torch.zeros(4, 28, 28, dtype=torch.uint8), LABELS)


def train(batches, criterion=F.nll_loss, model=None):
    model = model or Linear()
    return utils.train(model, "cpu", batches, sgd(model, 0.1), criterion)


def run(batches, criterion=F.nll_loss, model=None):
    return utils.test(model or Linear(), "cpu", batches, criterion)


class Twice(Linear):
    """Returns two tensors, as networks with a second output do."""

    def forward(self, x):
        return super().forward(x), x


def one_pixel(value):
    images = IMAGES.clone()
    images[2, 0, 5, 5] = value
    return images


class BreaksOff(list):
    """A loader whose disk fails after the first batch."""

    def __iter__(self):
        yield IMAGES, LABELS
        raise RuntimeError("the disk is gone")


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: GetCorrectPredCount(ANSWERS, LABELS[:1]),
            "predictions need 4 int labels, got torch.int64 [1]",
        ),
        (
            lambda: GetCorrectPredCount(ANSWERS, LABELS[:, None]),
            "predictions need 4 int labels, got torch.int64 [4, 1]",
        ),
        (lambda: GetCorrectPredCount(ANSWERS[0], LABELS), "one tensor of shape [N, classes], got [10]"),
        (
            lambda: GetCorrectPredCount(ANSWERS, LABELS.float()),
            "predictions need 4 int labels, got torch.float32",
        ),
        (lambda: GetCorrectPredCount(ANSWERS, LABELS > 0), "predictions need 4 int labels, got torch.bool"),
        (lambda: GetCorrectPredCount(ANSWERS, LABELS + 8), "labels must be from 0 to 9, got 8 to 11"),
        (lambda: GetCorrectPredCount(ANSWERS[:, :3], LABELS), "labels must be from 0 to 2, got 0 to 3"),
        (lambda: train([(IMAGES, LABELS[:3])]), "predictions need 4 int labels, got torch.int64 [3]"),
        (
            lambda: train([(IMAGES, F.one_hot(LABELS, 10))]),
            "predictions need 4 int labels, got torch.int64 [4, 10]",
        ),
        (lambda: train([(IMAGES, LABELS - 1)]), "labels must be from 0 to 9, got -1 to 2"),
        (lambda: run([(IMAGES, LABELS - 100)]), "labels must be from 0 to 9, got -100 to -97"),
        (lambda: run([(IMAGES, LABELS + 7)]), "labels must be from 0 to 9, got 7 to 10"),
        (lambda: train([(one_pixel(math.nan), LABELS)]), "pixels that are nan or infinite"),
        (lambda: train([(one_pixel(-math.inf), LABELS)]), "pixels that are nan or infinite"),
        (lambda: run([(one_pixel(math.inf), LABELS)]), "pixels that are nan or infinite"),
        (lambda: train([(IMAGES, LABELS)], nn.NLLLoss(reduction="none")), "the loss has the shape [4]"),
        (lambda: run([(IMAGES, LABELS)], nn.NLLLoss(reduction="none")), 'reduction="mean"'),
        (lambda: train([]), "the loader is empty"),
        (lambda: run([]), "the loader is empty"),
        (lambda: utils.predict(Linear(), "cpu", []), "the loader is empty"),
        (lambda: train(BreaksOff([1, 2])), "the disk is gone"),
        (lambda: utils.predict(Linear(), "cpu", [(one_pixel(math.nan), LABELS)]), "nan or infinite"),
        (lambda: utils.confusion_matrix(Linear(), "cpu", [(IMAGES, LABELS + 7)]), "got 7 to 10"),
        (lambda: train(DIGITS), "this Digits is not a loader of batches (images, labels)"),
        (lambda: run((DIGITS, DataLoader(DIGITS, 2))), "this tuple is not a loader"),
        (lambda: run(DataLoader(TensorDataset(IMAGES), 2)), "this DataLoader is not a loader of batches"),
        (lambda: run([{"image": IMAGES, "label": LABELS}]), "this list is not a loader of batches"),
        (lambda: utils.predict(Linear(), "cpu", TensorDataset(IMAGES, LABELS)), "this TensorDataset is not"),
        (lambda: train([(IMAGES, LABELS)], nn.NLLLoss), "NLLLoss is only a class: write NLLLoss() to make"),
        (lambda: run([(IMAGES, LABELS)], nn.NLLLoss), "NLLLoss is only a class"),
        (lambda: run([(IMAGES, LABELS)], model=Linear), "Linear is only a class: write Linear() to make one"),
        (lambda: utils.predict(Linear, "cpu", [(IMAGES, LABELS)]), "Linear is only a class"),
        (lambda: train([(IMAGES, LABELS)], model=Twice()), "one tensor of shape [N, classes], got tuple"),
        (lambda: run([(IMAGES, LABELS)], model=Twice()), "one tensor of shape [N, classes], got tuple"),
        (lambda: utils.predict(Twice(), "cpu", [(IMAGES, LABELS)]), "got tuple"),
    ],
)
def test_wrong_input_gets_one_sentence(call, sentence):
    with pytest.raises((ValueError, TypeError, RuntimeError)) as error:
        call()
    assert sentence in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("criterion", [F.nll_loss, nn.NLLLoss()])
@pytest.mark.parametrize("measure", [train, run])
def test_scores_are_not_taken_for_logarithms(measure, criterion):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="nll_loss needs log-probabilities: end with log_softmax"):
        measure([(IMAGES, LABELS)], criterion, model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    measure([(IMAGES, LABELS)], nn.CrossEntropyLoss(), model)  # which takes scores


def test_an_optimizer_of_another_network_is_refused():
    """As when the cell with the model is run again, and that with the optimizer is not."""
    model, old = Linear(), sgd(Linear())
    with pytest.raises(ValueError, match="belongs to another network: make a new one for this model"):
        utils.train(model, "cpu", [(IMAGES, LABELS)], old, F.nll_loss)
    utils.train(model, "cpu", [(IMAGES, LABELS)], sgd(list(model.children())[-1]), F.nll_loss)  # a part of it


def test_an_optimizer_does_not_know_a_layer_that_was_replaced():
    model = NetMini()
    optimizer = sgd(model)
    model.classes = nn.Linear(12, 10)
    with pytest.raises(ValueError, match="make a new one for this model"):
        utils.train(model, "cpu", [(IMAGES, LABELS)], optimizer, F.nll_loss)
    model.classes.requires_grad_(False)
    utils.train(model, "cpu", [(IMAGES, LABELS)], optimizer, F.nll_loss)  # what is frozen needs no optimizer
    both = optim.SGD([*NetMini().parameters(), *model.parameters()], lr=0.1)
    utils.train(model, "cpu", [(IMAGES, LABELS)], both, F.nll_loss)  # nor does it harm to know more


def test_the_loss_of_a_16_bit_network_is_computed_in_32():
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.LogSoftmax(dim=1)).bfloat16()
    images = IMAGES.bfloat16()
    with torch.no_grad():
        expected = F.nll_loss(model(images).float(), LABELS).item()
    assert run([(images, LABELS)], model=model)[1] == pytest.approx(expected, rel=1e-6)


def test_labels_of_32_bits():
    model = Linear()
    assert run([(IMAGES, LABELS.int())], model=model) == run([(IMAGES, LABELS)], model=model)
    train([(IMAGES, LABELS.int())], model=model)


def test_a_loss_that_is_not_a_number_stops_before_it_does_harm():
    model, loader = Linear(), uneven_loader()
    losses = iter([1.0, float("nan")])

    def criterion(prediction, target):
        return F.nll_loss(prediction, target) * next(losses)

    with pytest.raises(FloatingPointError, match="the loss became nan at batch 1: use a smaller"):
        utils.train(model, "cpu", loader, sgd(model), criterion)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize("harm", [one_pixel(math.nan), one_pixel(math.inf)])
def test_bad_batches_do_no_harm(harm):
    """The good batch before is learned; the bad one changes nothing, and the model keeps its layout."""
    model, good = NetMini(), (torch.randn(4, 1, 28, 28), LABELS)
    twin = copy.deepcopy(model)
    with pytest.raises(ValueError, match="nan or infinite"):
        train([good, (harm, LABELS)], model=model)
    train([good], model=twin)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values()))
    assert all(parameter.is_contiguous() for parameter in model.parameters())


def test_a_bar_is_closed_even_if_the_epoch_fails(capsys):
    with pytest.raises(RuntimeError):
        train(BreaksOff([1, 2]))
    with pytest.raises(ValueError, match="another network"):
        utils.train(Linear(), "cpu", [(IMAGES, LABELS)], sgd(Linear()), F.nll_loss)
    assert not utils.Tally._instances, "an open bar would push the next one down a line"


# --- Properties that hold for any input ----------------------------------------------------------

quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)


@quick
@given(st.integers(1, 40), st.integers(2, 12), seeds)
def test_right_answers_are_counted(size, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    answers = torch.randn(size, classes, generator=generator)
    labels = torch.randint(0, classes, (size,), generator=generator)
    by_hand = sum(max(range(classes), key=lambda k: row[k]) == label for row, label in zip(answers, labels))
    assert GetCorrectPredCount(answers, labels) == by_hand


@quick
@given(st.integers(1, 30), st.integers(1, 12), seeds)
def test_averages_are_over_digits_however_they_are_batched(size, batch_size, seed):
    generator = torch.Generator().manual_seed(seed)
    digits = utils.Digits(
        torch.randint(0, 256, (size, 28, 28), dtype=torch.uint8, generator=generator),
        torch.randint(0, 10, (size,), generator=generator),
    )
    model = Linear()
    whole = utils.test(model, "cpu", DataLoader(digits, size), F.nll_loss, quiet=True)
    parts = utils.test(model, "cpu", DataLoader(digits, batch_size), F.nll_loss, quiet=True)
    assert parts == pytest.approx(whole, rel=1e-4)
    matrix = utils.confusion_matrix(model, "cpu", DataLoader(digits, batch_size))
    assert matrix.sum() == size and 100 * matrix.trace() / size == pytest.approx(whole[0])


# --- Course material written against the original assignments -----------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its imshow gets tensors
def test_original_course_material_runs_unchanged(monkeypatch, tmp_path, figures, capsys):
    """The cells of an original assignment, on torchvision's own data set and loaders."""
    data = datasets_fake()
    names = {}
    exec("from utils import *\nfrom model import *", names)
    names.update(train_data=data, test_data=data)
    exec(
        """
kwargs = {'batch_size': 32, 'shuffle': True, 'num_workers': 0, 'pin_memory': False}
train_loader = torch.utils.data.DataLoader(train_data, **kwargs)
test_loader = torch.utils.data.DataLoader(test_data, **kwargs)

batch_data, batch_label = next(iter(train_loader))
fig = plt.figure()
for i in range(12):
    plt.subplot(3, 4, i + 1)
    plt.imshow(batch_data[i].squeeze(0), cmap='gray')
    plt.title(batch_label[i].item())
plt.close(fig)

train_losses, test_losses, train_acc, test_acc = [], [], [], []
device = torch.device('cpu')
model = Net().to(device)
optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=15, gamma=0.1)
criterion = nn.CrossEntropyLoss()
for epoch in range(1, 3):
    train_acc_val, train_loss = train(model, device, train_loader, optimizer, criterion)
    test_acc_val, test_loss = test(model, device, test_loader, F.nll_loss)
    train_acc.append(train_acc_val)
    train_losses.append(train_loss)
    test_acc.append(test_acc_val)
    test_losses.append(test_loss)
    scheduler.step()
plot_loss(train_losses, train_acc, test_losses, test_acc)
get_summary(Net)
data_visualization(train_loader)
""",
        names,
    )
    printed = capsys.readouterr().out
    assert printed.count("Test set: Average loss: ") == 2 and "Total params: 593,200" in printed
    assert len(figures) == 2


def datasets_fake():
    return datasets.FakeData(64, (1, 28, 28), 10, transforms.Compose([transforms.ToTensor(), first_channel]))


def first_channel(image):
    return image[:1]


def test_get_summary_takes_a_model_too(capsys):
    model = NetMini().train()
    before = copy.deepcopy(model.state_dict())
    utils.get_summary(model)
    assert "5,797" in capsys.readouterr().out and model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_get_summary_leaves_the_random_state(capsys):
    before = torch.get_rng_state()
    utils.get_summary(lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
    assert torch.equal(torch.get_rng_state(), before)
    assert "7,850" in capsys.readouterr().out


@pytest.mark.slow
def test_tqdm_can_be_switched_off_from_outside(tmp_path):
    """tqdm reads TQDM_DISABLE when it is imported; an explicit argument would overrule it."""
    code = """if True:
        import sys; sys.stderr = sys.stdout
        import torch, utils
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        batches = [(torch.zeros(4, 1, 28, 28), torch.arange(4))]
        utils.train(model, "cpu", batches, optimizer, utils.F.cross_entropy)
        """
    assert run_python("-c", code, TQDM_DISABLE="1") == ""
    assert "Batch_id=0" in run_python("-c", code, TQDM_DISABLE="")


@pytest.mark.slow
def test_utils_works_alone(tmp_path):
    shutil.copy(HERE / "utils.py", tmp_path)
    code = "from utils import *; print(device, plt, nn, optim, F, get_device(), train, test, plot_loss)"
    assert "function plot_loss" in run_python("-c", code, cwd=tmp_path)


def test_the_seconds_are_those_of_the_epochs(monkeypatch, capsys):
    clock = iter([0.0, 10.0, 13.0, 100.0, 104.5])
    monkeypatch.setattr(utils.time, "perf_counter", lambda: next(clock))
    history = utils.History(Linear(), sgd(Linear()), live=False)
    for _ in history.epochs(2):
        history.add((50.0, 1.0), (60.0, 0.9))
    assert history.seconds == 7.5 and ", 3 s\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("is_faster", "wanted", "enabled"), [(True, (), True), (True, (False,), False), (False, (), False)]
)
def test_half_precision_is_the_default_where_it_is_faster(monkeypatch, is_faster, wanted, enabled):
    capabilities = {"avx512_bf16": is_faster}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    with utils.bfloat16("cpu", *wanted):
        assert torch.is_autocast_enabled("cpu") == enabled


def test_the_seconds_of_a_loop_without_epochs(monkeypatch, capsys):
    """`for epoch in range(n)` does not start the clock anew: each epoch begins where the last one ended."""
    clock = iter([0.0, 2.0, 5.0])
    monkeypatch.setattr(utils.time, "perf_counter", lambda: next(clock))
    history = utils.History(Linear(), sgd(Linear()), live=False)
    for _ in range(2):
        history.add((50.0, 1.0), (60.0, 0.9))
    said = capsys.readouterr().out
    assert history.seconds == 5 and ", 2 s\n" in said and ", 3 s\n" in said


def test_bright_pixels_of_16_bits_are_finite(digits):
    """Their sum is not, with 16 bits."""
    images = torch.full((4, 1, 28, 28), 100.0, dtype=torch.float16)
    loader = DataLoader(TensorDataset(images, torch.arange(4)), 4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).half()
    assert utils.predict(model, "cpu", loader)[0].dtype == torch.float16


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_of_any_whole_type(kind):
    """26 letters: 26 times a label is more than 8 bits hold."""
    labels = torch.arange(260) % 26
    loader = DataLoader(TensorDataset(torch.rand(260, 1, 28, 28), labels.to(kind)), 52)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 26))
    utils.train(model, "cpu", loader, sgd(model), nn.CrossEntropyLoss())
    assert utils.confusion_matrix(model, "cpu", loader).sum(dim=1).tolist() == [10] * 26
