"""tools/run_lessons.py: what it keeps of a run, and what it says to wrong settings."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import nbformat
import pytest
from helpers import HERE, files_in
from nbclient.exceptions import CellExecutionError, DeadKernelError

from tools import run_lessons


def stream(name, text):
    return nbformat.v4.new_output("stream", name=name, text=text)


def test_progress_bars_keep_only_their_last_state():
    cell = nbformat.v4.new_code_cell(
        "train()", metadata={"execution": {"iopub": "now"}, "tags": ["kept"]}
    )
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
    assert tidied.metadata == {"tags": ["kept"]}, "when it ran is different each time"


def test_widgets_leave_their_picture_and_no_state():
    cell = nbformat.v4.new_code_cell("DigitPad(model)")
    view = {
        "application/vnd.jupyter.widget-view+json": {"model_id": "0"},
        "text/plain": "DigitPad(Net)",
    }
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


@pytest.fixture
def main_of(monkeypatch, tmp_path):
    """Runs the command with these arguments; what it sets for the notebooks does not outlive the test."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["run_lessons", *map(str, arguments)])
        run_lessons.main()

    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("MNIST_ROOT", str(tmp_path))
    return run


@pytest.fixture
def stopped(monkeypatch, main_of):
    """What it says when it stops before it runs anything."""

    def stop(*arguments):
        monkeypatch.setattr(
            run_lessons, "run_notebook", lambda *_: pytest.fail("a notebook was run")
        )
        with pytest.raises(SystemExit) as stop:
            main_of(*arguments)
        return stop.value.code

    return stop


def test_an_unknown_lesson(stopped, capsys):
    assert stopped("S7") == 2
    assert "there is no lesson S7: choose from S5, S6" in capsys.readouterr().err


def test_a_wrong_number_of_epochs(monkeypatch, stopped):
    monkeypatch.setenv("EPOCHS", "none")
    assert stopped() == "EPOCHS=none is not a number of epochs: use a whole number, 1 or more"


def test_the_lessons_themselves_are_no_place_for_copies(stopped, capsys):
    assert stopped("--out", run_lessons.HERE) == 2 == stopped("--in-place", "--out", "elsewhere")
    assert "the lessons themselves" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(stopped, tmp_path):
    (tmp_path / "file").write_text("no folder")
    said = stopped("--out", tmp_path / "file")
    assert said.startswith(f"nothing can be written to {tmp_path / 'file'} (") and said.endswith(
        "with --out"
    )


@pytest.mark.slow
def test_a_wrong_device():
    """In a process of its own, because the device is looked for when utils.py is imported."""
    environment = os.environ | {"DEVICE": "abacus"}
    done = subprocess.run(
        [sys.executable, "-m", "tools.run_lessons"],
        cwd=HERE,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("DEVICE=abacus is not a device of this machine")


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize(
    ("outside", "inside"), [({}, "1"), ({"PYTORCH_ENABLE_MPS_FALLBACK": "0"}, "0")]
)
def test_make_lets_the_cpu_do_what_apples_mps_lacks(outside, inside, monkeypatch):
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    command = ["make", "-s", "--eval", "show: ; @echo $$PYTORCH_ENABLE_MPS_FALLBACK", "show"]
    done = subprocess.run(
        command, cwd=HERE, env=os.environ | outside, capture_output=True, text=True
    )
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


def test_a_run_shows_what_its_cells_print(capsys, monkeypatch):
    """But not what its own last cell hands over, and no pictures; all of it is kept."""
    kept = []
    monkeypatch.setattr(
        run_lessons.NotebookClient, "output", lambda self, *message: kept.append(message)
    )
    cells = [nbformat.v4.new_code_cell("1"), nbformat.v4.new_code_cell("2")]
    client = run_lessons.LiveClient(nbformat.v4.new_notebook(cells=cells))
    text = {"msg_type": "stream", "content": {"name": "stdout", "text": "Epoch 1"}}
    picture = {"msg_type": "display_data", "content": {"data": {"text/plain": "Figure"}}}
    messages = [([], text, None, 0), ([], picture, None, 0), ([], text, None, 1)]
    for message in messages:
        client.output(*message)
    assert capsys.readouterr().out == "Epoch 1" and kept == messages


def test_a_run_says_how_long_it_takes():
    one, both = run_lessons.how_long(["S5"]), run_lessons.how_long(["S5", "S6"])
    assert one.startswith(f"S5 takes about {run_lessons.LESSONS['S5']} minutes")
    minutes = f"about {sum(run_lessons.LESSONS.values())} minutes"
    assert both.startswith(f"S5 and S6 take {minutes}")
    assert f"`make run` takes {minutes}" in (HERE / "README.md").read_text(encoding="utf-8")


def test_a_notebook_runs_in_its_folder_and_hands_over_its_results(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lessons, "HERE", tmp_path)
    cells = [nbformat.v4.new_code_cell("train()")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "S5.ipynb")

    def execute(client):
        assert client.timeout is None and client.resources["metadata"]["path"] == str(
            tmp_path / "out"
        )
        client.nb.cells[-1].outputs = [
            stream("stdout", '[[{"network": "Net"}], '),
            stream("stdout", "null]"),
        ]

    monkeypatch.setattr(run_lessons.LiveClient, "execute", execute)
    notebook, results, film = run_lessons.run_notebook("S5", tmp_path / "out")
    assert [cell.source for cell in notebook.cells] == ["train()"], (
        "without the cell that hands over"
    )
    assert (results, film) == ([{"network": "Net"}], None)


def test_both_lessons_run_unless_one_is_named(tmp_path, monkeypatch, capsys, main_of):
    run = []
    notebook = nbformat.v4.new_notebook()
    monkeypatch.setattr(
        run_lessons, "run_notebook", lambda lesson, _: run.append(lesson) or (notebook, [ROW], None)
    )
    main_of("--out", tmp_path)
    printed = capsys.readouterr().out
    assert run == ["S5", "S6"] and "Net (S5)" in printed and "Net (S6)" in printed
    main_of("S6", "--out", tmp_path)
    assert run == ["S5", "S6", "S6"]


# --- What goes wrong on the way -----------------------------------------------------------------

ROW = {"network": "Net", "parameters": 1, "epochs": 1, "data": "MNIST", "accuracy": 9, "seconds": 1}
RUN = """
import pathlib, sys
from tools import run_lessons
run_lessons.HERE = pathlib.Path(sys.argv[1])
sys.argv[1:] = ["--out", sys.argv[1] + "/out"]
run_lessons.main()
"""


@pytest.fixture
def lessons(tmp_path):
    """Runs two lessons of a few cells in place of the real ones; the last cell is given."""

    def run(cell):
        for name, cells in {
            "S5": [f"results = [{ROW}]"],
            "S6": ["results = []; print('reached')", cell],
        }.items():
            notebook = nbformat.v4.new_notebook(
                cells=[nbformat.v4.new_code_cell(source) for source in cells]
            )
            nbformat.write(notebook, tmp_path / f"{name}.ipynb")
        command = [sys.executable, "-c", RUN, str(tmp_path)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(
            command, cwd=HERE, env=os.environ | {"TMPDIR": str(tmp_path)}, **pipes
        )

    return run


def check_what_is_kept(process, out):
    """Lesson 5 and its result are kept, and what lesson 6 had reached; nothing reads like a crash."""
    said, complained = process.communicate(timeout=60)
    assert process.returncode == 1 and "run_lessons.py" not in complained, complained
    assert "S6.ipynb stopped there; see S6.failed.ipynb in" in complained
    assert "Net (S5)" in said and (out / "S5.ipynb").is_file()
    assert "reached" in (out / "S6.failed.ipynb").read_text()
    return complained


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped(lessons, tmp_path, number):
    process = lessons("import time; print('waiting'); time.sleep(60)")
    while "waiting" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    assert "Stopped." in check_what_is_kept(process, tmp_path / "out")


@pytest.mark.slow
def test_a_kernel_that_dies(lessons, tmp_path):
    complained = check_what_is_kept(lessons("import os; os._exit(1)"), tmp_path / "out")
    assert "has died, perhaps for lack of memory" in complained


@pytest.mark.slow
def test_a_cell_that_fails(lessons, tmp_path):
    assert "ZeroDivisionError" in check_what_is_kept(lessons("1 / 0"), tmp_path / "out")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (CellExecutionError("ZeroDivisionError in cell 1", "", ""), "ZeroDivisionError in cell 1"),
        (AssertionError(), "Stopped."),
        (KeyboardInterrupt(), "Stopped."),
        (DeadKernelError(), "has died, perhaps for lack of memory."),
    ],
)
def test_what_a_lesson_has_reached_is_kept(tmp_path, monkeypatch, error, sentence):
    def execute(client):
        raise error

    cells = [nbformat.v4.new_code_cell("train()")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "S6.ipynb")
    monkeypatch.setattr(run_lessons, "HERE", tmp_path)
    monkeypatch.setattr(run_lessons.LiveClient, "execute", execute)
    with pytest.raises(run_lessons.Unfinished) as stop:
        run_lessons.run_notebook("S6", tmp_path)
    *_, reason, where = str(stop.value).splitlines()
    assert (
        sentence in reason and where == f"S6.ipynb stopped there; see S6.failed.ipynb in {tmp_path}"
    )
    kept = nbformat.read(tmp_path / "S6.failed.ipynb", as_version=4)
    assert [cell.source for cell in kept.cells] == ["train()"]


def test_a_full_disk_does_not_cost_the_lesson(tmp_path, monkeypatch, capsys, main_of):
    folder = tmp_path / "new" / "out"

    def full(path, text):
        if path.parent == folder:
            raise OSError(28, "No space left on device")
        path.write_text(text)

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("trained")])
    monkeypatch.setattr(run_lessons, "write_text", full)
    monkeypatch.setattr(run_lessons, "run_notebook", lambda *_: (notebook, [ROW], None))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(
        SystemExit, match=r"^Free some space; the complete S6\.ipynb is in "
    ) as stop:
        main_of("S6", "--out", folder)
    said = capsys.readouterr().out
    assert "S6.ipynb could not be written: No space left on device." in said and "Net (S6)" in said
    place = pathlib.Path(str(stop.value).split(" is in ")[1].rstrip("."))
    assert "trained" in (place / "S6.ipynb").read_text()


@pytest.mark.parametrize(
    ("option", "smoke", "kept"), [("--in-place", "0", True), ("S5", "1", False), ("S5", "0", False)]
)
def test_the_website_gets_the_film_of_a_real_run_in_place(
    tmp_path, monkeypatch, capsys, main_of, option, smoke, kept
):
    monkeypatch.setattr("utils.why_no_mnist", lambda root: None)
    notebook = nbformat.v4.new_notebook()
    monkeypatch.setattr(run_lessons, "HERE", tmp_path)
    monkeypatch.setattr(run_lessons, "run_notebook", lambda *_: (notebook, [ROW], {"answers": [1]}))
    monkeypatch.setenv("SMOKE_TEST", smoke)
    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.setenv("MNIST_ROOT", "digits")
    main_of("S5", option)
    # Notebooks find the course before a module of the same name elsewhere, and its data from any folder.
    assert os.environ["PYTHONPATH"] == f"{tmp_path}{os.pathsep}mine"
    assert os.environ["MNIST_ROOT"] == str(tmp_path / "digits")
    film = tmp_path / "website" / "film.json"
    assert film.exists() == kept and (not kept or film.read_text() == '{"answers": [1]}\n')
    assert (tmp_path / ("S5.ipynb" if option == "--in-place" else "runs/S5.ipynb")).is_file()
    assert "Net (S5)" in capsys.readouterr().out


@pytest.mark.parametrize(("smoke", "reason"), [("1", None), ("0", "no mirror answers")])
def test_saved_notebooks_are_replaced_by_a_full_run_on_mnist_only(
    monkeypatch, main_of, smoke, reason
):
    monkeypatch.setenv("SMOKE_TEST", smoke)
    monkeypatch.setattr("utils.why_no_mnist", lambda root: reason)
    monkeypatch.setattr(run_lessons, "run_notebook", None)
    with pytest.raises(SystemExit, match="full run on MNIST: without it, leave out --in-place"):
        main_of("S5", "--in-place")
