"""The learning-rate test and its picture."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import same
from torch import nn
from torch.utils.data import DataLoader

from course.learning_rate import learning_rate_test, plot_learning_rates


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.LogSoftmax(dim=1))


def test_learning_rate_test_follows_plain_descent(digits):
    """The same steps by hand, with momentum written out."""
    model, loader = linear(), DataLoader(digits, batch_size=40)  # an epoch has three batches
    before = copy.deepcopy(model.state_dict())
    rates, losses = learning_rate_test(model, "cpu", loader, F.nll_loss, 1e-4, 1e-2, steps=7)
    assert same(model.state_dict(), before), "it trains a copy"
    assert rates == pytest.approx([1e-4 * 100 ** (n / 6) for n in range(7)])

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


def flat(losses):
    """A loss that is what the list says, and has no slope."""
    losses = iter(losses)
    return lambda scores, _: 0 * scores.sum() + next(losses)


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
    """Not twice the smallest loss, nor the one before; and then the test ends."""
    loader = DataLoader(digits, 20)
    rates, losses = learning_rate_test(linear(), "cpu", loader, flat(given), steps=5)
    assert len(rates) == len(losses) == tried


@pytest.mark.parametrize(("lowest", "highest", "steps"), [(0, 1, 9), (1, 0.1, 9), (0.1, 1, 1)])
def test_a_test_that_makes_no_sense_is_refused(digits, lowest, highest, steps):
    with pytest.raises(ValueError, match="it needs 0 < lowest < highest and 2 steps or more"):
        learning_rate_test(linear(), "cpu", DataLoader(digits), F.nll_loss, lowest, highest, steps)


@pytest.mark.parametrize(
    ("model", "batch", "sentence"),
    [
        (nn.Linear, (torch.zeros(4, 1, 28, 28), torch.arange(4)), "Linear is a class"),
        (linear(), (torch.zeros(4, 1, 28, 28), torch.arange(4.0)), "labels must be integers"),
        (linear(), (torch.full((4, 1, 28, 28), math.nan), torch.arange(4)), "nan or infinite"),
        (linear(), (torch.zeros(4, 1, 28, 28), torch.arange(4) + 7), "from 0 to 9, got 7 to 10"),
        (linear()[:2], (torch.zeros(4, 1, 28, 28), torch.arange(4)), "needs log-probabilities"),
    ],
)
def test_it_refuses_what_training_refuses(model, batch, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        learning_rate_test(model, "cpu", [batch], F.nll_loss, steps=2)


def test_two_hundred_steps_from_a_thousandth_to_one_are_usual():
    batches = [(torch.zeros(1, 784), torch.zeros(1, dtype=torch.long))]
    rates, _ = learning_rate_test(linear(), "cpu", batches, flat([1] * 200))
    assert (rates[0], rates[-1], len(rates)) == (1e-3, pytest.approx(1.0), 200)


def test_the_picture_shows_each_batch_a_smooth_curve_and_the_choice(figures):
    rates, losses = [0.001 * 1.05**n for n in range(60)], [2.3 + math.sin(n) for n in range(60)]
    plot_learning_rates(rates, losses, chosen=0.01)
    (ax,) = figures[0].axes
    batches, smooth, choice = ax.lines
    assert list(batches.get_xdata()) == list(smooth.get_xdata()) == rates
    assert list(batches.get_ydata()) == losses and set(choice.get_xdata()) == {0.01}
    assert smooth.get_ydata()[30] == pytest.approx(sum(losses[26:35]) / 9)
    assert smooth.get_ydata()[0] == pytest.approx(sum(losses[:5]) / 5)
    assert ax.get_xscale() == "log" and ax.get_ylim()[0] == 0
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["each batch", "mean of 9 batches", "chosen: 0.01"]
