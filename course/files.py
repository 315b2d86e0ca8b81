"""Replace files in one step: whatever happens, the old file or the new one is there, and complete."""

import contextlib
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_owners = {}  # for each file that this process owns: its lock, and the newest block that took it


@contextlib.contextmanager
def replacing(path):
    """Open a new file for bytes; it replaces `path` when the block ends without an error."""
    path = Path(path)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(fresh, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()


def write_text(path, text):
    """Replace a text file in one step."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


@contextlib.contextmanager
def owning(path):
    """Keep other processes from writing a file until the block ends; refuse it if one of them owns it.

    Within one process the last block counts: a notebook may run a loop again that was interrupted.
    The block gets a function that says whether it is still the last one.
    """
    path, block = Path(path).absolute(), object()
    lock, _ = _owners.get(path, (None, None))
    _owners[path] = lock or _lock(path), block

    def is_last():
        return _owners.get(path, (None, None))[1] is block

    try:
        yield is_last
    finally:
        if is_last():
            lock, _ = _owners.pop(path)
            if lock:
                Path(lock.name).unlink(missing_ok=True)
                lock.close()


def _lock(path):
    """An open file that stands for `path`, locked; None where files cannot be locked."""
    if fcntl is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path.with_name(f".{path.name}.lock"), "w")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"another process is writing {path}: wait for it, or choose another file") from None
    except OSError:  # a read-only folder, a file system without locks
        return None
    return file
