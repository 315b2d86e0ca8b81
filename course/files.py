"""Replace files in one step: whatever happens, the old or the new one is there, and complete."""

import contextlib
import os
import shutil
from pathlib import Path


@contextlib.contextmanager
def replacing(path):
    """Open a new file for bytes; it replaces `path` when the block ends without an error."""
    path = Path(path).resolve()  # a link stays a link
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(fresh, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, fresh)
        os.replace(fresh, path)
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()


def write_text(path, text):
    """Replace a text file in one step."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))
