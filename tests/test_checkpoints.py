"""Interrupted trainings go on exactly; damaged and foreign files are refused and left alone."""

import json
import multiprocessing
import os
import pickle
import random
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import HERE, environment, files_in, run_python, same
from torch import nn, optim
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

import utils
from course import checkpoints
from course.checkpoints import get_trained, load, resume, seed_everything
from model import Net, NetGAP, NetMini

ONE_EPOCH = (50.0, 1.0), (60.0, 0.9)  # what `train` and `test` might return


class Training:
    """A small training, made anew: equal ones have equal weights, schedule and random numbers."""

    def __init__(self, digits, Network=NetMini, optimizer=None, scheduler=None):
        seed_everything(0)
        model = Network()
        make = optimizer or (lambda weights: optim.SGD(weights, lr=0.05, momentum=0.9))
        self.optimizer = make(model.parameters())
        self.scheduler = (scheduler or (lambda o: lr_scheduler.StepLR(o, 1, 0.5)))(self.optimizer)
        self.loader = DataLoader(digits, 25, shuffle=True)
        self.history = utils.History(model, self.optimizer, self.scheduler, live=False)

    def run(self, path, epochs=2, settings=None):
        history = self.history
        for _ in resume(history, epochs, path, settings) if path else history.epochs(epochs):
            self.epoch()
        return history

    def epoch(self):
        model = self.history.model
        trained = utils.train(model, "cpu", self.loader, self.optimizer, F.nll_loss)
        self.history.add(trained, utils.test(model, "cpu", self.loader, F.nll_loss, quiet=True))
        self.scheduler.step()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.pt"


@pytest.fixture
def new(digits):
    """Makes a training; equal arguments give equal ones."""
    return lambda *arguments, **named: Training(digits, *arguments, **named)


def saved(path):
    return torch.load(path, weights_only=True)


# --- Going on -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can fork")
def test_twenty_kills_change_nothing(tmp_path):
    reached = json.loads(run_python(HERE / "tests" / "programs" / "killed.py", tmp_path, 20))
    assert len(reached) == 20 and reached == sorted(reached), "no kill may lose a whole epoch"
    whole, killed = saved(tmp_path / "whole.pt"), saved(tmp_path / "killed.pt")
    whole.pop("seconds"), killed.pop("seconds")
    assert len(whole["curves"]["test_acc"]) == 8 and same(whole, killed)
    assert not list(tmp_path.glob("*.tmp"))


def test_going_on_equals_never_stopping(new, path, tmp_path, capsys):
    whole = new().run(tmp_path / "whole.pt", 4)
    new().run(path, 2)
    capsys.readouterr()
    again = new().run(path, 4)
    assert "a.pt holds 2 of 4 epochs: going on from there." in capsys.readouterr().out
    assert again.curves == whole.curves
    assert same(again.model.state_dict(), whole.model.state_dict())
    assert again.scheduler.get_last_lr() == whole.scheduler.get_last_lr()


def test_a_finished_training_is_not_done_again(new, path, capsys):
    seconds = new().run(path).seconds
    weights = saved(path)["model"]
    again = new().run(path)
    assert "a.pt holds 2 of 2 epochs: nothing is left to do." in capsys.readouterr().out
    assert again.done == 2 and again.seconds == seconds > 0
    assert same(saved(path)["model"], weights)


@pytest.mark.parametrize("Network", [NetMini, Net])
def test_two_runs_give_the_same_numbers(new, Network):
    first, second = new(Network).run(None), new(Network).run(None)
    assert first.curves == second.curves
    assert same(first.model.state_dict(), second.model.state_dict())


def test_an_epoch_that_is_left_is_not_in_the_file(new, path, tmp_path):
    """Nobody can tell `break` from an interrupt, which may come before the schedule's step."""
    whole = new().run(tmp_path / "whole.pt", 3)
    left = new()
    for _ in resume(left.history, 3, path):
        left.epoch()
        if left.history.done == 2:
            break
    assert len(saved(path)["curves"]["test_acc"]) == 1
    again = new().run(path, 3)
    assert again.curves == whole.curves
    assert same(again.model.state_dict(), whole.model.state_dict())
    checkpoints.save(path, left.history)  # whoever leaves the loop on purpose can keep the rest
    assert len(saved(path)["curves"]["test_acc"]) == 2


def test_an_interrupted_loop_can_be_run_again(new, path, tmp_path):
    """In a notebook the interrupted loop may still exist, own the file, and end much later."""
    whole = new().run(tmp_path / "whole.pt", 2)
    interrupted = resume(new().history, 2, path)
    next(interrupted)
    again = new().run(path, 2)
    before = path.read_bytes()
    interrupted.close()
    assert again.curves == whole.curves and path.read_bytes() == before


def test_a_file_comes_before_an_epoch_that_was_interrupted_without_it(new, path, tmp_path):
    """As when a learner first trains without a file, stops, and then goes on with the file."""
    whole = new().run(tmp_path / "whole.pt", 3)
    new().run(path, 2)
    stopped = new()
    next(stopped.history.epochs(1))
    with torch.no_grad():
        stopped.history.model.classes.weight.zero_()
    stopped.run(path, 3)
    assert same(stopped.history.model.state_dict(), whole.model.state_dict())
    assert stopped.history.curves == whole.curves


def test_the_working_folder_may_change(new, path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    training = new()
    for _ in resume(training.history, 2, "a.pt"):
        training.epoch()
        monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(saved(path)["curves"]["test_acc"]) == 2
    assert files_in(tmp_path / "elsewhere") == []


def test_a_checkpoint_may_be_in_the_home_folder(new, path, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    new().run("~/a.pt", 1)
    assert path.is_file()


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_weights_are_those_of_the_network_itself(wrap, path):
    for epochs in (1, 2):
        torch.manual_seed(0)
        model = NetMini()
        history = utils.History(wrap(model), optim.SGD(model.parameters(), lr=0.1), live=False)
        for _ in resume(history, epochs, path):
            model.classes.bias.data += 1
            history.add(*ONE_EPOCH)
    assert same(utils.load_weights(path, NetMini()).state_dict(), model.state_dict())


def test_random_numbers_go_on(path, tmp_path):
    def run(epochs, path):
        model = nn.Linear(2, 2)
        history = utils.History(model, optim.SGD(model.parameters(), lr=0.1), live=False)
        seed_everything(0)
        drawn = []
        for _ in resume(history, epochs, path):
            drawn.append((random.random(), torch.rand(1).item()))
            history.add(*ONE_EPOCH)
        return drawn

    assert run(4, tmp_path / "whole.pt") == run(2, path) + run(4, path)


def test_the_random_numbers_of_a_gpu_go_on_too(monkeypatch):
    assert "cuda" not in utils.get_random_state()
    restored = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: ["first", "second"])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", restored.append)
    state = utils.get_random_state()
    utils.set_random_state(state)
    utils.set_random_state(state | {"cuda": ["of a machine with one"]})
    assert restored == [["first", "second"]]


def test_random_numbers_of_more_processes_are_left_out_and_that_is_said(new, path, capsys):
    new().run(path, 1)
    state = saved(path)
    torch.save(state | {"random": state["random"] * 2}, path)
    assert new().run(path, 2).done == 2
    said = capsys.readouterr().out
    assert "a.pt comes from 2 processes, and this run has 1: its random numbers are other" in said


def test_seeds_start_every_random_number(monkeypatch):
    def draw():
        return random.random(), torch.rand(3).tolist()

    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)  # may choose another algorithm
    seed_everything(5)
    first = draw()
    assert draw() != first and not torch.backends.cudnn.benchmark
    seed_everything(5)
    assert draw() == first
    seed_everything(6)
    assert all(other != one for other, one in zip(draw(), first))
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    seed_everything(5, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    seed_everything(5)
    assert not torch.are_deterministic_algorithms_enabled()


# --- Writing ------------------------------------------------------------------------------------


def test_a_place_that_cannot_be_written_is_found_out_before_the_first_epoch(new, tmp_path):
    (tmp_path / "file").write_text("no folder")
    training = new()
    with pytest.raises(OSError, match=r"a\.pt could not be written .* choose another file$"):
        training.run(tmp_path / "file" / "a.pt")
    assert training.history.done == 0


def test_a_failure_to_write_leaves_the_old_checkpoint(new, path, tmp_path, monkeypatch):
    history = new().run(path)
    before = path.read_bytes()

    def no_space(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    whole = r"could not be written \(.*No space left.*\): free some space, or .* is unchanged$"
    with pytest.raises(OSError, match=whole):
        checkpoints.save(path, history)
    assert path.read_bytes() == before and files_in(tmp_path) == [".a.pt.lock", "a.pt"]


@pytest.mark.parametrize("where", ["settings", "schedule", "network"])
def test_what_could_not_be_read_again_is_refused_at_once(new, path, where):
    """Else it would be saved epoch after epoch, and refused when it is needed."""
    training, settings = new(), None
    if where == "settings":
        settings = Path("data")
    elif where == "schedule":
        training.scheduler.folder = Path("data")
    else:
        kind = type(training.history.model)
        training.history.model.__class__ = type(
            kind.__name__, (kind,), {"get_extra_state": lambda _: Path("data")}
        )
    with pytest.raises(ValueError, match="a.pt would not be read again, so it was not written"):
        training.run(path, settings=settings)
    assert training.history.done == 0 and not path.exists()


def test_numbers_of_numpy_become_plain_numbers(path):
    for epochs in (1, 2):
        model = nn.Linear(2, 2)
        optimizer = optim.SGD(model.parameters(), lr=np.logspace(-3, 0, 4)[2])
        scheduler = lr_scheduler.CosineAnnealingLR(optimizer, np.int64(5), np.float64(0.01))
        history = utils.History(model, optimizer, scheduler, live=False)
        for _ in resume(history, epochs, path):
            history.add((np.mean([90, 91]), np.float32(0.3)), (torch.tensor(92.0), 0.2))
        assert history.done == epochs
    assert history.curves["train_acc"] == [90.5, 90.5]
    assert type(history.curves["test_acc"][0]) is float


def test_a_link_stays_a_link_and_a_file_keeps_its_rights(new, path, tmp_path):
    target = tmp_path / "kept elsewhere.pt"
    new().run(target, 1)
    target.chmod(0o640)
    path.symlink_to(target)
    assert new().run(path, 2).done == 2
    assert path.is_symlink() and len(saved(target)["curves"]["test_acc"]) == 2
    assert target.stat().st_mode & 0o777 == 0o640


def test_what_a_killed_process_has_left_behind_goes(new, path, tmp_path):
    (tmp_path / "a.pt.123.tmp").write_bytes(b"half")
    new().run(path, 1)
    assert files_in(tmp_path) == [".a.pt.lock", "a.pt"]


# --- Two processes, one file --------------------------------------------------------------------


@pytest.fixture
def other_process(path):
    """A process that owns the file."""
    command = [sys.executable, str(HERE / "tests" / "programs" / "owner.py"), str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": HERE}
    with subprocess.Popen(command, env=environment(), **pipes) as other:
        assert other.stdout.readline() == "mine\n"
        yield other
        other.kill()


def test_a_second_process_is_refused_and_harms_nothing(new, path, other_process):
    training = new()
    with pytest.raises(ValueError, match=r"another process is writing .*a\.pt: wait for it, or"):
        training.run(path)
    assert training.history.done == 0 and not path.exists()
    other_process.kill()  # what is killed leaves its lock file, but not the lock
    other_process.wait()
    assert training.run(path).done == 2


@pytest.mark.slow
def test_the_file_is_given_away_only_by_the_last_loop(new, path):
    def is_free():
        program = HERE / "tests" / "programs" / "owner.py"
        done = subprocess.run(
            [sys.executable, str(program), str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment(),
        )
        return done.returncode == 0

    older, newer = resume(new().history, 2, path), resume(new().history, 2, path)
    next(older)
    next(newer)
    older.close()
    assert not is_free()
    newer.close()
    assert is_free()


def take_turns(path, turns=200):
    """Own the file again and again; fail if another process owns it at the same time."""
    sign = path.with_name("owned")
    while turns:
        try:
            with checkpoints.locked(path):
                sign.touch(exist_ok=False)
                time.sleep(0.001)
                sign.unlink()
            turns -= 1
        except ValueError:  # another process is writing
            pass


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_four_processes_never_own_a_file_together(path):
    """Notices a lock that is removed as soon as it is free: another process may wait for it."""
    start = multiprocessing.get_context("fork").Process
    others = [start(target=take_turns, args=[path]) for _ in range(4)]
    for other in others:
        other.start()
    for other in others:
        other.join(timeout=60)
    assert [other.exitcode for other in others] == [0] * 4


# --- Files that are refused ---------------------------------------------------------------------


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


def a_tar_that_is_a_zip_too(path):
    """Old versions of PyTorch unpacked it as a tar file."""
    content = path.read_bytes()
    with tarfile.open(path, "w"):
        pass
    path.write_bytes(path.read_bytes() + content)


def packed_gigabyte(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(2**28))


def a_folder(path):
    path.unlink()
    path.mkdir()


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def of_another_version(path):
    torch.save(saved(path) | {"version": 0}, path)


def only_weights(path):
    torch.save(NetMini().state_dict(), path)


def no_dictionary(path):
    torch.save([1, 2], path)


DAMAGED = [truncated, flipped, emptied, evil_of_old, a_tar_that_is_a_zip_too, packed_gigabyte]
DAMAGED += [a_folder] if sys.platform == "win32" else [a_folder, a_pipe]
REFUSED = [(harm, "is damaged, or not a file of weights") for harm in DAMAGED]
REFUSED += [(evil, "could run code")]


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        *REFUSED,
        (of_another_version, "another version of this course"),
        (only_weights, "holds no training run that can go on"),
        (no_dictionary, "holds no training run that can go on"),
    ],
)
def test_bad_checkpoints_are_refused_and_left_alone(harm, sentence, new, path, monkeypatch):
    monkeypatch.chdir(path.parent)
    new().run(path, 1)
    harm(path)
    before = path.read_bytes() if path.is_file() else None
    training = new()
    weights = {name: value.clone() for name, value in training.history.model.state_dict().items()}
    with pytest.raises(ValueError, match=sentence):
        training.run(path)
    assert not path.is_file() or path.read_bytes() == before
    assert not Path("pwned").exists()
    assert same(weights, training.history.model.state_dict()) and training.history.done == 0


@pytest.mark.parametrize(("harm", "sentence"), [*REFUSED, (no_dictionary, "another network")])
def test_bad_weights_are_refused(harm, sentence, path, monkeypatch):
    monkeypatch.chdir(path.parent)
    shutil.copy(HERE / "checkpoints" / "NetMini.pt", path)
    harm(path)
    model = NetMini()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=sentence):
        utils.load_weights(path, model)
    assert same(before, model.state_dict()) and not Path("pwned").exists()


def test_weights_are_loaded_and_belong_to_one_network(new, path):
    file = HERE / "checkpoints" / "NetMini.pt"
    weights = saved(file)
    assert same(utils.load_weights(file, NetMini()).state_dict(), weights)
    assert same(get_trained(NetMini).state_dict(), weights)
    with pytest.raises(ValueError, match="belong to another network, not NetGAP"):
        utils.load_weights(file, NetGAP())
    with pytest.raises(FileNotFoundError):
        utils.load_weights(path, NetMini())
    history = new().run(path)
    assert same(utils.load_weights(path, NetMini()).state_dict(), history.model.state_dict())


# --- Another training ---------------------------------------------------------------------------


def with_seven_classes():
    model = NetMini()
    model.classes = nn.Linear(12, 7)
    return model


with_seven_classes.__name__ = "NetMini"


def sgd(**named):
    return lambda weights: optim.SGD(weights, **{"lr": 0.05, "momentum": 0.9} | named)


def step_lr(*settings):
    return lambda optimizer: lr_scheduler.StepLR(optimizer, *settings)


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        ({"Network": NetGAP}, "belongs to the network NetMini, not NetGAP"),
        ({"Network": with_seven_classes}, "do not fit this NetMini: its layers differ in size"),
        ({"optimizer": optim.Adam}, "with the optimizer SGD instead of Adam: delete it to start"),
        ({"optimizer": sgd(weight_decay=0.1)}, "with weight_decay 0 instead of 0.1: "),
        ({"optimizer": sgd(momentum=0.5)}, "with momentum 0.9 instead of 0.5: "),
        ({"optimizer": sgd(nesterov=True)}, "with nesterov False instead of True: "),
        ({"optimizer": sgd(lr=0.5)}, "with lr 0.05 instead of 0.5: "),
        ({"scheduler": lr_scheduler.LinearLR}, "with the schedule StepLR instead of LinearLR: "),
        ({"scheduler": step_lr(15, 0.5)}, "with step_size 1 instead of 15: "),
        ({"scheduler": step_lr(1)}, "with gamma 0.5 instead of 0.1: "),
    ],
)
def test_another_training_is_refused(others, sentence, new, path):
    """Else the old settings would be used, and the result shown as that of the new ones."""
    new().run(path, 1)
    before = path.read_bytes()
    training = new(**others)
    with pytest.raises(ValueError) as error:
        training.run(path, 2)
    assert sentence in str(error.value) and "\n" not in str(error.value)
    assert training.history.done == 0 and path.read_bytes() == before


@pytest.mark.parametrize(
    ("first", "then", "sentence"),
    [
        ("seed 0", "seed 0", ""),
        ("seed 0", "seed 1", "with the settings seed 0 instead of seed 1: "),
        ("seed 0", None, "with the settings seed 0 instead of None: "),
        (None, "seed 0", "with the settings None instead of seed 0: "),
    ],
)
def test_what_else_a_run_depends_on_can_be_said(first, then, sentence, new, path):
    new().run(path, 1, first)
    if sentence:
        with pytest.raises(ValueError, match=sentence):
            new().run(path, 2, then)
    else:
        new().run(path, 2, then)


def two_schedules(optimizer, *settings):
    return [lr_scheduler.LinearLR(optimizer, 0.5), lr_scheduler.StepLR(optimizer, *settings)]


SCHEDULES = {  # what makes it from an optimizer, and the same with another setting
    "MultiStepLR": [
        lambda o: lr_scheduler.MultiStepLR(o, [1, 5]),
        lambda o: lr_scheduler.MultiStepLR(o, [1, 6]),
    ],
    "OneCycleLR": [
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=2000),
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=3000),
    ],
    "CosineAnnealingLR": [
        lambda o: lr_scheduler.CosineAnnealingLR(o, 9),
        lambda o: lr_scheduler.CosineAnnealingLR(o, 9, 0.01),
    ],
    "warm restarts": [
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2, 2),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2, 3),
    ],
    "CyclicLR": [
        lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1),
        lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.2),
    ],
    "LinearLR": [lambda o: lr_scheduler.LinearLR(o, 0.5), lambda o: lr_scheduler.LinearLR(o, 0.4)],
    "PolynomialLR": [
        lambda o: lr_scheduler.PolynomialLR(o, 9),
        lambda o: lr_scheduler.PolynomialLR(o, 9, power=2),
    ],
    "plateau": [
        lambda o: lr_scheduler.ReduceLROnPlateau(o),
        lambda o: lr_scheduler.ReduceLROnPlateau(o, threshold=0.1),
    ],
    "sequential": [
        lambda o: lr_scheduler.SequentialLR(o, two_schedules(o, 3), [1]),
        lambda o: lr_scheduler.SequentialLR(o, two_schedules(o, 4), [1]),
    ],
    "chained": [
        lambda o: lr_scheduler.ChainedScheduler(two_schedules(o, 3)),
        lambda o: lr_scheduler.ChainedScheduler(two_schedules(o, 3, 0.2)),
    ],
}


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_setting_of_a_schedule_counts_and_its_progress_does_not(name, path):
    def run(make, epochs):
        model = nn.Linear(2, 2)
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        history = utils.History(model, optimizer, make(optimizer), live=False)
        for _ in resume(history, epochs, path):
            optimizer.step()
            history.scheduler.step(*([1.0] if name == "plateau" else []))
            history.add(*ONE_EPOCH)
        return history.done

    same_settings, other_setting = SCHEDULES[name]
    assert [run(same_settings, epochs) for epochs in [3, 5]] == [3, 5]
    with pytest.raises(ValueError, match="belongs to a training run with .* instead of "):
        run(other_setting, 6)


class Halving(lr_scheduler.LRScheduler):
    """A schedule of one's own, which counts in its own way."""

    seen = 0

    def get_lr(self):
        self.seen += 1
        return [0.1 / self.seen]


def test_a_schedule_of_ones_own_goes_on(new, path):
    for epochs in (1, 2):
        assert new(scheduler=Halving).run(path, epochs).done == epochs


def test_a_setting_that_only_a_newer_pytorch_has_is_no_difference(new, path):
    new().run(path, 1)
    state = saved(path)
    del state["start"]["optimizer"]["param_groups"][0]["foreach"]
    state["start"]["scheduler"].pop("_is_initial", None)
    torch.save(state, path)
    assert new().run(path, 2).done == 2


def test_load_says_whether_there_was_a_file(new, path):
    assert not load(path, new().history)
    new().run(path, 1)
    history = new().history
    assert load(path, history) and history.done == 1
