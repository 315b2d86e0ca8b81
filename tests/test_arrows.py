"""Imports run one way: notebooks, train.py, tools, benchmarks, website → course → utils, model."""

import re
import subprocess
import sys

import pytest
from helpers import ROOT

LINES = {  # by file: imports that ruff, with the course's settings, refuses, and one that it allows
    "utils.py": (["import model", "from course import files"], "import torch"),
    "model.py": (["from utils import device", "import benchmarks.report"], "import torch"),
    "course/insight.py": (["import train", "import website.build"], "from utils import device"),
    "course/widgets/pad/__init__.py": (["from tools import publish"], "import model"),
    "course/exercises/lesson5.py": (["from benchmarks.report import read"], "import utils"),
    "train.py": ([], "from course import processes"),
    "benchmarks/speed.py": ([], "from course.recipes import RECIPES"),
    "tools/publish.py": ([], "from course.files import write_text"),
    "website/build.py": ([], "from benchmarks import report"),
}


@pytest.mark.parametrize("path", LINES)
def test_wrong_imports_are_found_and_right_ones_are_not(path):
    wrong, right = LINES[path]
    command = ["ruff", "check", "--select", "TID251", "--output-format", "concise"]
    done = subprocess.run(
        [sys.executable, "-m", *command, "--stdin-filename", path, "-"],
        cwd=ROOT,
        input="\n".join([*wrong, right]),
        capture_output=True,
        text=True,
    )
    refused = re.findall(r":(\d+):\d+: TID251", done.stdout)
    assert refused == [str(number + 1) for number in range(len(wrong))]
