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
from helpers import HERE, PATIENCE, torchrun

import train
import utils
from course.recipes import PLAIN, RECIPES, PlainRecipe, build


def test_each_seed_and_each_network_has_a_file_of_its_own():
    files = {
        train.default_checkpoint(net, seed)
        for net in ["NetGAP", "NetGAP-short"]
        for seed in range(3)
    }
    assert len(files) == 6 and HERE / "runs" / "NetGAP.pt" in files


def stepped(optimizer, scheduler, steps):
    """The learning rate and the momentum of each step."""
    used = []
    for _ in range(steps):
        (group,) = optimizer.param_groups
        used.append((group["lr"], group["momentum"]))
        optimizer.step()
        scheduler.step()
    return zip(*used)


@pytest.mark.parametrize(
    "name", [name for name in RECIPES if not isinstance(RECIPES[name], PlainRecipe)]
)
def test_recipes_reach_what_trains(name):
    dropout = 0.25 if name.startswith(("NetGAP", "NetFC")) else 0
    recipe = replace(
        RECIPES[name], dropout=dropout, weight_decay=0.125, peak=0.5, label_smoothing=0.0625
    )
    model = build(name, recipe)
    assert type(model).__name__ == name.split("-")[0]
    drops = {layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)}
    assert drops == {dropout} - {0}
    optimizer, criterion = recipe.optimizer(model), recipe.criterion()
    scheduler = recipe.scheduler(optimizer, steps=10)
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 0.125 and group["nesterov"] and len(group["params"]) > 5
    rates, momenta = stepped(optimizer, scheduler, 10)
    assert max(rates) == pytest.approx(0.5) and rates[0] < 0.1 and rates[-1] < 0.001
    assert (min(momenta), max(momenta)) == pytest.approx((0.85, 0.95)), "low while the rate is high"
    assert criterion.label_smoothing == 0.0625
    varied = recipe.augmentation()
    assert (varied.degrees, varied.shift, varied.zoom) == (
        recipe.degrees,
        recipe.shift,
        recipe.zoom,
    )
    assert varied.crop == 0 and varied.smooth


def test_the_plain_recipe_is_lesson_5s():
    """Plain momentum, a tenth of the rate after three quarters, the lesson's own variations."""
    recipe = replace(PLAIN, peak=0.5)
    optimizer = recipe.optimizer(build("Net-plain", recipe))
    (group,) = optimizer.param_groups
    assert not group["nesterov"] and group["weight_decay"] == 0 and len(group["params"]) == 12
    rates, momenta = stepped(optimizer, recipe.scheduler(optimizer, 20), 20)
    assert rates == pytest.approx([0.5] * 15 + [0.05] * 5) and set(momenta) == {0.9}
    assert vars(recipe.augmentation()) == vars(utils.Augment())


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
    assert "NetMini: epochs 1, peak 0.2, " in first and "Test set:" not in first, (
        "one line for each epoch"
    )
    assert "holds 1 of 1 epochs: nothing is left to do" in command("--epochs", "1")
    with pytest.raises(SystemExit, match=r"total_steps 4 instead of 8: delete it to start over"):
        command("--epochs", "2")


def test_the_recipe_reaches_each_epoch_and_the_last_one_counts(command, monkeypatch):
    """The best epoch, the second, is not the result; the schedule ends with the last step."""
    trained, tested, accuracies = [], [], iter([50.0, 90.0, 70.0])
    changes = {"label_smoothing": 0.25, "half_precision": False, "batch_size": 64, "degrees": 3}
    recipe = replace(RECIPES["NetMini"], **changes)
    monkeypatch.setitem(RECIPES, "NetMini", recipe)

    def fake_train(model, device, loader, optimizer, criterion, scheduler, half_precision):
        for _ in loader.batch_sampler:
            optimizer.step()
            scheduler.step()
        rate = optimizer.param_groups[0]["lr"]
        settings = criterion.label_smoothing, half_precision, scheduler.last_epoch
        trained.append((loader, rate, settings))
        return 99.0, 0.5

    def fake_test(model, device, loader, criterion, quiet):
        tested.append((loader, type(criterion), quiet))
        return next(accuracies), 0.5

    monkeypatch.setattr(utils, "train", fake_train)
    monkeypatch.setattr(utils, "test", fake_test)
    printed = command("--epochs", "3")
    assert re.search(r"^NetMini +5,797 +3 +smoke +70.00 %", printed, re.MULTILINE)
    loader, rate, settings = trained[-1]
    assert settings == (0.25, False, 3 * 512 / 64) and rate < recipe.peak / 100
    assert loader.batch_size == 64
    assert vars(loader.dataset.transform) == vars(recipe.augmentation())
    other, *how = tested[-1]
    assert type(other.dataset.transform) is utils.Normalize and how == [torch.nn.NLLLoss, True]


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
    monkeypatch.setitem(train.RECIPES, "NetMini", replace(train.RECIPES["NetMini"], degrees=40))
    with pytest.raises(
        SystemExit, match="the settings seed 1, .* degrees 8, .* instead of .* degrees 40, "
    ):
        command("--epochs", "1", "--seed", "1")


@pytest.mark.parametrize("name", train.RECIPES)
def test_every_recipe_can_be_smoke_tested(name):
    """512 digits may be a single batch."""
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), 0.1)
    scheduler = train.RECIPES[name].scheduler(optimizer, 1)
    optimizer.step()
    scheduler.step()


@pytest.mark.parametrize(
    ("arguments", "epochs", "seed", "file"),
    [([], 18, 0, "NetFC.pt"), (["--seed", "3", "--epochs", "7"], 7, 3, "NetFC-seed3.pt")],
)
def test_arguments_reach_the_training(monkeypatch, capsys, arguments, epochs, seed, file):
    done = []
    row = {
        "network": "NetFC",
        "parameters": 1,
        "epochs": 7,
        "data": "MNIST",
        "accuracy": 9,
        "seconds": 1,
    }
    monkeypatch.setattr(train.processes, "join", lambda: done.append("join"))
    monkeypatch.setattr(train, "train_network", lambda *asked: done.append(asked) or row)
    monkeypatch.setattr(train.processes, "leave", lambda: done.append("leave"))
    monkeypatch.setattr(sys, "argv", ["train.py", "--net", "NetFC", *arguments])
    train.main()
    expected = "NetFC", replace(RECIPES["NetFC"], epochs=epochs), seed, HERE / "runs" / file
    assert done == ["join", expected, "leave"]
    assert f"The trained weights are in {HERE / 'runs' / file}" in capsys.readouterr().out


def test_what_goes_wrong_is_said_in_one_line(command, monkeypatch):
    def fail(*_):
        raise OSError("the checkpoint could not be written")

    monkeypatch.setattr(train, "train_network", fail)
    with pytest.raises(SystemExit, match="^the checkpoint could not be written$"):
        command()
    monkeypatch.setattr(
        ArgumentParser, "parse_args", lambda self: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(SystemExit, match="Stopped; the same command goes on"):
        runpy.run_path(str(HERE / "train.py"), run_name="__main__")


def test_wrong_arguments(command, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit):
        train.main()
    assert "the following arguments are required: --net" in capsys.readouterr().err
    for arguments, sentence in [
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--seed", "-1"], "--seed must be a number from 0 to"),
        (["--seed", str(10**30)], "--seed must be a number from 0 to"),
        (["--seed", "1e30"], "invalid int value: '1e30'"),
        (["--checkpoint", ""], "--checkpoint must name a file"),
        (["--checkpoint", str(HERE)], f"and {HERE} is a folder"),
    ]:
        with pytest.raises(SystemExit):
            command(*arguments)
        assert sentence in capsys.readouterr().err
    monkeypatch.setenv("EPOCHS", "none")
    with pytest.raises(SystemExit, match="EPOCHS=none is not a number of epochs"):
        command()


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
