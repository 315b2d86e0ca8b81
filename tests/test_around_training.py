"""What a lesson shows around its training: the history and the learning-rate test."""

import copy
import math
import types

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

import utils

# --- The history of a training --------------------------------------------------------------------


@pytest.fixture
def history():
    model = nn.Linear(1, 1)
    return utils.History(model, torch.optim.SGD(model.parameters(), lr=0.05))


def test_history_prints_one_line_an_epoch(history, capsys):
    numbers = history.epochs(2)
    assert next(numbers) == 1
    history.add((90.5, 0.31), (95.25, 0.125))
    history.optimizer.param_groups[0]["lr"] = 0.005
    assert next(numbers) == 2
    history.add((99.0, 0.03), (98.0, 0.0625))
    assert list(numbers) == []
    first, second = capsys.readouterr().out.splitlines()
    start = "Epoch  1: training 90.50 % (loss 0.3100), test 95.25 % (loss 0.1250), learning rate 0.05, "
    assert first.startswith(start) and first.endswith(" s")
    assert "Epoch  2: " in second and "learning rate 0.005," in second
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
    """In the place of a notebook: an IPython whose shell has a kernel, and a display that is noted."""
    IPython = pytest.importorskip("IPython")
    shown, updated = [], []

    class Handle:
        def update(self, picture):
            updated.append(picture)

    def display(picture, display_id):
        shown.append(picture)
        return Handle()

    monkeypatch.delenv("PYTEST_VERSION", raising=False)
    monkeypatch.setattr(IPython, "get_ipython", lambda: types.SimpleNamespace(kernel=None))
    monkeypatch.setattr("IPython.display.display", display)
    for _ in history.epochs(3):
        history.add((90.0, 0.3), (95.0, 0.1))
    pictures = [picture.data for picture in [*shown, *updated]]
    assert len(shown) == 1 and len(updated) == 3, "one picture that is replaced, not four below each other"
    assert all(data.startswith(b"\x89PNG") for data in pictures) and len(set(pictures)) == 4
    assert not plt.get_fignums()

    quiet = utils.History(history.model, history.optimizer, live=False)
    next(quiet.epochs(1))
    assert quiet._picture is None


# --- The learning-rate test ------------------------------------------------------------------------


def test_learning_rate_test_follows_plain_descent(digits):
    """The same steps by hand, with momentum written out."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.LogSoftmax(dim=1))
    kept = copy.deepcopy(model.state_dict())
    loader = DataLoader(digits, batch_size=40)  # 3 batches an epoch, so the test needs several epochs
    rates, losses = utils.learning_rate_test(model, "cpu", loader, F.nll_loss, 1e-4, 1e-2, steps=7)
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())
    assert rates[0] == 1e-4 and math.isclose(rates[-1], 1e-2)
    assert all(math.isclose(b / a, 100 ** (1 / 6)) for a, b in zip(rates, rates[1:]))

    batches = [*loader, *loader, *loader][:7]
    weights = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
    speeds = [0, 0]
    for (images, labels), rate, loss in zip(batches, rates, losses):
        ours = F.cross_entropy(images.flatten(1) @ weights[0].T + weights[1], labels)
        assert math.isclose(ours.item(), loss, rel_tol=1e-4)
        slopes = torch.autograd.grad(ours, weights)
        speeds = [0.9 * speed + slope for speed, slope in zip(speeds, slopes)]
        with torch.no_grad():
            for weight, speed in zip(weights, speeds):
                weight -= rate * speed


def test_learning_rate_test_ends_where_the_loss_explodes(digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.LogSoftmax(dim=1))
    digits.targets = digits.targets[torch.randperm(100)]  # nothing to be learned: the loss can only grow
    loader = DataLoader(digits, batch_size=50)
    rates, losses = utils.learning_rate_test(model, "cpu", loader, F.nll_loss, 0.1, 1e4, steps=100)
    assert len(rates) == len(losses) < 100 and not losses[-1] < 2 * losses[0]


@pytest.mark.parametrize(("lowest", "highest", "steps"), [(0, 1, 10), (1, 0.1, 10), (0.1, 1, 1)])
def test_learning_rate_test_refuses_what_makes_no_sense(digits, lowest, highest, steps):
    with pytest.raises(ValueError, match="0 < lowest < highest and 2 steps or more"):
        utils.learning_rate_test(
            nn.Linear(1, 1), "cpu", DataLoader(digits), F.nll_loss, lowest, highest, steps
        )


def test_learning_rate_test_refuses_an_empty_loader():
    with pytest.raises(ValueError, match="the loader is empty"):
        utils.learning_rate_test(nn.Linear(1, 1), "cpu", [], F.nll_loss)
