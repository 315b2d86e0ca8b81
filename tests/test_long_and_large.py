"""Trainings that take long and data that is large need no more than they should."""

import itertools
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import optim
from torch.utils.data import DataLoader

import utils
from model import NetMini


def memory():
    """The megabytes that this process occupies."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory from /proc")
def test_two_hundred_epochs_need_no_more_memory_than_forty(digits, tmp_path):
    model = NetMini()
    few = utils.Digits(digits.data[:50], digits.targets[:50], utils.Augment())
    loader = DataLoader(few, 25, shuffle=True)
    optimizer = optim.SGD(model.parameters(), lr=0.05)
    history = utils.History(model, optimizer)
    occupied = {}
    for epoch in history.epochs(200, tmp_path / "a.pt"):
        trained = utils.train(model, "cpu", loader, optimizer, F.nll_loss)
        history.add(trained, utils.test(model, "cpu", loader, F.nll_loss))
        if epoch % 20 == 0:
            history._draw()
        occupied[epoch] = memory()
    assert occupied[200] - occupied[40] < 20


def test_a_million_digits_are_as_fast_as_ten_thousand():
    """Speed is time for each digit; the two take turns, and the best of them counts."""

    def seconds_a_digit(number):
        images = torch.zeros(number, 28, 28, dtype=torch.uint8)
        digits = utils.Digits(images, torch.arange(number) % 10, utils.Augment())
        loader = DataLoader(digits, 512, shuffle=True)
        batches = iter(loader)
        next(batches)  # the order of all is drawn once an epoch
        while True:
            start = time.perf_counter()
            seen = sum(len(labels) for _, labels in itertools.islice(batches, 1))
            yield (time.perf_counter() - start) / seen

    few, many = zip(*itertools.islice(zip(seconds_a_digit(10_000), seconds_a_digit(1_000_000)), 12))
    assert min(many) < 2 * min(few)
