"""The first cell of each lesson in something like Colab: a stand-in module, and a git origin on this disk."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_notebooks import HERE, LESSONS, code_cells, each_lesson, read

SMALL = {"S5": ["torchsummary", "mlxtend"], "S6": ["torchsummary", "mlxtend", "anywidget", "psygnal"]}
HELPERS = {"S5": ["model.py", "utils.py", "insight.py", "exercises.py"]}
HELPERS["S6"] = [*HELPERS["S5"], "measurements.py", "digitpad.py"]
FOLDERS = {"S5": [], "S6": ["checkpoints", "benchmarks/results"]}

COLAB = """
import importlib.util, json, subprocess, sys, types

cell, runs, missing, is_colab = json.loads(sys.argv[1])
if is_colab:
    sys.modules["google.colab"] = types.ModuleType("google.colab")
really_run, really_find, commands = subprocess.run, importlib.util.find_spec, []


def run(command, **keywords):
    commands.append(command)
    if command[0] == "git":
        return really_run(command, **keywords)
    missing.clear()  # pip has installed them


subprocess.run = run
importlib.util.find_spec = lambda name: None if name in missing else really_find("json")
for _ in range(runs):
    commands.append("cell")
    exec(cell, {})
heavy = [name for name in ("torch", "torchvision", "numpy") if name in sys.modules]
print(json.dumps([commands, heavy]))
"""


@pytest.fixture
def content(tmp_path):
    """An empty folder but for the notebooks."""
    folder = tmp_path / "content"
    folder.mkdir()
    for lesson in LESSONS:
        shutil.copy(HERE / f"{lesson}.ipynb", folder)
    return folder


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A bare repository with the course's files."""
    place = tmp_path_factory.mktemp("origin")
    (place / "work").mkdir()
    for name in HELPERS["S6"]:
        shutil.copy(HERE / name, place / "work")
    for name in FOLDERS["S6"]:
        shutil.copytree(HERE / name, place / "work" / name)
    for command in ["init --quiet", "add .", "-c user.name=a -c user.email=b commit --quiet -m c"]:
        subprocess.run(["git", *command.split()], cwd=place / "work", check=True)
    subprocess.run(["git", "clone", "--quiet", "--bare", "work", "course.git"], cwd=place, check=True)
    return place / "course.git"


def run_first_cell(lesson, folder, origin, runs=1, missing=(), is_colab=True):
    """Run the cell as it is saved, while git takes `origin` for the address on the web."""
    cell = code_cells(read(lesson))[0].source
    redirection = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{Path(origin).as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": cell.split('REPOSITORY = "')[1].split('"')[0],
        "GIT_TERMINAL_PROMPT": "0",
    }
    question = json.dumps([cell, runs, list(missing), is_colab])
    done = subprocess.run(
        [sys.executable, "-c", COLAB, question],
        cwd=folder,
        env=os.environ | redirection,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    commands, heavy = json.loads(done.stdout)
    assert heavy == [], "Colab's own libraries are not touched"
    return commands


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@each_lesson
def test_helpers_arrive_and_missing_packages_are_named_once(lesson, content, origin):
    first, clone, pip, second = run_first_cell(lesson, content, origin, 2, SMALL[lesson])
    assert (first, second) == ("cell", "cell"), "the second run must do nothing"
    assert clone[:2] == ["git", "clone"]
    assert pip[1:] == ["-m", "pip", "install", "--quiet", "--no-deps", *SMALL[lesson]]
    for name in HELPERS[lesson]:
        assert (content / name).read_bytes() == (HERE / name).read_bytes()
    for name in FOLDERS[lesson]:
        assert files_of(content / name) == files_of(HERE / name)
    assert run_first_cell(lesson, content, origin) == ["cell"], "nor must it after a restart"


@each_lesson
def test_all_that_the_lesson_imports_arrives(lesson, content, origin):
    run_first_cell(lesson, content, origin)
    sources = "\n".join(cell.source for cell in code_cells(read(lesson)))
    own = {path.stem for path in HERE.glob("*.py")}
    used = {name for name in own if f"import {name}" in sources or f"from {name} import" in sources}
    assert used and used <= {path.stem for path in content.glob("*.py")}


@each_lesson
def test_a_learners_own_files_are_left_alone(lesson, content, origin):
    (content / "model.py").write_text("# mine")
    run_first_cell(lesson, content, origin)
    assert (content / "model.py").read_text() == "# mine" and (content / "insight.py").exists()


@each_lesson
def test_an_interrupted_start_is_taken_up_again(lesson, content, origin):
    (content / "course").mkdir()
    (content / "course" / "half").touch()
    run_first_cell(lesson, content, origin)
    assert (content / "utils.py").read_bytes() == (HERE / "utils.py").read_bytes()


@each_lesson
def test_without_an_origin_it_asks_for_an_upload(lesson, content, tmp_path):
    with pytest.raises(RuntimeError) as error:
        run_first_cell(lesson, content, tmp_path / "nowhere")
    last = str(error.value).strip().splitlines()[-1]
    assert last.startswith("FileNotFoundError: https://github.com/")
    assert f"is out of reach: please upload {', '.join(HELPERS[lesson])}" in last


@each_lesson
def test_outside_colab_it_does_nothing(lesson, content, tmp_path):
    nothing = run_first_cell(lesson, content, tmp_path / "nowhere", missing=SMALL[lesson], is_colab=False)
    assert nothing == ["cell"] and not (content / "utils.py").exists()
