"""What the tests share: quiet surroundings, a small set of digits, and pictures that are caught."""

import os

import matplotlib

matplotlib.use("agg")
os.environ.pop("TQDM_DISABLE", None)  # the progress bar is tested too

import matplotlib.pyplot as plt
import pytest
import torch

import utils


@pytest.fixture(autouse=True)
def quiet_surroundings(monkeypatch):
    """No setting from outside reaches a test, and each draws the same random numbers."""
    for name in ["SMOKE_TEST", "EPOCHS", "DEVICE"]:
        monkeypatch.delenv(name, raising=False)
    torch.manual_seed(0)


@pytest.fixture
def digits():
    """100 made-up digits, 10 of each: a bright bar whose place tells the digit."""
    labels = torch.arange(100) % 10
    images = torch.randint(0, 30, (100, 28, 28), dtype=torch.uint8)
    for image, label in zip(images, labels.tolist()):
        image[4 + 2 * label : 6 + 2 * label, 6:22] = 250
    return utils.Digits(images, labels)


@pytest.fixture
def figures(monkeypatch):
    """The figures that a function shows."""
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    return shown
