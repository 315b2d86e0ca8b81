"""Save a training run to a file after each epoch, and continue from there after an interruption.

In a notebook, `for _ in kept(history, 20, "S5.pt"):` replaces `for _ in history.epochs(20):`.
"""

import contextlib
import os
import random
from pathlib import Path

import numpy as np
import torch

from course import processes
from course.files import owning, replacing
from utils import read_safely

VERSION = 1
# What changes from step to step in PyTorch's schedulers; all else is a setting.
CHANGING = "last_epoch _step_count _last_lr T_cur T_i best num_bad_epochs cooldown_counter".split()
CHANGING += ["_is_initial", "_get_lr_called_within_step"]


def seed_everything(seed, deterministic=False):
    """Seed Python's and PyTorch's random numbers; `deterministic` makes a GPU exact, but slower."""
    random.seed(seed)
    torch.manual_seed(seed)  # on every device
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or PyTorch refuses
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(deterministic)


def kept(history, total, path, settings=None):
    """Like `history.epochs(total)`, but the run is saved after each epoch, and continued from the file.

    `settings` says in words what else the run depends on; a file that was written with others is refused.
    """
    path = Path(path).expanduser()
    with owning(path) if processes.is_first() else contextlib.nullcontext(lambda: True) as is_mine:
        is_saved = load(path, history, settings)
        if is_saved:
            outlook = "continuing from there" if history.done < total else "nothing is left to do"
            print(f"{path} holds {history.done} of {total} epochs: {outlook}.")
        for epoch in history.epochs(total):  # this has undone an epoch that was interrupted
            if not is_saved:
                save(path, history, settings)  # a file that cannot be written is noticed now
                is_saved = True
            try:
                yield epoch
            finally:  # also if the loop is left with `break`
                if history.done == epoch and is_mine():
                    save(path, history, settings)
        if not is_saved:  # all epochs were over before
            save(path, history, settings)


def save(path, history, settings=None):
    """Save the run as it is now; the file is replaced in one step."""
    network, scheduler = processes.unwrapped(history.model), history.scheduler
    state = {
        "version": VERSION,
        "network": type(network).__name__,
        "model": network.state_dict(),
        "optimizer": type(history.optimizer).__name__,
        "optimizer_state": _plain(history.optimizer.state_dict()),
        "scheduler": _plain(scheduler.state_dict()) if scheduler else None,
        "settings": settings,
        "curves": history.curves,
        "seconds": history.seconds,
        "random": processes.from_all(_random_state()),
    }
    if not processes.is_first():
        return
    try:
        with replacing(path) as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        has_no_place = isinstance(
            error, (FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError)
        )
        remedy = "choose another file" if has_no_place else "free some space or choose another file"
        before = "; what was there before is unchanged" if Path(path).is_file() else ""
        reason = str(error).splitlines()[0]
        raise OSError(f"the checkpoint {path} could not be written ({reason}): {remedy}{before}") from error


def load(path, history, settings=None):
    """Restore what `save` wrote; return False if there is no such file."""
    found = processes.is_first() and Path(path).exists()  # other machines may not have the file
    found, state = processes.from_all((found, read_safely(path) if found else None))[0]
    if not found:
        return False
    network, optimizer, scheduler = processes.unwrapped(history.model), history.optimizer, history.scheduler
    _check(path, state, network, optimizer, scheduler, settings)
    network.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer_state"])
    if scheduler:
        scheduler.load_state_dict(state["scheduler"])
    history.curves, history.seconds = state["curves"], state["seconds"]
    history._before = []  # an epoch that was interrupted before this is not the file's
    if len(state["random"]) == processes.count():
        _set_random_state(state["random"][processes.number()])
    return True


def _check(path, state, network, optimizer, scheduler, settings):
    """Refuse what belongs to another training run, before anything is changed."""
    if not isinstance(state, dict) or "random" not in state:
        raise ValueError(f"{path} holds no training run to continue; it was not changed")
    if state["version"] != VERSION:
        raise ValueError(
            f"{path} was written by another version of this course ({state['version']}, now {VERSION}): "
            "start over with another file name"
        )
    name = type(network).__name__
    if state["network"] != name:
        raise ValueError(f"{path} belongs to the network {state['network']}, not {name}")
    if _shapes(state["model"]) != _shapes(network.state_dict()):
        raise ValueError(f"the weights in {path} do not fit this {name}: its layers have other sizes")
    if difference := next(_differences(state, optimizer, scheduler, settings), None):
        raise ValueError(
            f"{path} belongs to a training run with {difference}: "
            "delete it to start over, choose another file, or use the same settings"
        )


def _differences(state, optimizer, scheduler, settings):
    """What is set otherwise in the file than now, of all that stays the same during a training run."""
    if state["optimizer"] != type(optimizer).__name__:
        yield f"the optimizer {state['optimizer']} instead of {type(optimizer).__name__}"
    theirs, ours = state["scheduler"] or {}, _plain(scheduler.state_dict()) if scheduler else {}
    if theirs.keys() != ours.keys():
        yield "another scheduler"
    is_known = type(scheduler).__module__.startswith("torch.")  # of another's we know too little
    pairs = list(_scheduled(theirs, ours)) if is_known else []
    groups = zip(state["optimizer_state"]["param_groups"], _plain(optimizer.state_dict())["param_groups"])
    for old, new in groups:
        changing = ["params"] + ["lr"] * bool(ours) + ["momentum", "betas"] * ("max_momentum" in new)
        pairs += [(name, old[name], new.get(name)) for name in old if name not in changing]
    for name, before, now in pairs:
        if before != now:
            hint = " (see EPOCHS, SMOKE_TEST and the batch size)" if name == "total_steps" else ""
            yield f"{name} {before} instead of {now}{hint}"
    if state.get("settings") not in (None, settings):
        yield f"{state['settings']} instead of {settings}"


def _scheduled(before, now):
    """The settings of a scheduler, and of those that it consists of: (name, before, now)."""
    for name in before:
        if name == "_schedulers":
            for parts in zip(before[name], now[name]):
                yield from _scheduled(*parts)
        elif name not in CHANGING:
            yield name, before[name], now.get(name)


def _plain(value):
    """The same with NumPy's numbers as Python's: `read_safely` refuses NumPy's."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is dict:
        return {name: _plain(part) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value


def _shapes(weights):
    return {name: value.shape for name, value in weights.items()}


def _random_state():
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda, "python": random.getstate()}


def _set_random_state(state):
    random.setstate(state.get("python") or random.getstate())
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
