"""train.py: what a recipe trains, where it is kept, and what happens when a worker dies."""

import os
import re
import runpy
import signal
import sys
import time
from argparse import ArgumentParser
from dataclasses import asdict, replace

import pytest
import torch
from helpers import PATIENCE, ROOT, torchrun

import train
import utils
from course.recipes import RECIPES, build

# --- Recipes: tests/test_loops.py compares them with the lessons' own trainings ------------------


@pytest.mark.parametrize("name", ["NetGAP-short", "NetFC", "NetMini"])
def test_a_recipe_builds_its_network_with_its_dropout(name):
    dropout = 0 if name == "NetMini" else 0.25
    model = build(name, replace(RECIPES[name], dropout=dropout))
    assert type(model).__name__ == name.split("-")[0]
    drops = {layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)}
    assert drops == {dropout} - {0}
    with pytest.raises(ValueError, match="NetMini has no dropout"):
        build("NetMini", replace(RECIPES["NetMini"], dropout=0.25))


@pytest.mark.parametrize("name", RECIPES)
def test_a_cycle_reaches_its_peak_and_ends_near_zero(name):
    """Also if there is a single step: 512 digits of a smoke test may be one batch."""
    recipe = replace(RECIPES[name], peak=0.5, weight_decay=0.125)
    for steps in [1, 20]:
        optimizer = recipe.optimizer(torch.nn.Linear(1, 1))
        scheduler = recipe.scheduler(optimizer, steps)
        (group,) = optimizer.param_groups
        rates = []
        for _ in range(steps):
            rates.append(group["lr"])
            optimizer.step()
            scheduler.step()
    assert group["weight_decay"] == 0.125
    assert max(rates) == pytest.approx(0.5)
    assert rates[-1] <= 0.05


def test_a_recipe_is_described_with_all_its_numbers():
    described = RECIPES["NetMini"].describe()
    assert described.startswith("epochs 19, peak 0.2, batch size 128, degrees 8, ")
    assert len(described.split(", ")) == len(asdict(RECIPES["NetMini"]))


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
    assert re.search(r"^NetMini +5,797 +1 +smoke", first, re.MULTILINE)
    assert "Epoch  1: training" in first
    assert "NetMini: epochs 1, peak 0.2, " in first
    assert "Test set:" not in first, "one line for each epoch"
    assert "holds 1 of 1 epochs: nothing is left to do" in command("--epochs", "1")
    with pytest.raises(SystemExit, match=r"total_steps 4 instead of 8: delete it to start over"):
        command("--epochs", "2")


def test_the_recipe_reaches_each_epoch_and_the_last_one_counts(command, monkeypatch):
    """The best epoch, the second, is not the result; the schedule ends with the last step."""
    accuracies = iter([50.0, 90.0, 70.0])
    changes = {"label_smoothing": 0.25, "half_precision": False, "batch_size": 64, "degrees": 3}
    recipe = replace(RECIPES["NetMini"], **changes)
    monkeypatch.setitem(RECIPES, "NetMini", recipe)
    steps = []

    def fake_train(model, device, loader, optimizer, criterion, scheduler, half_precision):
        assert (criterion.label_smoothing, half_precision, loader.batch_size) == (0.25, False, 64)
        assert vars(loader.dataset.transform) == vars(recipe.augmentation())
        for _ in loader.batch_sampler:
            optimizer.step()
            scheduler.step()
            steps.append(optimizer.param_groups[0]["lr"])
        return 99.0, 0.5

    def fake_test(model, device, loader, criterion, quiet):
        assert type(loader.dataset.transform) is utils.Normalize
        assert (type(criterion), quiet) == (torch.nn.NLLLoss, True)
        return next(accuracies), 0.5

    monkeypatch.setattr(utils, "train", fake_train)
    monkeypatch.setattr(utils, "test", fake_test)
    printed = command("--epochs", "3")
    assert re.search(r"^NetMini +5,797 +3 +smoke +70.00 %", printed, re.MULTILINE)
    assert len(steps) == 3 * 512 / 64
    assert steps[-1] < recipe.peak / 100


def test_seeds_make_a_difference_and_repeat_themselves(command, tmp_path):
    losses = []
    for seed in ["1", "2", "1"]:
        command("--seed", seed)
        losses.append(torch.load(tmp_path / "a.pt", weights_only=True)["curves"]["test_losses"])
        (tmp_path / "a.pt").unlink()
    assert losses[0] == losses[2] != losses[1]


def test_a_checkpoint_belongs_to_one_seed_and_one_recipe(command, monkeypatch):
    command("--epochs", "1", "--seed", "1")
    with pytest.raises(SystemExit, match="run with the settings seed 1, .* instead of seed 2, "):
        command("--epochs", "1", "--seed", "2")
    monkeypatch.setitem(RECIPES, "NetMini", replace(RECIPES["NetMini"], degrees=40))
    with pytest.raises(SystemExit, match="seed 1, .* degrees 8, .* instead of .* degrees 40, "):
        command("--epochs", "1", "--seed", "1")


@pytest.mark.parametrize(
    ("arguments", "epochs", "seed", "file"),
    [
        ([], 18, 0, "NetFC.pt"),
        (["--seed", "3", "--epochs", "7"], 7, 3, "NetFC-seed3.pt"),
    ],
)
def test_arguments_reach_the_training(monkeypatch, capsys, arguments, epochs, seed, file):
    done = []
    row = utils.result(torch.nn.Linear(1, 1), [], 7, 9.0, 1.0)
    monkeypatch.setattr(train.processes, "join", lambda: done.append("join"))
    monkeypatch.setattr(train, "train_network", lambda *asked: done.append(asked) or row)
    monkeypatch.setattr(train.processes, "leave", lambda: done.append("leave"))
    monkeypatch.setattr(sys, "argv", ["train.py", "--net", "NetFC", *arguments])
    train.main()
    path = ROOT / "runs" / file
    recipe = replace(RECIPES["NetFC"], epochs=epochs)
    assert done == ["join", ("NetFC", recipe, seed, path), "leave"]
    assert f"The trained weights are in {path}" in capsys.readouterr().out


def test_what_goes_wrong_is_said_in_one_line(command, monkeypatch):
    monkeypatch.setenv("EPOCHS", "none")
    with pytest.raises(SystemExit, match="^EPOCHS=none is not a number of epochs: [^\n]*$"):
        command()
    monkeypatch.setattr(
        ArgumentParser, "parse_args", lambda self: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(SystemExit, match="Stopped; the same command goes on"):
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--net", "Nett"], "argument --net: invalid choice: 'Nett'"),
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--seed", "-1"], "--seed must be a number from 0 to"),
        (["--seed", str(2**32)], "--seed must be a number from 0 to"),
        (["--checkpoint", str(ROOT)], f"--checkpoint must name a file, and {ROOT} is a folder"),
    ],
)
def test_wrong_arguments(command, capsys, arguments, sentence):
    with pytest.raises(SystemExit):
        command(*arguments)
    assert sentence in capsys.readouterr().err


def test_each_process_draws_its_own_variations(monkeypatch):
    """Nor are they those of another process with another seed."""
    drawn = []

    def stop(batch_size, transform):
        drawn.append(torch.initial_seed())
        raise KeyboardInterrupt

    monkeypatch.setattr(utils, "get_trainloader", stop)
    for rank in range(2):
        monkeypatch.setattr(train.processes, "rank", lambda rank=rank: rank)
        for seed in range(3):
            with pytest.raises(KeyboardInterrupt):
                train.train_network("NetMini", RECIPES["NetMini"], seed, "a.pt")
    assert len(set(drawn)) == 6


# --- Under torchrun -----------------------------------------------------------------------------


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
    output, errors = done.communicate(timeout=PATIENCE)
    assert done.returncode == 0, errors
    trained = [int(number) for number in re.findall(r"^Epoch +(\d+):", output, re.MULTILINE)]
    assert sorted(set(trained)) == list(range(1, epochs + 1)) and len(trained) <= epochs + 1
    (kept,) = re.findall(rf"holds (\d+) of {epochs} epochs: going on from there", output)
    assert 2 <= int(kept) < epochs
    assert re.search(rf"^NetMini +5,797 +{epochs} ", output, re.MULTILINE)
    bars = re.findall(r"^ +0%\|.*\| 0/4 \[", errors, re.MULTILINE)
    # One more for an epoch that was over but not saved, one for that which was interrupted; if the
    # other process showed its bars as well, there would be twice as many.
    assert epochs <= len(bars) <= epochs + 2
