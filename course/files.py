"""Files that are replaced in one step: whatever happens, there is the old one or the new one."""

import contextlib
import os
from pathlib import Path


@contextlib.contextmanager
def replacing(path):
    """Open a file to write bytes to; it takes the place of `path` once the block has ended well."""
    path = Path(path)
    fresh = path.with_name(path.name + ".tmp")
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
