"""Imports run one way: notebooks, train.py, tools, benchmarks, website → course → utils, model."""

import subprocess
import sys

import pytest
from helpers import ROOT

WRONG = {
    "utils.py": ["import model", "from course import files"],
    "model.py": ["from utils import device", "import benchmarks.report"],
    "course/insight.py": ["import train", "import website.build"],
    "course/widgets/pad/__init__.py": ["from tools import publish"],
    "course/exercises/lesson5.py": ["from benchmarks.report import read"],
}
RIGHT = {
    "course/insight.py": ["from utils import show_figure"],
    "course/widgets/pad/__init__.py": ["import model"],
    "train.py": ["from course import processes"],
    "benchmarks/speed.py": ["from course.recipes import RECIPES"],
    "tools/publish.py": ["from course.files import write_text"],
    "website/build.py": ["from benchmarks import report"],
}


@pytest.mark.parametrize(("path", "lines"), WRONG.items(), ids=WRONG)
def test_wrong_imports_are_found(path, lines):
    assert complaints(path, lines) == len(lines)


@pytest.mark.parametrize(("path", "lines"), RIGHT.items(), ids=RIGHT)
def test_right_imports_are_not(path, lines):
    assert complaints(path, lines) == 0


def complaints(path, lines):
    """How many imports ruff, with the course's settings, refuses in such a file."""
    command = ["ruff", "check", "--select", "TID251", "--stdin-filename", path, "-"]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
    )
    return done.stdout.count("TID251")
