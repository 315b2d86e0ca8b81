"""The training cells of the lessons do what their text says: run with a network and digits made up for it."""

import pytest
import torch
import torch.nn.functional as F
from helpers import Linear, code_cells, read
from torch import nn, optim
from torch.utils.data import DataLoader

import utils


def source_of(lesson, *phrases):
    """The one code cell that holds all of these."""
    (source,) = [c.source for c in code_cells(read(lesson)) if all(phrase in c.source for phrase in phrases)]
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
    assert torch.equal(torch.cat([trained_on.data, measured_on.data]), digits.data), "no digit is in both"
    assert all(call["loader"].dataset is measured_on for call in names["test"].calls)
    names["train_on_few"](utils.Augment(), 1)
    transforms = [type(call["loader"].dataset.transform).__name__ for call in names["train"].calls]
    assert transforms == ["Normalize"] * 3 + ["Augment"]


def test_one_cycle_of_lesson_6(names, capsys):
    exec(source_of("S6", "def fit("), names)
    model = Linear()
    history = names["fit"](model, names["train_loader"], names["test_loader"], 3, 0.25)
    (call, *_), (tested, *_) = names["train"].calls, names["test"].calls
    scheduler = next(other for other in call["others"] if isinstance(other, optim.lr_scheduler.OneCycleLR))
    group = scheduler.optimizer.param_groups[0]
    assert scheduler.total_steps == 3 * 2, "a step for each batch of each epoch"
    assert group["max_lr"] == 0.25 and group["nesterov"] and group["weight_decay"] == 1e-4
    assert call["loader"] is names["train_loader"] and tested["loader"] is names["test_loader"]
    assert history.model is model and history.curves["test_acc"] == [55, 65, 75]
