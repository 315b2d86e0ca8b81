"""The Makefile and .ci/run: what they delete, compare, skip and say; stubs stand for programs."""

import os
import re
import shutil
import subprocess
import time

import pytest
from helpers import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")

STUB = """\
#!/bin/sh
echo "$(basename "$0") $* SMOKE_TEST=$SMOKE_TEST" >> "{log}"
case "$*" in *"$FAIL"*) exit "${{FAIL:+1}}" ;; esac
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with the Makefile, and environments that are ready but hold only stubs."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    old = time.time() - 1000
    for name in ["requirements.txt", "requirements-test.txt", "website/requirements.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (old, old))
    shutil.copy(ROOT / "website" / "package.json", tmp_path / "website")
    os.utime(tmp_path / "website" / "package.json", (old, old))
    for program in [".venv/bin/python", ".venv/bin/zizmor", ".venv-site/bin/python"]:
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STUB.format(log=tmp_path / "log"))
        path.chmod(0o755)
    for ready in [".venv/ready", ".venv/ready-to-test", ".venv-site/ready"]:
        (tmp_path / ready).touch()
    return tmp_path


def make(folder, *arguments, **settings):
    """Run make; return whether it succeeded, and the programs that it called."""
    environment = os.environ | {"SMOKE_TEST": "", "FAIL": "nothing fails"} | settings
    done = subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True)
    log = folder / "log"
    calls = log.read_text().splitlines() if log.exists() else []
    return done.returncode == 0, calls


def test_help_lists_every_command(folder):
    done = subprocess.run(["make", "-s", "help"], cwd=folder, capture_output=True, text=True)
    said = dict(re.findall(r"^make (\S+) +(\S.*)$", done.stdout, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    assert list(said) == commands
    assert said["lab"] == "open the course in JupyterLab"


def test_clean_keeps_digits_and_trained_networks(folder):
    kept = ["data/MNIST/raw/digits", "runs/Net.pt", "S5.ipynb"]
    removed = ["runs/S5.ipynb", "runs/browser/a.png", "site/index.html", ".ruff_cache/a"]
    for name in [*kept, *removed]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    assert make(folder, "clean")[0]
    assert all((folder / name).exists() for name in kept)
    assert not any((folder / name).exists() for name in [*removed, ".venv", ".venv-site"])


def test_notebooks_are_replaced_by_one_command_only(folder):
    assert make(folder, "run")[1] == ["python -m tools.run_lessons SMOKE_TEST="]
    (folder / "log").unlink()
    assert make(folder, "notebooks")[1] == ["python -m tools.run_lessons --in-place SMOKE_TEST="]


def test_all_checks_run_and_nbval_compares_lessons_and_solutions(folder):
    succeeded, calls = make(folder, "test")
    assert succeeded
    programs = [re.match(r"(python -m )?([\w-]+)", call)[2] for call in calls]
    assert programs == ["ruff", "ruff", "ruff", "ruff", "zizmor", "pytest", "pytest"]
    assert calls[-2] == "python -m pytest tests SMOKE_TEST="
    assert calls[-1].endswith("--nbval-current-env -o testpaths=S*.ipynb solutions SMOKE_TEST=1")
    assert "--nbval-lax" in calls[-1]


@pytest.mark.parametrize("check", ["ruff check", "ruff format", "offline", "tests", "nbval-lax"])
def test_whatever_fails_the_test_fails(folder, check):
    """Also a unit test; the notebooks run all the same."""
    succeeded, calls = make(folder, "test", FAIL=check)
    assert not succeeded
    if check == "tests":
        assert "nbval" in calls[-1]


def test_continuous_integration_runs_both_tests_and_stops_at_a_failure(folder):
    (folder / "bin").mkdir()
    stub = folder / "bin" / "make"
    stub.write_text(STUB.format(log=folder / "log"))
    stub.chmod(0o755)
    path = f"{stub.parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "SMOKE_TEST": ""}
    for failing, calls in [("nothing", ["test", "test-browser"]), ("test", ["test"])]:
        done = subprocess.run(["bash", ".ci/run"], cwd=folder, env=environment | {"FAIL": failing})
        log = (folder / "log").read_text().splitlines()
        assert log == [f"make {call} SMOKE_TEST=" for call in calls]
        assert (done.returncode == 0) == (failing == "nothing")
        (folder / "log").unlink()


@pytest.mark.parametrize(("locked", "name"), [("", "requirements-test.txt"), ("1", ".lock")])
def test_packages_come_from_the_ranges_or_from_the_lock(folder, locked, name):
    (folder / ".venv" / "ready-to-test").unlink()
    shutil.copy(shutil.which("true"), folder / "npm")
    settings = {"LOCKED": locked, "PATH": f"{folder}{os.pathsep}/usr/bin:/bin"}
    calls = make(folder, ".venv/ready-to-test", **settings)[1]
    assert [call.split()[-2] for call in calls if "install" in call][0].endswith(name)


def test_the_lock_names_versions_with_hashes_and_no_places():
    for path, top in [
        ("requirements.lock", "requirements-test.txt"),
        ("website/requirements.lock", "website/requirements.txt"),
    ]:
        text = (ROOT / path).read_text(encoding="utf-8")
        pins = re.findall(
            r"^([\w.-]+)==\S+[^\n]* \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE
        )
        assert len(pins) == len(re.findall(r"^\w", text, re.MULTILINE)), "each has a hash"
        assert "://" not in text and "index" not in text.split("\n\n")[0]
        wanted = re.findall(r"^\w[\w-]*", (ROOT / top).read_text(encoding="utf-8"), re.MULTILINE)
        assert set(wanted) <= set(pins)
