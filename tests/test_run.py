"""run.py: what it keeps of a run, and what it says to wrong settings."""

import os
import subprocess
import sys

import nbformat
import pytest
from test_notebooks import HERE

import run


def stream(name, text):
    return nbformat.v4.new_output("stream", name=name, text=text)


def test_progress_bars_keep_only_their_last_state():
    cell = nbformat.v4.new_code_cell("train()")
    cell.outputs = [
        stream("stdout", "Epoch 1\n"),
        stream("stderr", "\r 0%|  | 0/2"),
        stream("stderr", "\r50%|# | 1/2\r100%|##| 2/2\n"),
        stream("stdout", "Test set: 99 %\n\n"),
    ]
    (tidied,) = run.tidy(nbformat.v4.new_notebook(cells=[cell])).cells
    assert [(output.name, output.text) for output in tidied.outputs] == [
        ("stdout", "Epoch 1\n"),
        ("stderr", "100%|##| 2/2\n"),
        ("stdout", "Test set: 99 %\n\n"),
    ]


def test_saving_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "lesson.ipynb"
    path.write_text("the old one")
    monkeypatch.setattr(nbformat, "write", lambda *_: pytest.fail("no space"))
    with pytest.raises(pytest.fail.Exception):
        run.save(nbformat.v4.new_notebook(), path)
    assert path.read_text() == "the old one"


def test_an_unknown_lesson():
    done = subprocess.run([sys.executable, HERE / "run.py", "S7"], capture_output=True, text=True)
    assert done.returncode == 2 and "there is no lesson S7: choose from S5, S6" in done.stderr


@pytest.mark.parametrize(("name", "value"), [("EPOCHS", "none"), ("DEVICE", "abacus")])
def test_wrong_settings_get_one_sentence(name, value):
    done = subprocess.run(
        [sys.executable, HERE / "run.py"], env=os.environ | {name: value}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert (
        done.stderr.splitlines()[-1].startswith(f"{name}={value} is not a") and "Traceback" not in done.stderr
    )


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("no folder")
    done = subprocess.run(
        [sys.executable, HERE / "run.py", "--out", tmp_path / "file"], capture_output=True, text=True
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"nothing can be written to {tmp_path / 'file'} (File exists): name another folder" in done.stderr
