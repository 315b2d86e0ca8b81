"""How large can the steps be? A test that raises the learning rate from batch to batch."""

import copy
import itertools
import statistics

import matplotlib.pyplot as plt
from torch import optim
from tqdm import tqdm

from utils import (
    check_batch,
    check_labels,
    check_loss,
    check_prediction,
    check_setup,
    reset_modes,
    show_figure,
)

__all__ = ["learning_rate_test", "plot_learning_rates"]


def learning_rate_test(model, device, train_loader, criterion, lowest=1e-3, highest=1.0, steps=200):
    """Raise the learning rate from batch to batch; return two lists, the rates and the losses.

    It trains a copy, so the model stays as it is, and ends early if the loss explodes.
    """
    if not 0 < lowest < highest or steps < 2:
        raise ValueError(
            f"a test from {lowest} to {highest} in {steps} steps is impossible: "
            "it needs 0 < lowest < highest and 2 steps or more"
        )
    check_setup(model, train_loader, criterion)
    reset_modes()
    trial = copy.deepcopy(model).train()
    optimizer = optim.SGD(trial.parameters(), lr=lowest, momentum=0.9)
    rates, losses = [], []
    for data, target in tqdm(repeated(train_loader, steps), total=steps):
        check_batch(data, target)
        data, target = data.to(device), target.to(device).long()
        rate = lowest * (highest / lowest) ** (len(rates) / (steps - 1))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        prediction = trial(data)
        check_prediction(prediction, criterion)
        check_labels(target, prediction)
        loss = criterion(prediction, target)
        rates.append(rate)
        losses.append(loss.item())
        has_exploded = not losses[-1] < 2 * losses[0]  # also true for nan
        if len(losses) > 1 and has_exploded:
            break
        check_loss(loss, len(losses))
        loss.backward()
        optimizer.step()
    return rates, losses


def repeated(loader, steps):
    """Exactly `steps` batches of a loader, which starts again whenever it runs out."""
    epochs = itertools.repeat(loader, steps)
    return itertools.islice(itertools.chain.from_iterable(epochs), steps)


def plot_learning_rates(rates, losses, chosen=None, save=None):
    """The result of `learning_rate_test` on a logarithmic scale; `chosen` marks a rate."""
    means = [statistics.mean(losses[max(0, n - 4) : n + 5]) for n in range(len(losses))]
    figure, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
    ax.plot(rates, losses, ".", color="tab:blue", alpha=0.4, label="each batch")
    ax.plot(rates, means, color="tab:blue", label="mean of 9 batches")
    if chosen:
        ax.axvline(chosen, color="tab:red", linestyle="--", label=f"chosen: {chosen}")
    ax.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(0, 1.5 * losses[0]))
    ax.set_title("The loss while the learning rate grows")
    ax.legend()
    ax.grid(alpha=0.3)
    show_figure(figure, save)
