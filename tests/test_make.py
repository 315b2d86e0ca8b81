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


def write_stub(path, log):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STUB.format(log=log))
    path.chmod(0o755)


@pytest.fixture
def folder(tmp_path):
    """A folder with the Makefile, and environments that are ready but hold only stubs."""
    old = time.time() - 1000
    listed = ["requirements.txt", "requirements-test.txt", "website/requirements.txt"]
    for name in ["Makefile", ".ci/run", "website/package.json", *listed]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
        os.utime(tmp_path / name, (old, old))
    for program in [".venv/bin/python", ".venv/bin/zizmor", ".venv-site/bin/python", "bin/make"]:
        write_stub(tmp_path / program, tmp_path / "log")
    for ready in [".venv/ready", ".venv/ready-to-test", ".venv-site/ready"]:
        (tmp_path / ready).touch()
    return tmp_path


def run(folder, *command, **settings):
    """Run a command; return whether it succeeded, the programs that it called, and its output."""
    log = folder / "log"
    log.unlink(missing_ok=True)
    environment = os.environ | {"SMOKE_TEST": "", "FAIL": "nothing fails"} | settings
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    calls = log.read_text().splitlines() if log.exists() else []
    return done.returncode == 0, calls, done.stdout


def test_help_lists_every_command(folder):
    _, _, output = run(folder, "make", "-s", "help")
    said = dict(re.findall(r"^make (\S+) +(\S.*)$", output, re.MULTILINE))
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
    assert run(folder, "make", "clean")[0]
    assert all((folder / name).exists() for name in kept)
    assert not any((folder / name).exists() for name in [*removed, ".venv", ".venv-site"])


@pytest.mark.parametrize(("target", "option"), [("run", ""), ("notebooks", " --in-place")])
def test_notebooks_are_replaced_by_one_command_only(folder, target, option):
    _, calls, _ = run(folder, "make", target)
    assert calls == [f"python -m tools.run_lessons{option} SMOKE_TEST="]


def test_all_checks_run_and_nbval_compares_lessons_and_solutions(folder):
    succeeded, calls, _ = run(folder, "make", "test")
    assert succeeded
    programs = [re.match(r"(python -m )?([\w-]+)", call)[2] for call in calls]
    assert programs == ["ruff", "ruff", "ruff", "ruff", "zizmor", "pytest", "pytest"]
    assert re.fullmatch(r"python -m pytest -n auto .* tests SMOKE_TEST=", calls[-2])
    assert calls[-1].endswith("--nbval-current-env -o testpaths=S*.ipynb solutions SMOKE_TEST=1")
    assert "--nbval-lax" in calls[-1]


@pytest.mark.parametrize("check", ["ruff check", "ruff format", "offline", "tests", "nbval-lax"])
def test_whatever_fails_the_test_fails(folder, check):
    """Also a unit test; the notebooks run all the same."""
    succeeded, calls, _ = run(folder, "make", "test", FAIL=check)
    assert not succeeded
    assert check != "tests" or "nbval" in calls[-1]


COMMANDS = ["--jobs 2 .venv/ready-to-test .venv-site/ready", "test", "test-browser"]


@pytest.mark.parametrize("failing", [*COMMANDS, "nothing"])
def test_continuous_integration_runs_both_tests_and_stops_at_a_failure(folder, failing):
    stub = folder / "bin" / "make"
    stub.write_text(f'#!/bin/sh\necho "$*" >> {folder}/log\n[ "$*" != "$FAIL" ]\n')
    path = f"{stub.parent}{os.pathsep}{os.environ['PATH']}"
    succeeded, calls, _ = run(folder, "bash", ".ci/run", PATH=path, FAIL=failing)
    stopped_at = COMMANDS.index(failing) if failing in COMMANDS else len(COMMANDS)
    assert (succeeded, calls) == (failing == "nothing", COMMANDS[: stopped_at + 1])


@pytest.mark.parametrize(("locked", "name"), [("", "requirements-test.txt"), ("1", ".lock")])
def test_packages_come_from_the_ranges_or_from_the_lock(folder, locked, name):
    (folder / ".venv" / "ready-to-test").unlink()
    shutil.copy(shutil.which("true"), folder / "npm")
    settings = {"LOCKED": locked, "PATH": f"{folder}{os.pathsep}/usr/bin:/bin"}
    _, calls, _ = run(folder, "make", ".venv/ready-to-test", **settings)
    assert [call.split()[-2] for call in calls if "install" in call][0].endswith(name)


@pytest.mark.parametrize(
    ("path", "top"),
    [
        ("requirements.lock", "requirements-test.txt"),
        ("website/requirements.lock", "website/requirements.txt"),
    ],
)
def test_the_lock_names_versions_with_hashes_and_no_places(path, top):
    text = (ROOT / path).read_text(encoding="utf-8")
    pin = r"^([\w.-]+)==\S+[^\n]* \\\n    --hash=sha256:[0-9a-f]{64}"
    pins = re.findall(pin, text, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^\w", text, re.MULTILINE)), "each has a hash"
    assert "://" not in text and "index" not in text.split("\n\n")[0]
    wanted = re.findall(r"^\w[\w-]*", (ROOT / top).read_text(encoding="utf-8"), re.MULTILINE)
    assert set(wanted) <= set(pins)


@pytest.mark.parametrize(
    "name", ["a/b; touch here", "a/b$(touch here)", "'; touch here; '", '"; touch here; "']
)
def test_the_name_of_a_repository_is_handed_over_as_it_is(folder, name):
    (folder / ".venv" / "bin" / "python").write_text('#!/bin/sh\nprintf "%s|" "$@" > log\n')
    _, calls, _ = run(folder, "make", "publish", "REPO=" + name.replace("$", "$$"))
    assert calls == [f"-m|tools.publish|{name}|"]
    assert not (folder / "here").exists()


@pytest.mark.parametrize(
    ("outside", "inside"), [({}, "1"), ({"PYTORCH_ENABLE_MPS_FALLBACK": "0"}, "0")]
)
def test_the_cpu_does_what_apples_mps_lacks(folder, monkeypatch, outside, inside):
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    show = "show: ; @echo $$PYTORCH_ENABLE_MPS_FALLBACK"
    assert run(folder, "make", "-s", "--eval", show, "show", **outside)[2] == f"{inside}\n"
