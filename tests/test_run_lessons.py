"""tools/run_lessons.py: what it keeps of a run, and what it says to wrong settings."""

import os
import shutil
import subprocess
import sys

import nbformat
import pytest
from helpers import HERE, files_in

from tools import run_lessons


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
    (tidied,) = run_lessons.tidy(nbformat.v4.new_notebook(cells=[cell])).cells
    assert [(output.name, output.text) for output in tidied.outputs] == [
        ("stdout", "Epoch 1\n"),
        ("stderr", "100%|##| 2/2\n"),
        ("stdout", "Test set: 99 %\n\n"),
    ]


def test_widgets_leave_their_picture_and_no_state():
    cell = nbformat.v4.new_code_cell("DigitPad(model)")
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "0"}, "text/plain": "DigitPad(Net)"}
    cell.outputs = [nbformat.v4.new_output("display_data", view | {"image/png": "abcd"})]
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {"0": {}}}})
    tidied = run_lessons.tidy(notebook)
    assert tidied.cells[0].outputs[0].data == {"text/plain": "DigitPad(Net)", "image/png": "abcd"}
    assert "widgets" not in tidied.metadata


def test_saving_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "lesson.ipynb"
    path.write_text("the old one")
    monkeypatch.setattr(nbformat, "writes", lambda *_: pytest.fail("no space"))
    with pytest.raises(pytest.fail.Exception):
        run_lessons.save(nbformat.v4.new_notebook(), path)
    assert path.read_text() == "the old one" and files_in(tmp_path) == ["lesson.ipynb"]


def stopped(monkeypatch, *arguments):
    """What it says when it stops before it runs anything."""
    monkeypatch.setattr(sys, "argv", ["run_lessons", *map(str, arguments)])
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
    monkeypatch.setattr(run_lessons, "run_notebook", lambda *_: pytest.fail("a notebook was run"))
    with pytest.raises(SystemExit) as stop:
        run_lessons.main()
    return stop.value.code


def test_an_unknown_lesson(monkeypatch, capsys):
    assert stopped(monkeypatch, "S7") == 2
    assert "there is no lesson S7: choose from S5, S6" in capsys.readouterr().err


def test_a_wrong_number_of_epochs(monkeypatch):
    monkeypatch.setenv("EPOCHS", "none")
    assert stopped(monkeypatch) == "EPOCHS=none is not a number of epochs: use a whole number, 1 or more"


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    said = stopped(monkeypatch, "--out", tmp_path / "file")
    assert said.startswith(f"nothing can be written to {tmp_path / 'file'} (") and said.endswith("with --out")


@pytest.mark.slow
def test_a_wrong_device():
    """In a process of its own, because the device is looked for when utils.py is imported."""
    environment = os.environ | {"DEVICE": "abacus"}
    done = subprocess.run(
        [sys.executable, "-m", "tools.run_lessons"], cwd=HERE, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("DEVICE=abacus is not a device of this machine")


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize(("outside", "inside"), [({}, "1"), ({"PYTORCH_ENABLE_MPS_FALLBACK": "0"}, "0")])
def test_make_lets_the_cpu_do_what_apples_mps_lacks(outside, inside, monkeypatch):
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    command = ["make", "-s", "--eval", "show: ; @echo $$PYTORCH_ENABLE_MPS_FALLBACK", "show"]
    done = subprocess.run(command, cwd=HERE, env=os.environ | outside, capture_output=True, text=True)
    assert done.stdout == f"{inside}\n"


def test_a_run_says_where_it_is(capsys):
    text, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    cells = [
        text("# Lesson"),
        code("1"),
        code("2"),
        text("Words.\n\n## 2. The data\n\nMore."),
        code("3"),
        code("4"),
    ]
    client = run_lessons.LiveClient(nbformat.v4.new_notebook(cells=cells))
    for index, cell in enumerate(cells):
        if cell.cell_type == "code":
            client.show_place(cell, index)
    said = [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines() if line]
    assert said == ["Lesson  (cell 2 of 5)", "2. The data  (cell 5 of 5)"], (
        "the last cell is run_lessons' own"
    )


def test_a_run_says_how_long_it_takes():
    one, both = run_lessons.how_long(["S5"]), run_lessons.how_long(["S5", "S6"])
    assert one.startswith(f"S5 takes about {run_lessons.LESSONS['S5']} minutes")
    assert both.startswith(f"S5 and S6 take about {sum(run_lessons.LESSONS.values())} minutes")
