"""Save a training run to a file after each epoch, and go on from there after an interruption.

In a notebook, `for _ in resume(history, 20, "S5.pt"):` replaces `for _ in history.epochs(20):`.
"""

import contextlib
import io
import os
import pickle
import random
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout

from course import processes
from course.files import replacing
from utils import get_shapes, load_weights, read_weights

VERSION = 2  # of what is in a file
WEIGHTS = Path(__file__).resolve().parent.parent / "checkpoints"


def get_trained(Network):
    """Return a network of this class, with the trained weights that come with the course."""
    return load_weights(WEIGHTS / f"{Network.__name__}.pt", Network())


def seed_everything(seed, deterministic=False):
    """Seed Python's and PyTorch's random numbers; `deterministic` makes a GPU exact, but slower."""
    random.seed(seed)
    torch.manual_seed(seed)  # on every device
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or PyTorch refuses
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(deterministic)


def resume(history, total, path, settings=None):
    """Like `history.epochs(total)`, but saved after each epoch, and continued from the file.

    `settings` says in words what else the run depends on; a file of other settings is refused.
    An epoch that is left before its end, also with `break`, is not in the file.
    """
    path = Path(path).expanduser().absolute()  # the working folder may change
    with locked(path) if processes.is_first() else contextlib.nullcontext():
        if load(path, history, settings):
            outlook = "nothing is left to do" if history.done >= total else "going on from there"
            print(f"{path} holds {history.done} of {total} epochs: {outlook}.")
        for epoch in history.epochs(total):
            save(path, history, settings)  # also before the first: can this file be written?
            yield epoch
        save(path, history, settings)


@contextlib.contextmanager
def locked(path):
    """Keep other processes from writing the file; within one process, a loop may be run again."""
    # A lock needs a file of its own, which stays: if it were removed, two could own it at once.
    lock = FileLock(path.with_name(f".{path.name}.lock"), is_singleton=True, thread_local=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        for left_behind in path.parent.glob(f"{path.name}.*.tmp"):  # by a process that was killed
            left_behind.unlink()
    except Timeout:
        reason = f"another process is writing {path}: wait for it, or choose another file"
        raise ValueError(reason) from None
    except (OSError, NotImplementedError):  # a folder or a file system where nothing can be locked
        pass
    try:
        yield
    finally:
        lock.release()


def save(path, history, settings=None):
    """Save the run as it is now; the file is replaced in one step."""
    state = {
        "version": VERSION,
        "kinds": get_kinds(history),
        "start": history.start,
        "settings": settings,
        **history.state(),
        "model": processes.unwrap(history.model).state_dict(),
    }
    state["random"] = processes.gather(state["random"])
    if not processes.is_first():
        return
    content = to_bytes(path, state)
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        unchanged = "; what was there before is unchanged" if Path(path).is_file() else ""
        raise OSError(
            f"the checkpoint {path} could not be written ({error}): "
            f"free some space, or choose another file{unchanged}"
        ) from error


def to_bytes(path, state):
    """What will be in the file; refuse what could not be read back from it."""
    buffer = io.BytesIO()
    torch.save(to_plain_numbers(state), buffer)
    content = buffer.getvalue()
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} would not be read again, so it was not written: the settings, the schedule or "
            "the network's state holds more than tensors, numbers and text, such as a Path"
        ) from error
    return content


def load(path, history, settings=None):
    """Go on from what `save` wrote; return False if there is no such file."""
    state = None
    if processes.is_first() and Path(path).exists():  # other machines may not have the file
        state = read_weights(path)
    state = processes.gather(state)[0]
    if state is None:
        return False
    check_same_run(path, state, history, settings)
    random_states = state["random"]
    if len(random_states) == processes.world_size():
        state["random"] = random_states[processes.rank()]
    else:
        print(
            f"{path} comes from {len(random_states)} processes, and this run has "
            f"{processes.world_size()}: its random numbers are other ones from here on."
        )
        del state["random"]
    processes.unwrap(history.model).load_state_dict(state["model"])
    history.restore(state | {"model": history.model.state_dict()})
    return True


def check_same_run(path, state, history, settings):
    """Refuse what belongs to another training run, before anything is changed."""
    if not isinstance(state, dict) or "kinds" not in state:
        raise ValueError(f"{path} holds no training run that can go on; it was not changed")
    if state["version"] != VERSION:
        raise ValueError(
            f"{path} was written by another version of this course ({state['version']}, "
            f"now {VERSION}): start over with another file name"
        )
    kinds = get_kinds(history)
    if state["kinds"]["network"] != kinds["network"]:
        raise ValueError(
            f"{path} belongs to the network {state['kinds']['network']}, not {kinds['network']}"
        )
    if get_shapes(state["model"]) != get_shapes(processes.unwrap(history.model).state_dict()):
        name = kinds["network"]
        raise ValueError(f"the weights in {path} do not fit this {name}: its layers differ in size")
    before = {**state["kinds"], **state["start"], "the settings": state["settings"]}
    now = {**kinds, **to_plain_numbers(history.start), "the settings": settings}
    difference = find_difference(before, now)
    if difference:
        raise ValueError(
            f"{path} belongs to a training run with {difference}: delete it to start over, choose "
            "another file, or make network, optimizer and schedule anew with the same settings "
            "(EPOCHS and SMOKE_TEST count, too)"
        )


def get_kinds(history):
    """The names of the classes of a run's network, optimizer and schedule."""
    return {
        "network": type(processes.unwrap(history.model)).__name__,
        "the optimizer": type(history.optimizer).__name__,
        "the schedule": type(history.scheduler).__name__,
    }


def find_difference(before, now, name=""):
    """Say what differs first in two nests; a setting that only one has is a new one of PyTorch."""
    if has_names(before) and has_names(now):
        parts = [(before[part], now[part], part) for part in before if part in now]
    elif is_list(before) and is_list(now) and len(before) == len(now):
        parts = [(old, new, name) for old, new in zip(before, now)]
    else:
        parts = []
        if not is_same(before, now):
            return f"{name} {before} instead of {now}"
    for old, new, part in parts:
        difference = find_difference(old, new, part)
        if difference:
            return difference
    return ""


def has_names(value):
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def is_list(value):
    return isinstance(value, (list, tuple))


def is_same(before, now):
    if isinstance(before, torch.Tensor) and isinstance(now, torch.Tensor):
        return torch.equal(before.cpu(), now.cpu())
    return before == now


def to_plain_numbers(value):
    """The same with NumPy's numbers as Python's: NumPy's would not be read again."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is dict:
        return {name: to_plain_numbers(part) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(to_plain_numbers(part) for part in value)
    return value
