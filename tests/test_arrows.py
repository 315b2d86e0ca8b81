"""Imports run one way: notebooks, train.py, tools and benchmarks -> course -> utils.py, model.py."""

import subprocess
import sys

import pytest
from helpers import HERE


def complaints(path, line):
    """What ruff, with the course's settings, says about the imports of a file that consists of this line."""
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--select",
        "TID251",
        "--stdin-filename",
        path,
        "-",
    ]
    return subprocess.run(
        command, cwd=HERE, input=line + "\n", capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("utils.py", "import model"),
        ("utils.py", "from course import files"),
        ("model.py", "from utils import device"),
        ("model.py", "import benchmarks.report"),
        ("course/insight.py", "import train"),
        ("course/widgets/pad/__init__.py", "from tools import publish"),
        ("course/exercises/lesson5.py", "from benchmarks.report import read"),
    ],
)
def test_wrong_imports_are_found(path, line):
    assert "TID251" in complaints(path, line)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("course/insight.py", "from utils import show_figure"),
        ("course/widgets/pad/__init__.py", "import model"),
        ("train.py", "from course import processes"),
        ("benchmarks/speed.py", "from course.recipes import RECIPES"),
        ("tools/publish.py", "from course.files import write_text"),
    ],
)
def test_right_imports_are_not(path, line):
    assert "TID251" not in complaints(path, line)
