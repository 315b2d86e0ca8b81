"""Each lesson's first cell, away from the course. A repository on disk stands in for GitHub."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import LESSONS, PATIENCE, ROOT, code_cells, each_lesson, environment, read

import course


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A bare repository with the course's files."""
    place = tmp_path_factory.mktemp("origin")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "course", place / "work" / "course", ignore=ignored)
    for name in ["model.py", "utils.py"]:
        shutil.copy(ROOT / name, place / "work")
    for command in ["init --quiet", "add .", "-c user.name=a -c user.email=b commit -qm c"]:
        subprocess.run(["git", *command.split()], cwd=place / "work", check=True)
    subprocess.run(["git", "clone", "-q", "--bare", "work", "course.git"], cwd=place, check=True)
    return place / "course.git"


@pytest.fixture
def folder(tmp_path):
    """An empty folder, as Colab begins with."""
    (tmp_path / "content").mkdir()
    return tmp_path / "content"


@pytest.fixture
def run_first_cell(folder):
    """Runs the cell in a Python of its own, while git takes `origin` for GitHub."""

    def run(lesson, origin="/nowhere", missing=(), **settings):
        cell = code_cells(read(lesson))[0].source
        redirection = {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{Path(origin).as_uri()}.insteadOf",
            "GIT_CONFIG_VALUE_0": re.search(r"https://github.com/\S+", cell)[0],
            "PYTHONPATH": "",
        }
        program = ROOT / "tests" / "programs" / "first_cell.py"
        shutil.copy(program, folder / "notebook.py")  # the folder is the first place to look in
        done = subprocess.run(
            [sys.executable, "notebook.py", cell, json.dumps(list(missing))],
            cwd=folder,
            env=environment(**redirection | settings),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        asked, heavy, places = json.loads(done.stdout.splitlines()[-1])
        assert heavy == [], "Colab's own libraries are not touched"
        return asked, places

    return run


def test_all_lessons_begin_with_the_same_short_cell():
    (first,) = {code_cells(read(lesson))[0].source for lesson in LESSONS}
    assert len(first.splitlines()) < 16
    assert "--depth 1" in first and "GIT_TERMINAL_PROMPT=0" in first, "git asks no questions"


def test_the_course_arrives_and_missing_packages_are_installed_once(run_first_cell, folder, origin):
    (folder / "course").mkdir()  # happens to be called so, but is not the course
    missing = course.SMALL_PACKAGES[:3]
    asked, places = run_first_cell("S5", origin, missing)
    assert asked == [["-m", "pip", "install", "--quiet", "--no-deps", *missing]]
    clone = folder / "mnist-course"
    assert places["course"] == str(clone / "course" / "__init__.py")
    assert (clone / "utils.py").read_bytes() == (ROOT / "utils.py").read_bytes()
    again, same_places = run_first_cell("S5")
    assert again == [] and same_places == places, "after a restart, what is there is used"


def test_a_learners_own_files_win(run_first_cell, folder, origin):
    (folder / "model.py").write_text("# mine")
    _, places = run_first_cell("S5", origin)
    assert places["model"] == str(folder / "model.py")
    assert places["utils"] == str(folder / "mnist-course" / "utils.py")


def test_without_an_origin_git_says_why(run_first_cell):
    with pytest.raises(RuntimeError) as error:
        run_first_cell("S5")
    assert "'/nowhere' does not appear to be a git repository" in str(error.value)
    assert "No module named 'course'" in str(error.value)


@each_lesson
def test_beside_the_course_it_does_nothing(lesson, run_first_cell, folder):
    asked, places = run_first_cell(lesson, PYTHONPATH=str(ROOT))
    assert asked == [] and places["course"] == str(ROOT / "course" / "__init__.py")
    assert [path.name for path in folder.iterdir()] == ["notebook.py"]


def test_packages_that_cannot_be_installed_are_named(monkeypatch):
    monkeypatch.setattr(course, "SMALL_PACKAGES", ["no_such_package_1", "no_such_package_2"])
    monkeypatch.setattr(subprocess, "run", lambda command: subprocess.CompletedProcess(command, 1))
    with pytest.raises(ImportError, match="run `pip install no_such_package_1 no_such_package_2`"):
        course.install_missing()
