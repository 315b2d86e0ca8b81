"""Interrupted trainings continue exactly; damaged and foreign files are refused and left alone."""

import copy
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import HERE, files_in, same
from torch import nn, optim
from torch.utils.data import DataLoader

import utils
from course import checkpoints, files
from course.checkpoints import kept, load, seed_everything
from model import Net, NetGAP, NetMini

# A process that never used several threads may fork, so each training run starts without importing again.
KILLED = """
import json, os, random, signal, sys, time
import torch
torch.set_num_threads(1)
import utils
from course.checkpoints import kept, seed_everything
from model import NetMini

folder, kills, epochs = sys.argv[1], int(sys.argv[2]), 8
images = torch.randint(0, 256, (96, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
digits = utils.Digits(images, torch.arange(96) % 10, utils.Augment())


def whole_training(path):
    pid = os.fork()
    if pid:
        return pid
    sys.stdout = sys.stderr = open(os.devnull, "w")
    seed_everything(3)
    model = NetMini()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True)
    loader = utils.DataLoader(digits, 16, shuffle=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=epochs * len(loader))
    history = utils.History(model, optimizer, scheduler)
    for _ in kept(history, epochs, path):
        trained = utils.train(model, "cpu", loader, optimizer, utils.F.nll_loss, scheduler)
        history.add(trained, utils.test(model, "cpu", loader, utils.F.nll_loss))
    os._exit(0)


start = time.time()
assert os.waitpid(whole_training(folder + "/whole.pt"), 0)[1] == 0
duration = time.time() - start
random.seed()
done = []
while True:
    pid = whole_training(folder + "/killed.pt")
    if len(done) == kills:
        assert os.waitpid(pid, 0)[1] == 0
        break
    time.sleep(random.uniform(0, duration / 3))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    reached = 0
    if os.path.exists(folder + "/killed.pt"):
        reached = len(torch.load(folder + "/killed.pt", weights_only=True)["curves"]["test_acc"])
    done.append(reached)
print(json.dumps(done))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can fork")
def test_twenty_kills_change_nothing(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path), "20"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    reached = json.loads(done.stdout)
    assert len(reached) == 20 and reached == sorted(reached), "no kill may lose a whole epoch"
    whole, killed = (torch.load(tmp_path / name, weights_only=True) for name in ["whole.pt", "killed.pt"])
    whole.pop("seconds"), killed.pop("seconds")
    assert len(whole["curves"]["test_acc"]) == 8 and same(whole, killed)


# --- In one process --------------------------------------------------------------------------------


def training(digits, Network=NetMini, epochs=2):
    """A history, and a function that does its epochs."""
    seed_everything(0)
    model = Network()
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    history = utils.History(model, optimizer, scheduler)
    loader = DataLoader(digits, 25, shuffle=True)

    def run(path, total=epochs):
        for _ in kept(history, total, path) if path else history.epochs(total):
            trained = utils.train(model, "cpu", loader, optimizer, F.nll_loss)
            history.add(trained, utils.test(model, "cpu", loader, F.nll_loss, quiet=True))
            scheduler.step()
        return history

    return history, run


def test_going_on_equals_never_stopping(digits, tmp_path, capsys):
    _, run = training(digits)
    whole = run(tmp_path / "whole.pt", 4)
    _, run = training(digits)
    run(tmp_path / "a.pt", 2)
    _, run = training(digits)
    capsys.readouterr()
    again = run(tmp_path / "a.pt", 4)
    assert "a.pt holds 2 of 4 epochs: continuing from there." in capsys.readouterr().out
    assert again.curves == whole.curves and same(again.model.state_dict(), whole.model.state_dict())
    assert again.scheduler.get_last_lr() == whole.scheduler.get_last_lr()


def test_a_finished_training_is_not_done_again(digits, tmp_path, capsys):
    _, run = training(digits)
    seconds = run(tmp_path / "a.pt").seconds
    before = (tmp_path / "a.pt").read_bytes()
    history, run = training(digits)
    capsys.readouterr()
    run(tmp_path / "a.pt")
    assert "a.pt holds 2 of 2 epochs: nothing is left to do." in capsys.readouterr().out
    assert history.done == 2 and (tmp_path / "a.pt").read_bytes() == before
    assert history.seconds == seconds > 0


def test_a_place_that_cannot_be_written_is_found_out_before_the_first_epoch(digits, tmp_path):
    (tmp_path / "file").write_text("no folder")
    history, run = training(digits)
    with pytest.raises(OSError, match=r"a\.pt could not be written .*: choose another file$"):
        run(tmp_path / "file" / "a.pt")
    assert history.done == 0


def test_a_folder_is_no_checkpoint(digits, tmp_path):
    with pytest.raises(ValueError, match="is damaged, or not a weights file"):
        training(digits)[1](tmp_path)
    with pytest.raises(ValueError, match="is damaged, or not a weights file"):
        utils.load_weights(tmp_path, NetMini())


def test_two_runs_give_the_same_numbers(digits, tmp_path):
    results = []
    for _ in range(2):
        _, run = training(digits, Net)
        results.append(run(None))
    assert results[0].curves == results[1].curves
    assert same(results[0].model.state_dict(), results[1].model.state_dict())


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(28, "No space left on device"), r"No space left.*: free some space or choose another file"),
        (PermissionError(13, "Permission denied"), r"Permission denied\): choose another file"),
    ],
)
def test_a_failure_to_write_leaves_the_old_checkpoint(digits, tmp_path, monkeypatch, error, sentence):
    _, run = training(digits)
    history = run(tmp_path / "a.pt")
    before = (tmp_path / "a.pt").read_bytes()

    def half(state, file):
        file.write(b"half")
        raise error

    monkeypatch.setattr(torch, "save", half)
    whole = rf"a\.pt could not be written .*{sentence}; what was there before is unchanged$"
    with pytest.raises(OSError, match=whole):
        checkpoints.save(tmp_path / "a.pt", history)
    assert (tmp_path / "a.pt").read_bytes() == before and files_in(tmp_path) == ["a.pt"]


# --- Files that are refused ---------------------------------------------------------------------------


class Evil:
    """A pickle that runs code when it is loaded."""

    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def emptied(path):
    path.write_bytes(b"")


def evil(path):
    torch.save({"version": Evil()}, path)


def evil_of_old(path):
    path.write_bytes(pickle.dumps(Evil()))


def of_another_version(path):
    torch.save(torch.load(path, weights_only=True) | {"version": 0}, path)


def only_weights(path):
    torch.save(NetMini().state_dict(), path)


def no_dictionary(path):
    torch.save([1, 2], path)


def a_zip_of_something(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", "nothing")


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (truncated, "is damaged"),
        (flipped, "is damaged"),
        (emptied, "is damaged"),
        (a_zip_of_something, "is damaged"),
        (evil, "could run code"),
        (evil_of_old, "is damaged, or not a weights file"),
        (of_another_version, "another version of this course"),
        (only_weights, "holds no training run to continue"),
        (no_dictionary, "holds no training run to continue"),
    ],
)
def test_bad_checkpoints_are_refused_and_left_alone(harm, sentence, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pt"
    _, run = training(digits)
    run(path, 1)
    harm(path)
    before = path.read_bytes()
    history, run = training(digits)
    weights = {name: value.clone() for name, value in history.model.state_dict().items()}
    with pytest.raises(ValueError, match=sentence):
        run(path, 2)
    assert path.read_bytes() == before and not Path("pwned").exists()
    assert same(weights, history.model.state_dict()) and history.done == 0


def test_checkpoints_of_another_training_are_refused(digits, tmp_path):
    path = tmp_path / "a.pt"
    training(digits)[1](path)
    with pytest.raises(ValueError, match="belongs to the network NetMini, not NetGAP"):
        training(digits, NetGAP)[1](path)

    history, run = training(digits)
    history.optimizer = optim.Adam(history.model.parameters())
    with pytest.raises(
        ValueError, match="run with the optimizer SGD instead of Adam: delete it to start over"
    ):
        run(path)
    history, run = training(digits)
    history.scheduler = optim.lr_scheduler.OneCycleLR(history.optimizer, 0.1, total_steps=7)
    with pytest.raises(
        ValueError, match="run with another scheduler: delete it to start over, choose another"
    ):
        run(path)


def test_a_schedule_of_another_length_is_refused(digits, tmp_path):
    for epochs, steps in [(1, 2000), (2, 3000)]:
        history, run = training(digits)
        history.scheduler = optim.lr_scheduler.OneCycleLR(history.optimizer, 0.1, total_steps=steps)
        if epochs == 1:
            run(tmp_path / "a.pt", epochs)
    with pytest.raises(ValueError, match=r"total_steps 2000 instead of 3000 \(see EPOCHS, SMOKE_TEST and"):
        run(tmp_path / "a.pt", epochs)
    assert history.done == 0


STEPS = optim.lr_scheduler.StepLR


@pytest.mark.parametrize(
    ("difference", "scheduler", "named"),
    [
        ("step_size 15 instead of 1", lambda optimizer: STEPS(optimizer, 1), {}),
        ("gamma 0.1 instead of 0.5", lambda optimizer: STEPS(optimizer, 15, gamma=0.5), {}),
        (r"base_lrs \[0.1\] instead of \[0.5\]", lambda optimizer: STEPS(optimizer, 15), {"lr": 0.5}),
        ("weight_decay 0 instead of 0.1", lambda optimizer: STEPS(optimizer, 15), {"weight_decay": 0.1}),
        (None, lambda optimizer: STEPS(optimizer, 15), {}),
    ],
)
def test_other_settings_are_refused(difference, scheduler, named, digits, tmp_path):
    """Else the old settings would be used, and the result would be shown as that of the new ones."""
    path = tmp_path / "a.pt"
    history, run = training(digits)
    history.optimizer = optim.SGD(history.model.parameters(), lr=0.1)
    history.scheduler = STEPS(history.optimizer, 15)
    run(path, 1)
    history, run = training(digits)
    history.optimizer = optim.SGD(history.model.parameters(), **{"lr": 0.1} | named)
    history.scheduler = scheduler(history.optimizer)
    if difference:
        with pytest.raises(ValueError, match=f"run with {difference}: delete it to start over"):
            run(path, 2)
    else:
        run(path, 2)
    assert history.done == (0 if difference else 2)


def test_another_rate_without_a_scheduler_is_refused(digits, tmp_path):
    for rate in [0.1, 0.2]:
        history, run = training(digits)
        history.optimizer, history.scheduler = optim.SGD(history.model.parameters(), lr=rate), None
        if rate == 0.1:
            run(tmp_path / "a.pt", 1)
    with pytest.raises(ValueError, match="run with lr 0.1 instead of 0.2: "):
        run(tmp_path / "a.pt", 2)


def test_a_loop_that_ends_early_is_saved(digits, tmp_path):
    history, _ = training(digits)
    for _ in kept(history, 5, tmp_path / "a.pt"):
        history.add((50.0, 1.0), (60.0, 0.9))
        if history.done == 2:
            break
    again, _ = training(digits)
    assert load(tmp_path / "a.pt", again) and again.done == 2


def test_an_old_loop_cannot_save_over_a_new_one(digits, tmp_path):
    """It may still exist when the same loop is run again, and end much later."""
    path = tmp_path / "a.pt"
    history, _ = training(digits)
    old = kept(history, 5, path)
    next(old)
    for _ in kept(history, 5, path):
        history.add((50.0, 1.0), (60.0, 0.9))
        before = path.read_bytes()
        if history.done == 1:
            old.close()
            assert path.read_bytes() == before
            break


@pytest.mark.parametrize("harm", [truncated, flipped, evil, no_dictionary])
def test_bad_weights_are_refused(harm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "NetMini.pt"
    shutil.copy(HERE / "checkpoints" / "NetMini.pt", path)
    model = NetMini()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    harm(path)
    with pytest.raises(ValueError, match=r"NetMini\.pt"):
        utils.load_weights(path, model)
    assert same(before, model.state_dict()) and not Path("pwned").exists()


def test_weights_are_loaded_and_belong_to_one_network(digits, tmp_path):
    weights = torch.load(HERE / "checkpoints" / "NetMini.pt", weights_only=True)
    assert same(utils.load_weights(HERE / "checkpoints" / "NetMini.pt", NetMini()).state_dict(), weights)
    with pytest.raises(ValueError, match="belong to another network, not NetGAP"):
        utils.load_weights(HERE / "checkpoints" / "NetMini.pt", NetGAP())
    history = training(digits)[1](tmp_path / "a.pt")
    assert same(utils.load_weights(tmp_path / "a.pt", NetMini()).state_dict(), history.model.state_dict())
    assert isinstance(history.model, nn.Module)


def test_an_epoch_without_results_is_not_kept(digits, tmp_path):
    history, _ = training(digits)
    with pytest.raises(RuntimeError, match="once in each epoch"):
        for _ in kept(history, 2, tmp_path / "a.pt"):
            history.optimizer.param_groups[0]["lr"] = 7.0
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    assert state["optimizer_state"]["param_groups"][0]["lr"] == 0.05


def test_a_network_whose_layers_have_other_sizes(digits, tmp_path):
    training(digits)[1](tmp_path / "a.pt")
    history, run = training(digits)
    history.model.classes = nn.Linear(12, 7)
    with pytest.raises(ValueError, match="do not fit this NetMini: its layers have other sizes"):
        run(tmp_path / "a.pt")


def test_seeds_start_every_random_number(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)

    def draw():
        return random.random(), torch.rand(3).tolist()

    monkeypatch.setattr(
        torch.backends.cudnn, "benchmark", True
    )  # times its algorithms, and may choose another
    seed_everything(5)
    assert not torch.backends.cudnn.benchmark
    first = draw()
    assert draw() != first
    seed_everything(5)
    assert draw() == first
    seed_everything(6)
    assert all(other != one for other, one in zip(draw(), first))
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    seed_everything(5, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled() and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    seed_everything(5)
    assert not torch.are_deterministic_algorithms_enabled()


# --- Two processes, one file -------------------------------------------------------------------

OWNER = """
import sys
from course.files import owning
with owning(sys.argv[1]):
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_harms_nothing(digits, tmp_path):
    path = tmp_path / "a.pt"
    training(digits)[1](path, 1)
    before = path.read_bytes()
    command = [sys.executable, "-c", OWNER, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": HERE}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == "mine\n"
        history, run = training(digits)
        with pytest.raises(ValueError, match=r"another process is writing .*a\.pt: wait for it, or choose"):
            run(path, 2)
        assert history.done == 0 and path.read_bytes() == before
        other.kill()  # what is killed leaves its lock file, but not the lock
        other.wait()
    run(path, 2)
    assert history.done == 2 and files_in(tmp_path) == ["a.pt"]


def test_an_interrupted_loop_can_be_run_again(digits, tmp_path):
    """In a notebook the interrupted loop may still exist, and still own the file."""
    path = tmp_path / "a.pt"
    interrupted = kept(training(digits)[0], 2, path)
    next(interrupted)
    history, run = training(digits)
    run(path, 2)
    assert history.done == 2
    interrupted.close()
    training(digits)[1](path, 2)


def interrupt(history):
    """An epoch that is given up after it has changed the weights; return them as they were before."""
    before = copy.deepcopy(history.model.state_dict())
    for _ in history.epochs(history.done + 1):
        with torch.no_grad():
            for weight in history.model.parameters():
                weight.zero_()
        break
    return before


def test_a_run_from_a_file_comes_after_an_epoch_that_was_interrupted(digits, tmp_path, capsys):
    """As when a learner first trains without a file, stops, and then continues with the file."""
    _, run = training(digits)
    run(tmp_path / "a.pt", 2)
    _, run = training(digits)
    whole = run(tmp_path / "whole.pt", 3)
    for total, expected in [(2, tmp_path / "a.pt"), (3, tmp_path / "whole.pt")]:
        history, run = training(digits)
        interrupt(history)
        run(tmp_path / "a.pt", total)
        weights = torch.load(expected, weights_only=True)["model"]
        assert history.done == total and same(history.model.state_dict(), weights)
    assert history.curves == whole.curves


@pytest.mark.parametrize("done", [0, 2])
def test_what_an_interrupted_epoch_did_is_not_saved(digits, tmp_path, done):
    history, run = training(digits)
    run(None, done)
    before, path = interrupt(history), tmp_path / "a.pt"
    for _ in kept(history, 2, path):
        break
    assert same(torch.load(path, weights_only=True)["model"], before)
    assert len(torch.load(path, weights_only=True)["curves"]["test_acc"]) == done


def test_the_random_numbers_of_a_gpu_are_kept_too(monkeypatch):
    assert checkpoints._random_state()["cuda"] == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: ["first", "second"])
    restored = []
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", restored.append)
    state = checkpoints._random_state()
    checkpoints._set_random_state(state)
    checkpoints._set_random_state(state | {"cuda": ["of a machine with one"]})
    assert restored == [["first", "second"]]


def test_the_older_loop_does_not_give_the_file_away(digits, tmp_path):
    path = tmp_path / "a.pt"
    older, newer = (kept(training(digits)[0], 2, path) for _ in range(2))
    next(older)
    next(newer)
    older.close()
    with pytest.raises(ValueError, match="another process is writing"):
        files._lock(path)
    newer.close()
    files._lock(path).close()


def test_a_long_schedule_is_known_again(digits, tmp_path):
    for epochs in (1, 2):
        history, run = training(digits)
        steps = 1000 * len([*history.optimizer.param_groups])  # a new number each time, as in a new process
        history.scheduler = optim.lr_scheduler.OneCycleLR(history.optimizer, 0.1, total_steps=steps)
        assert run(tmp_path / "a.pt", epochs).done == epochs


L = optim.lr_scheduler
SCHEDULES = {  # what makes it from an optimizer, and the same with another setting
    "StepLR": [lambda o: L.StepLR(o, 15), lambda o: L.StepLR(o, 14)],
    "MultiStepLR": [lambda o: L.MultiStepLR(o, [1, 5]), lambda o: L.MultiStepLR(o, [1, 6])],
    "OneCycleLR": [
        lambda o: L.OneCycleLR(o, 0.1, total_steps=9),
        lambda o: L.OneCycleLR(o, 0.1, total_steps=9, pct_start=0.5),
    ],
    "CosineAnnealingLR": [lambda o: L.CosineAnnealingLR(o, 9), lambda o: L.CosineAnnealingLR(o, 9, 0.01)],
    "warm restarts": [
        lambda o: L.CosineAnnealingWarmRestarts(o, 2, 2),
        lambda o: L.CosineAnnealingWarmRestarts(o, 2, 3),
    ],
    "CyclicLR": [lambda o: L.CyclicLR(o, 0.01, 0.1), lambda o: L.CyclicLR(o, 0.01, 0.2)],
    "LinearLR": [lambda o: L.LinearLR(o, 0.5), lambda o: L.LinearLR(o, 0.4)],
    "PolynomialLR": [lambda o: L.PolynomialLR(o, 9), lambda o: L.PolynomialLR(o, 9, power=2)],
    "plateau": [lambda o: L.ReduceLROnPlateau(o), lambda o: L.ReduceLROnPlateau(o, threshold=0.1)],
    "sequential": [
        lambda o: L.SequentialLR(o, [L.LinearLR(o, 0.5), L.StepLR(o, 3)], [1]),
        lambda o: L.SequentialLR(o, [L.LinearLR(o, 0.5), L.StepLR(o, 4)], [1]),
    ],
    "chained": [
        lambda o: L.ChainedScheduler([L.LinearLR(o, 0.5), L.StepLR(o, 3)]),
        lambda o: L.ChainedScheduler([L.LinearLR(o, 0.5), L.StepLR(o, 3, gamma=0.2)]),
    ],
}


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_setting_of_a_schedule_counts_and_its_progress_does_not(name, tmp_path):
    """Else the old settings would be used, and the result would be shown as that of the new ones."""

    def run(make, epochs):
        model = nn.Linear(2, 2)
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        history = utils.History(model, optimizer, make(optimizer), live=False)
        for _ in kept(history, epochs, tmp_path / "a.pt"):
            optimizer.step()
            history.scheduler.step(*([1.0] if name == "plateau" else []))
            history.add((50.0, 1.0), (50.0, 1.0))
        return history.done

    same_settings, other_setting = SCHEDULES[name]
    assert [run(same_settings, epochs) for epochs in [3, 5]] == [3, 5]
    with pytest.raises(ValueError, match="belongs to a training run with .* instead of "):
        run(other_setting, 6)


class Halving(optim.lr_scheduler.LRScheduler):
    """A schedule of one's own, which counts in its own way."""

    seen = 0

    def get_lr(self):
        self.seen += 1
        return [0.1 / self.seen]


def test_a_schedule_of_ones_own_goes_on(digits, tmp_path):
    for epochs in (1, 2):
        history, run = training(digits)
        history.scheduler = Halving(history.optimizer)
        assert run(tmp_path / "a.pt", epochs).done == epochs


@pytest.mark.parametrize("setting", [{"momentum": 0.5}, {"nesterov": True}])
def test_another_momentum_is_refused_beside_a_schedule_that_leaves_it_alone(setting, digits, tmp_path):
    history, run = training(digits)
    run(tmp_path / "a.pt", 1)
    history, run = training(digits)
    (group,) = history.optimizer.param_groups
    group |= setting
    with pytest.raises(ValueError, match=f"run with {next(iter(setting))} .* instead of "):
        run(tmp_path / "a.pt", 2)


def test_numbers_of_numpy_are_kept_as_plain_numbers(tmp_path):
    """`read_safely` refuses NumPy's own: the whole training would be lost."""
    path, done = tmp_path / "a.pt", []
    for epochs in (1, 2):
        model = nn.Linear(2, 2)
        optimizer = optim.SGD(model.parameters(), lr=np.logspace(-3, 0, 4)[2])
        scheduler = L.CosineAnnealingLR(optimizer, np.int64(5), np.float64(0.01))
        history = utils.History(model, optimizer, scheduler, live=False)
        for _ in kept(history, epochs, path):
            history.add((np.mean([90, 91]), np.float32(0.3)), (torch.tensor(92.0), 0.2))
        done.append(history.done)
    assert done == [1, 2] and utils.load_weights(path, nn.Linear(2, 2))
    assert history.curves["train_acc"] == [90.5, 90.5] and type(history.curves["test_acc"][0]) is float


def test_pythons_random_numbers_go_on_too(tmp_path):
    def run(epochs, path):
        history = utils.History(nn.Linear(2, 2), None, live=False)
        history.optimizer = optim.SGD(history.model.parameters(), lr=0.1)
        seed_everything(0)
        drawn = []
        for _ in kept(history, epochs, path):
            drawn.append(random.random())
            history.add((50.0, 1.0), (50.0, 1.0))
        return drawn

    assert run(4, tmp_path / "whole.pt") == run(2, tmp_path / "a.pt") + run(4, tmp_path / "a.pt")


def test_what_else_a_run_depends_on_can_be_said(digits, tmp_path):
    for settings, sentence in [("seed 0", ""), ("seed 0", ""), ("seed 1", "with seed 0 instead of seed 1: ")]:
        history, _ = training(digits)
        loop = kept(history, 1, tmp_path / "a.pt", settings)
        if sentence:
            with pytest.raises(ValueError, match=sentence):
                next(loop)
        else:
            for _ in loop:
                history.add((50.0, 1.0), (50.0, 1.0))


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_weights_are_those_of_the_network_itself(wrap, tmp_path):
    model = NetMini()
    history = utils.History(wrap(model), None, live=False)
    history.optimizer = optim.SGD(model.parameters(), lr=0.1)
    for _ in kept(history, 1, tmp_path / "a.pt"):
        history.add((50.0, 1.0), (50.0, 1.0))
    assert same(utils.load_weights(tmp_path / "a.pt", NetMini()).state_dict(), model.state_dict())


def test_a_checkpoint_may_be_in_the_home_folder(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    training(digits)[1]("~/a.pt", 1)
    assert (tmp_path / "a.pt").is_file()
