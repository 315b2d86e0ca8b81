"""The learning-rate test and its picture."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from course.learning_rate import learning_rate_test, plot_learning_rates


def test_learning_rate_test_follows_plain_descent(digits):
    """The same steps by hand, with momentum written out."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.LogSoftmax(dim=1))
    kept = copy.deepcopy(model.state_dict())
    loader = DataLoader(
        digits, batch_size=40
    )  # 3 batches an epoch, so the test needs several epochs
    rates, losses = learning_rate_test(model, "cpu", loader, F.nll_loss, 1e-4, 1e-2, steps=7)
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
    digits.targets = digits.targets[
        torch.randperm(100)
    ]  # nothing to be learned: the loss can only grow
    loader = DataLoader(digits, batch_size=50)
    rates, losses = learning_rate_test(model, "cpu", loader, F.nll_loss, 0.1, 1e4, steps=100)
    assert len(rates) == len(losses) < 100 and not losses[-1] < 2 * losses[0]


@pytest.mark.parametrize(
    ("given", "tried"),
    [
        ([1, 1.9, 0.5, 1.9, 1.9], 5),
        ([1, 1.9, 2, 1, 1], 3),
        ([1, 0.4, 0.9, 2.1, 1], 4),
        ([1, math.nan, 1], 2),
    ],
)
def test_a_loss_explodes_when_it_is_twice_the_first_one(digits, given, tried):
    """Notices another factor, and a comparison with the smallest loss or with the one before."""
    model, losses = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), iter(given)
    rates, seen = learning_rate_test(
        model,
        "cpu",
        DataLoader(digits, 20),
        lambda scores, _: 0 * scores.sum() + next(losses),
        steps=5,
    )
    assert len(rates) == len(seen) == tried


@pytest.mark.parametrize(("lowest", "highest", "steps"), [(0, 1, 10), (1, 0.1, 10), (0.1, 1, 1)])
def test_learning_rate_test_refuses_what_makes_no_sense(digits, lowest, highest, steps):
    with pytest.raises(ValueError, match="it needs 0 < lowest < highest and 2 steps or more"):
        learning_rate_test(
            nn.Linear(1, 1), "cpu", DataLoader(digits), F.nll_loss, lowest, highest, steps
        )


def test_two_steps_are_the_fewest_and_two_hundred_are_usual(digits):
    """The first rate is the lowest, the last one the highest, as in the lesson's picture."""

    def rates(**settings):
        return learning_rate_test(
            nn.Linear(784, 1),
            "cpu",
            [(torch.zeros(1, 784), torch.zeros(1, dtype=torch.long))],
            lambda scores, _: 0 * scores.sum() + 1,
            **settings,
        )[0]

    assert rates(lowest=0.01, highest=0.1, steps=2) == [0.01, pytest.approx(0.1)]
    usual = rates()
    assert (usual[0], usual[-1], len(usual)) == (1e-3, pytest.approx(1.0), 200)


def test_learning_rate_test_trains_a_network_that_was_tested_before(digits):
    """In training, this dropout leaves nothing but the biases."""
    model = nn.Sequential(nn.Flatten(), nn.Dropout(1.0), nn.Linear(784, 10)).eval()
    batch = digits.data[:3].float().unsqueeze(1), digits.targets[:3]
    _, losses = learning_rate_test(model, "cpu", [batch], F.cross_entropy, steps=2)
    assert losses[0] == pytest.approx(
        F.cross_entropy(model[2].bias.expand(3, 10), batch[1]).item(), rel=1e-5
    )
    assert not model.training


def test_learning_rate_test_refuses_wrong_labels(digits):
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), torch.zeros(4, 1, 28, 28)
    with pytest.raises(ValueError, match="labels must be from 0 to 9, got 7 to 10"):
        learning_rate_test(model, "cpu", [(images, torch.arange(4) + 7)], F.cross_entropy)


def test_learning_rate_test_refuses_what_training_refuses(digits):
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), torch.zeros(4, 1, 28, 28)
    labels = torch.arange(4)
    with pytest.raises(TypeError, match="CrossEntropyLoss is only a class"):
        learning_rate_test(model, "cpu", [(images, labels)], nn.CrossEntropyLoss)
    with pytest.raises(ValueError, match="pixels that are nan"):
        learning_rate_test(model, "cpu", [(images / 0, labels)], F.cross_entropy)
    with pytest.raises(FloatingPointError, match="the loss became nan"):
        learning_rate_test(model, "cpu", [(images, labels)], lambda *_: torch.tensor(float("nan")))
    assert (
        len(learning_rate_test(model, "cpu", [(images, labels.int())], F.cross_entropy, steps=3)[0])
        == 3
    )


def test_learning_rate_test_refuses_an_empty_loader():
    with pytest.raises(ValueError, match="the loader is empty"):
        learning_rate_test(nn.Linear(1, 1), "cpu", [], F.nll_loss)


def test_picture_of_a_learning_rate_test(figures):
    losses = [2.0, 1.9, 1.8, 1.0, 0.5, 0.6, 0.7, 0.8, 0.9, 4.0]
    rates = [10 ** (n / 3 - 3) for n in range(10)]
    plot_learning_rates(rates, losses, chosen=0.1)
    (ax,) = figures[0].axes
    dots, means, chosen = ax.lines
    assert (
        ax.get_xscale() == "log"
        and list(dots.get_xdata()) == rates
        and list(dots.get_ydata()) == losses
    )
    assert means.get_ydata()[4] == pytest.approx(sum(losses[:9]) / 9), "nine batches around each"
    assert means.get_ydata()[0] == pytest.approx(sum(losses[:5]) / 5), "fewer at the ends"
    assert list(chosen.get_xdata()) == [0.1, 0.1] and ax.get_ylim() == (0, 3)
