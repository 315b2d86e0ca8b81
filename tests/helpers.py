"""What several test files share: places, notebooks as data, small networks and loaders."""

import functools
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset

import course
import utils

ROOT = Path(__file__).resolve().parent.parent  # of the repository
HERE = ROOT  # its older name
LESSONS = list(course.LESSONS)
PATIENCE = 900  # seconds until a process counts as stuck: a busy machine must not fail a test
each_lesson = pytest.mark.parametrize("lesson", LESSONS)

# --- Notebooks ----------------------------------------------------------------------------------


def read(lesson):
    return nbformat.read(HERE / f"{lesson}.ipynb", as_version=4)


def solutions(lesson):
    return nbformat.read(HERE / "solutions" / f"{lesson}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag):
    return [cell for cell in code_cells(notebook) if tag in cell.metadata.get("tags", [])]


def printed(notebook):
    """All that the saved notebook printed to stdout."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def results(notebook):
    """The lines of the saved table of results, split into words, by network."""
    lines = re.split(r"^network +parameters", printed(notebook), flags=re.MULTILINE)[
        -1
    ].splitlines()[1:]
    words = [line.split() for line in lines]
    return {line[0]: line[1:] for line in words if len(line) == 7 and line[5] == "%"}


# --- Data, networks, processes ------------------------------------------------------------------


@functools.lru_cache
def mnist_is_here():
    """Whether the real MNIST is there (MNIST_ROOT names another folder than data)."""
    return utils.is_complete(Path(utils.get_root(), "MNIST", "raw"))


def needs_mnist(test):
    return pytest.mark.skipif(not mnist_is_here(), reason="needs the real MNIST (MNIST_ROOT)")(test)


class Linear(nn.Module):
    """The smallest network for digits."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(784, 10)

    def forward(self, x):
        return F.log_softmax(self.fc(x.flatten(1)), dim=1)


def mnist_files(train=30, test=20):
    """Random digits in MNIST's files: their contents by name."""
    files = {}
    for part, size in [("train", train), ("t10k", test)]:
        images = torch.randint(0, 256, (size, 28, 28), dtype=torch.uint8).numpy().tobytes()
        labels = (torch.arange(size) % 10).to(torch.uint8).numpy().tobytes()
        files[f"{part}-images-idx3-ubyte"] = struct.pack(">4i", 2051, size, 28, 28) + images
        files[f"{part}-labels-idx1-ubyte"] = struct.pack(">2i", 2049, size) + labels
    return files


def sgd(model, rate=0.01):
    return optim.SGD(model.parameters(), lr=rate)


def uneven_loader(size=25, batch_size=10):
    """Batches of 10, 10 and 5, the last much harder than the others."""
    images, labels = torch.randn(size, 1, 28, 28), torch.arange(size) % 10
    images[20:] *= 20
    return DataLoader(TensorDataset(images, labels), batch_size)


def same(a, b):
    """Whether two nests of dictionaries, lists and tensors are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return a == b


def environment(**settings):
    """The environment of a process that imports the course, wherever it is started."""
    return os.environ | {"PYTHONPATH": str(HERE)} | settings


def run_python(*arguments, cwd=HERE, **settings):
    """Run Python in a process of its own; return what it printed to stdout."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def torchrun(*arguments, **settings):
    """Start a script in two processes that train together."""
    command = f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node 2".split()
    command.append("--local-addr=localhost")  # the machine's own name may lead nowhere
    return subprocess.Popen(
        [*command, *arguments],
        env=environment(OMP_NUM_THREADS="1", DEVICE="cpu", **settings),
        cwd=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())
