"""The first cell of each lesson, away from the course's folder; a git origin on disk stands in for GitHub."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import HERE, LESSONS, code_cells, each_lesson, read

import course

DRIVER = """
import importlib.util, json, os, subprocess, sys

cell, missing = json.loads(sys.argv[1])
really_find, really_system, commands = importlib.util.find_spec, os.system, []


def system(command):
    commands.append(command)
    return really_system(command)


def run(command):
    commands.append(command)
    missing.clear()  # pip has installed them
    return subprocess.CompletedProcess(command, 0)


importlib.util.find_spec = lambda name: None if name in missing else really_find(name)
os.system, subprocess.run = system, run
for _ in range(2):
    exec(cell, {})
heavy = [name for name in ("torch", "torchvision", "numpy") if name in sys.modules]
places = {name: really_find(name).origin for name in ["course", "model", "utils"]}
print(json.dumps([commands, heavy, places]))
"""


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A bare repository with the course's files, and its first cell leading to it."""
    place = tmp_path_factory.mktemp("origin")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(HERE / "course", place / "work" / "course", ignore=ignored)
    for name in ["model.py", "utils.py"]:
        shutil.copy(HERE / name, place / "work")
    for command in ["init --quiet", "add .", "-c user.name=a -c user.email=b commit --quiet -m c"]:
        subprocess.run(["git", *command.split()], cwd=place / "work", check=True)
    subprocess.run(
        ["git", "clone", "--quiet", "--bare", "work", "course.git"], cwd=place, check=True
    )
    return place / "course.git"


@pytest.fixture
def run_first_cell(tmp_path):
    """Runs the cell twice in an empty folder, in a Python of its own, while git takes `origin` for GitHub."""
    folder = tmp_path / "content"
    folder.mkdir()

    def run(lesson, origin, missing=(), **settings):
        cell = code_cells(read(lesson))[0].source
        redirection = {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{Path(origin).as_uri()}.insteadOf",
            "GIT_CONFIG_VALUE_0": cell.split('COURSE = "')[1].split('"')[0],
            "GIT_TERMINAL_PROMPT": "0",
        }
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, json.dumps([cell, list(missing)])],
            cwd=folder,
            env=os.environ | redirection | settings,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        commands, heavy, places = json.loads(done.stdout)
        assert heavy == [], "Colab's own libraries are not touched"
        return commands, places

    run.folder = folder
    return run


def test_both_lessons_begin_with_the_same_cell():
    first, second = (code_cells(read(lesson))[0].source for lesson in LESSONS)
    assert first == second


@each_lesson
def test_the_course_arrives_and_missing_packages_are_installed_once(lesson, run_first_cell, origin):
    missing = course.SMALL_PACKAGES[:3]
    (clone, pip), places = run_first_cell(lesson, origin, missing)
    assert clone.startswith("git clone ")
    assert pip[1:] == ["-m", "pip", "install", "--quiet", "--no-deps", *missing]
    clone = run_first_cell.folder / "mnist-course"
    assert places["course"] == str(clone / "course" / "__init__.py")
    assert (clone / "utils.py").read_bytes() == (HERE / "utils.py").read_bytes()
    again, same_places = run_first_cell(lesson, "/nowhere")
    assert again == [] and same_places == places, "after a restart, what is there is used"


def test_a_learners_own_files_win(run_first_cell, origin):
    (run_first_cell.folder / "model.py").write_text("# mine")
    _, places = run_first_cell("S5", origin)
    assert places["model"] == str(run_first_cell.folder / "model.py")
    assert places["utils"] == str(run_first_cell.folder / "mnist-course" / "utils.py")


def test_a_folder_that_happens_to_be_called_course_is_not_the_course(run_first_cell, origin):
    (run_first_cell.folder / "course").mkdir()
    _, places = run_first_cell("S5", origin)
    assert places["course"] == str(
        run_first_cell.folder / "mnist-course" / "course" / "__init__.py"
    )


@pytest.mark.parametrize("half_a_clone", [False, True])
def test_without_an_origin_it_says_what_to_upload(run_first_cell, half_a_clone):
    if half_a_clone:
        (run_first_cell.folder / "mnist-course" / "course").mkdir(parents=True)
    with pytest.raises(RuntimeError) as error:
        run_first_cell("S5", "/nowhere")
    assert str(error.value).startswith("FileNotFoundError: https://github.com/")
    assert "cannot be cloned to mnist-course: upload all of its files there" in str(error.value)


def test_files_that_were_uploaded_are_used(run_first_cell):
    folder = run_first_cell.folder / "mnist-course"
    shutil.copytree(HERE / "course", folder / "course")
    for name in ["model.py", "utils.py"]:
        shutil.copy(HERE / name, folder)
    commands, places = run_first_cell("S5", "/nowhere")
    assert commands == [] and places["utils"] == str(folder / "utils.py")


@each_lesson
def test_beside_the_course_it_does_nothing(lesson, run_first_cell):
    commands, places = run_first_cell(lesson, "/nowhere", PYTHONPATH=str(HERE))
    assert commands == [] and places["course"] == str(HERE / "course" / "__init__.py")
    assert not list(run_first_cell.folder.iterdir())


def test_packages_that_cannot_be_installed_are_named(monkeypatch):
    monkeypatch.setattr(course, "SMALL_PACKAGES", ["no_such_package_1", "no_such_package_2"])
    monkeypatch.setattr(subprocess, "run", lambda command: subprocess.CompletedProcess(command, 1))
    with pytest.raises(ImportError, match="run `pip install no_such_package_1 no_such_package_2`"):
        course.install_missing()
