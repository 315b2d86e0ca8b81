"""Interrupted trainings go on exactly; damaged and foreign files are refused and left alone."""

import io
import json
import multiprocessing
import os
import pickle
import random
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
from helpers import ROOT, environment, files_in, run_python, same
from torch import nn, optim
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

import utils
from course import checkpoints
from course.checkpoints import get_trained, resume, seed_everything
from model import NetGAP, NetMini

ONE_EPOCH = (50.0, 1.0), (60.0, 0.9)  # what `train` and `test` might return
NEEDS_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can fork")


def sgd(**named):
    return lambda weights: optim.SGD(weights, **{"lr": 0.05, "momentum": 0.9} | named)


def step_lr(*settings):
    return lambda optimizer: lr_scheduler.StepLR(optimizer, *settings)


class Training:
    """A small training, made anew: equal ones have equal weights, schedule and random numbers."""

    def __init__(self, digits, Network=NetMini, optimizer=sgd(), scheduler=step_lr(1, 0.5)):  # noqa: B008
        seed_everything(0)
        self.model = Network()
        self.optimizer = optimizer(self.model.parameters())
        self.scheduler = scheduler(self.optimizer)
        self.loader = DataLoader(digits, 25, shuffle=True)
        self.history = utils.History(self.model, self.optimizer, self.scheduler, live=False)
        self.drawn = []  # Python's random numbers, one an epoch

    def run(self, path, epochs=2, settings=None):
        for _ in resume(self.history, epochs, path, settings):
            self.epoch()
        return self

    def epoch(self):
        trained = utils.train(self.model, "cpu", self.loader, self.optimizer, F.nll_loss)
        tested = utils.test(self.model, "cpu", self.loader, F.nll_loss, quiet=True)
        self.history.add(trained, tested)
        self.scheduler.step()
        self.drawn.append(random.random())


def assert_equal(one, other):
    assert one.history.curves == other.history.curves
    assert same(one.model.state_dict(), other.model.state_dict())
    assert one.scheduler.get_last_lr() == other.scheduler.get_last_lr()
    for ours, theirs in zip(reversed(one.drawn), reversed(other.drawn)):
        assert ours == theirs


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.pt"


@pytest.fixture
def new(digits):
    """Makes a training; equal arguments give equal ones."""
    return lambda *arguments, **named: Training(digits, *arguments, **named)


def saved(path):
    return torch.load(path, weights_only=True)


def epochs_in(path):
    return len(saved(path)["curves"]["test_acc"])


# --- Going on -----------------------------------------------------------------------------------


@pytest.mark.slow
@NEEDS_FORK
def test_twenty_kills_change_nothing(tmp_path):
    program = ROOT / "tests" / "programs" / "killed.py"
    reached = json.loads(run_python(program, tmp_path, 20))
    assert len(reached) == 20
    assert reached == sorted(reached), "no kill may lose a whole epoch"
    whole = saved(tmp_path / "whole.pt")
    killed = saved(tmp_path / "killed.pt")
    assert epochs_in(tmp_path / "killed.pt") == 8
    assert same(whole | {"seconds": 0}, killed | {"seconds": 0})
    assert not list(tmp_path.glob("*.tmp"))


def test_going_on_equals_never_stopping(new, path, tmp_path, capsys):
    whole = new().run(tmp_path / "whole.pt", 4)
    new().run(path, 2)
    capsys.readouterr()
    again = new().run(path, 4)
    assert "a.pt holds 2 of 4 epochs: going on from there." in capsys.readouterr().out
    assert len(again.drawn) == 2
    assert_equal(again, whole)


def test_a_finished_training_is_not_done_again(new, path, capsys):
    first = new().run(path)
    again = new().run(path)
    assert "a.pt holds 2 of 2 epochs: nothing is left to do." in capsys.readouterr().out
    assert again.drawn == []
    assert again.history.seconds == first.history.seconds > 0
    assert_equal(again, first)
    assert same(saved(path)["model"], first.model.state_dict())


def test_an_epoch_that_is_left_is_not_in_the_file(new, path, tmp_path):
    """Nobody can tell `break` from an interrupt, which may come before the schedule's step."""
    whole = new().run(tmp_path / "whole.pt", 3)
    left = new()
    for _ in resume(left.history, 3, path):
        left.epoch()
        if left.history.done == 2:
            break
    assert epochs_in(path) == 1
    assert_equal(new().run(path, 3), whole)
    checkpoints.save(path, left.history)  # whoever leaves the loop on purpose can keep the rest
    assert epochs_in(path) == 2


def test_an_interrupted_loop_can_be_run_again(new, path, tmp_path):
    """In a notebook the interrupted loop may still exist, own the file, and end much later."""
    whole = new().run(tmp_path / "whole.pt")
    interrupted = resume(new().history, 2, path)
    next(interrupted)
    again = new().run(path)
    before = path.read_bytes()
    interrupted.close()
    assert_equal(again, whole)
    assert path.read_bytes() == before


def test_a_file_comes_before_an_epoch_that_was_interrupted_without_it(new, path, tmp_path):
    """As when a learner first trains without a file, stops, and then goes on with the file."""
    whole = new().run(tmp_path / "whole.pt", 3)
    new().run(path, 2)
    stopped = new()
    next(stopped.history.epochs(1))
    nn.init.zeros_(stopped.model.classes.weight)
    assert_equal(stopped.run(path, 3), whole)


@pytest.mark.parametrize("name", ["a.pt", "~/a.pt"])
def test_the_working_folder_may_change(name, new, path, monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    training = new()
    for _ in resume(training.history, 2, name):
        training.epoch()
        monkeypatch.chdir(tmp_path / "elsewhere")
    assert epochs_in(path) == 2
    assert files_in(tmp_path / "elsewhere") == []


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


# --- Random numbers -----------------------------------------------------------------------------


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
    assert new().run(path).history.done == 2
    said = capsys.readouterr().out
    assert "a.pt comes from 2 processes, and this run has 1: its random numbers are other" in said


def test_seeds_start_every_random_number(monkeypatch):
    def draw(seed, **named):
        seed_everything(seed, **named)
        return random.random(), torch.rand(3).tolist()

    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)  # may choose another algorithm
    first = draw(5)
    assert draw(5) == first
    assert all(other != one for other, one in zip(draw(6), first))
    assert not torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    draw(5, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    draw(5)
    assert not torch.are_deterministic_algorithms_enabled()


# --- Writing: tests/test_files.py looks at how a file is replaced --------------------------------


def test_a_place_that_cannot_be_written_is_found_out_before_the_first_epoch(new, tmp_path):
    (tmp_path / "file").write_text("no folder")
    training = new()
    with pytest.raises(OSError, match=r"a\.pt could not be written .* choose another file$"):
        training.run(tmp_path / "file" / "a.pt")
    assert training.history.done == 0


def test_a_failure_to_write_leaves_the_old_checkpoint(new, path, tmp_path, monkeypatch):
    training = new().run(path)
    before = path.read_bytes()

    def no_space(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    whole = r"could not be written \(.*No space left.*\): free some space, or .* is unchanged$"
    with pytest.raises(OSError, match=whole):
        checkpoints.save(path, training.history)
    assert path.read_bytes() == before
    assert files_in(tmp_path) == [".a.pt.lock", "a.pt"]


class KeepsAPath(NetMini):
    def get_extra_state(self):
        return Path("data")


def with_a_path(optimizer):
    schedule = lr_scheduler.StepLR(optimizer, 1)
    schedule.folder = Path("data")
    return schedule


@pytest.mark.parametrize(
    ("parts", "settings"),
    [({}, Path("data")), ({"scheduler": with_a_path}, None), ({"Network": KeepsAPath}, None)],
    ids=["settings", "schedule", "network"],
)
def test_what_could_not_be_read_again_is_refused_at_once(new, path, parts, settings):
    """Else it would be saved epoch after epoch, and refused when it is needed."""
    training = new(**parts)
    with pytest.raises(ValueError, match="a.pt would not be read again, so it was not written"):
        training.run(path, settings=settings)
    assert training.history.done == 0
    assert not path.exists()


def test_numbers_of_numpy_become_plain_numbers(path):
    for epochs in (1, 2):
        model = nn.Linear(2, 2)
        optimizer = optim.SGD(model.parameters(), lr=np.logspace(-3, 0, 4)[2])
        scheduler = lr_scheduler.CosineAnnealingLR(optimizer, np.int64(5), np.float64(0.01))
        history = utils.History(model, optimizer, scheduler, live=False)
        for _ in resume(history, epochs, path):
            history.add((np.mean([90, 91]), np.float32(0.3)), (torch.tensor(92.0), 0.2))
    assert history.curves["train_acc"] == [90.5, 90.5]
    assert type(history.curves["test_acc"][0]) is float


def test_what_a_killed_process_has_left_behind_goes(new, path, tmp_path):
    (tmp_path / "a.pt.123.tmp").write_bytes(b"half")
    new().run(path, 1)
    assert files_in(tmp_path) == [".a.pt.lock", "a.pt"]


# --- Two processes, one file --------------------------------------------------------------------


def own(path, **pipes):
    """A process that owns the file until its stdin ends, if nobody else does."""
    command = [sys.executable, str(ROOT / "tests" / "programs" / "owner.py"), str(path)]
    return subprocess.Popen(command, env=environment(), cwd=ROOT, text=True, **pipes)


@pytest.mark.slow
def test_a_second_process_is_refused_and_harms_nothing(new, path):
    training = new()
    with own(path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(ValueError, match=r"another process is writing .*a\.pt: wait for it"):
            training.run(path)
        assert training.history.done == 0
        assert not path.exists()
        other.kill()  # what is killed leaves its lock file, but not the lock
        other.wait()
        assert training.run(path).history.done == 2


@pytest.mark.slow
def test_the_file_is_given_away_only_by_the_last_loop(new, path):
    def is_free():
        return own(path, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait() == 0

    older = resume(new().history, 2, path)
    newer = resume(new().history, 2, path)
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


def to_bytes(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def flip_a_bit(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def put_a_tar_before(content):
    """Old versions of PyTorch unpacked it as a tar file."""
    file = io.BytesIO()
    tarfile.open(fileobj=file, mode="w").close()
    return file.getvalue() + content


def pack_a_quarter_gigabyte(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(2**28))
    return file.getvalue()


REFUSED = {
    "truncated": (lambda content: content[: len(content) // 2], "is damaged, or not a file of"),
    "one bit flipped": (flip_a_bit, "is damaged, or not a file of weights"),
    "empty": (lambda content: b"", "is damaged, or not a file of weights"),
    "evil": (lambda content: to_bytes({"version": Evil()}), "could run code"),
    "evil, of old": (lambda content: pickle.dumps(Evil()), "is damaged, or not a file of weights"),
    "a tar and a zip": (put_a_tar_before, "is damaged, or not a file of weights"),
    "packed": (pack_a_quarter_gigabyte, "is damaged, or not a file of weights"),
}


@pytest.mark.parametrize(("harm", "sentence"), REFUSED.values(), ids=REFUSED)
def test_bad_files_are_refused_and_left_alone(harm, sentence, new, path, monkeypatch):
    monkeypatch.chdir(path.parent)
    new().run(path, 1)
    harmed = harm(path.read_bytes())
    path.write_bytes(harmed)
    training = new()
    with pytest.raises(ValueError, match=sentence):
        training.run(path)
    with pytest.raises(ValueError, match=sentence):
        utils.load_weights(path, training.model)
    assert path.read_bytes() == harmed
    assert not Path("pwned").exists()
    assert_equal(training, new())


@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", os.mkdir)])
def test_what_is_no_file_is_refused(make, new, path):
    make(path)
    with pytest.raises(ValueError, match="is damaged, or not a file of weights"):
        new().run(path)


def test_what_holds_no_training_is_refused(new, path):
    new().run(path, 1)
    for content, sentence in [
        (saved(path) | {"version": 0}, r"another version of this course \(0, now 2\): start over"),
        (NetMini().state_dict(), "holds no training run that can go on; it was not changed"),
        ([1, 2], "holds no training run that can go on; it was not changed"),
    ]:
        torch.save(content, path)
        with pytest.raises(ValueError, match=sentence):
            new().run(path)
    with pytest.raises(ValueError, match="belong to another network, not NetMini"):
        utils.load_weights(path, NetMini())


def test_weights_are_loaded_and_belong_to_one_network(new, path):
    file = ROOT / "checkpoints" / "NetMini.pt"
    weights = saved(file)
    assert same(utils.load_weights(file, NetMini()).state_dict(), weights)
    assert same(get_trained(NetMini).state_dict(), weights)
    with pytest.raises(ValueError, match="belong to another network, not NetGAP"):
        utils.load_weights(file, NetGAP())
    with pytest.raises(FileNotFoundError):
        utils.load_weights(path, NetMini())
    trained = new().run(path).model
    assert same(utils.load_weights(path, NetMini()).state_dict(), trained.state_dict())


# --- Another training ---------------------------------------------------------------------------


def with_seven_classes():
    model = NetMini()
    model.classes = nn.Linear(12, 7)
    return model


@pytest.mark.parametrize(
    ("others", "settings", "sentence"),
    [
        ({"Network": NetGAP}, "seed 0", "belongs to the network NetMini, not NetGAP"),
        ({"Network": with_seven_classes}, "seed 0", "do not fit this NetMini: its layers differ"),
        ({"optimizer": optim.Adam}, "seed 0", "the optimizer SGD instead of Adam: delete it to st"),
        ({"optimizer": sgd(weight_decay=0.1)}, "seed 0", "with weight_decay 0 instead of 0.1: "),
        ({"optimizer": sgd(nesterov=True)}, "seed 0", "with nesterov False instead of True: "),
        ({"optimizer": sgd(lr=0.5)}, "seed 0", "with lr 0.05 instead of 0.5: "),
        ({"scheduler": lr_scheduler.LinearLR}, "seed 0", "the schedule StepLR instead of LinearLR"),
        ({"scheduler": step_lr(15, 0.5)}, "seed 0", "with step_size 1 instead of 15: "),
        ({"scheduler": step_lr(1)}, "seed 0", "with gamma 0.5 instead of 0.1: "),
        ({}, "seed 1", "with the settings seed 0 instead of seed 1: "),
        ({}, None, "with the settings seed 0 instead of None: "),
    ],
)
def test_another_training_is_refused(others, settings, sentence, new, path):
    """Else the old settings would be used, and the result shown as that of the new ones."""
    new().run(path, 1, "seed 0")
    before = path.read_bytes()
    training = new(**others)
    with pytest.raises(ValueError) as error:
        training.run(path, 2, settings)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert training.history.done == 0
    assert path.read_bytes() == before


def sequential(optimizer, step_size=3):
    parts = [lr_scheduler.LinearLR(optimizer, 0.5), lr_scheduler.StepLR(optimizer, step_size)]
    return lr_scheduler.SequentialLR(optimizer, parts, [1])


def chained(optimizer, gamma=0.1):
    parts = [lr_scheduler.LinearLR(optimizer, 0.5), lr_scheduler.StepLR(optimizer, 3, gamma)]
    return lr_scheduler.ChainedScheduler(parts)


SCHEDULES = [  # with some settings, and another one
    (lr_scheduler.MultiStepLR, {"milestones": [1, 5]}, {"milestones": [1, 6]}),
    (lr_scheduler.OneCycleLR, {"max_lr": 0.1, "total_steps": 2000}, {"total_steps": 3000}),
    (lr_scheduler.CosineAnnealingLR, {"T_max": 9}, {"eta_min": 0.01}),
    (lr_scheduler.CosineAnnealingWarmRestarts, {"T_0": 2, "T_mult": 2}, {"T_mult": 3}),
    (lr_scheduler.CyclicLR, {"base_lr": 0.01, "max_lr": 0.1}, {"max_lr": 0.2}),
    (lr_scheduler.LinearLR, {"start_factor": 0.5}, {"start_factor": 0.4}),
    (lr_scheduler.PolynomialLR, {"total_iters": 9}, {"power": 2}),
    (lr_scheduler.ReduceLROnPlateau, {}, {"threshold": 0.1}),
    (sequential, {}, {"step_size": 4}),
    (chained, {}, {"gamma": 0.2}),
]


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize(
    ("schedule", "settings", "other"), SCHEDULES, ids=[make.__name__ for make, _, _ in SCHEDULES]
)
def test_every_setting_of_a_schedule_counts_and_its_progress_does_not(
    schedule, settings, other, path
):
    def run(epochs, settings):
        model = nn.Linear(2, 2)
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        history = utils.History(model, optimizer, schedule(optimizer, **settings), live=False)
        measured = [1.0] if schedule is lr_scheduler.ReduceLROnPlateau else []
        for _ in resume(history, epochs, path):
            optimizer.step()
            history.scheduler.step(*measured)
            history.add(*ONE_EPOCH)
        return history.done

    assert [run(3, settings), run(5, settings)] == [3, 5]
    with pytest.raises(ValueError, match="belongs to a training run with .* instead of "):
        run(6, settings | other)


def test_a_setting_that_only_a_newer_pytorch_has_is_no_difference(new, path):
    new().run(path, 1)
    state = saved(path)
    del state["start"]["optimizer"]["param_groups"][0]["foreach"]
    state["start"]["scheduler"].pop("_is_initial", None)
    torch.save(state, path)
    assert new().run(path).history.done == 2
