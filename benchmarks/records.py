"""Results as JSON files: what was measured, with which recipe, on which machine."""

import json
import os
import platform
import sys
from pathlib import Path

import torch
import torchvision

from course.files import write_text


def versions():
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }


def machine(device="cpu"):
    """The processor, and the accelerator if one was used."""
    found = {
        "system": platform.system(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if torch.device(device).type == "cuda":
        found["accelerator"] = torch.cuda.get_device_name(device)
    return found


def processor():
    """The name of the processor; on Linux, Python does not know it."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def load(path, identity):
    """The record in the file `path` if it was made under the same conditions, else a fresh one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return identity | {"runs": []}
    except ValueError as error:
        sys.exit(f"{path} is not whole JSON ({error}): move it away to start over")
    for name, now in identity.items():
        there = record.get(name)
        if there != now:
            sys.exit(
                f"{path} holds runs with another {name}:\n  there: {there}\n  now:   {now}\n"
                "Move the file away to start over, or name another folder with --out."
            )
    return record


def save(path, record):
    """Replace the file in one step."""
    write_text(path, json.dumps(record, indent=1) + "\n")
