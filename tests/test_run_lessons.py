"""tools/run_lessons.py: what it runs, what it keeps, and what it says to wrong settings."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from helpers import LESSONS, PATIENCE, ROOT, files_in
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import utils
from tools import run_lessons

ROW = {"network": "Net", "parameters": 1, "epochs": 1, "data": "MNIST", "accuracy": 9, "seconds": 1}


def stream(name, text):
    return new_output("stream", name=name, text=text)


def write_lesson(folder, lesson, *sources):
    cells = [new_code_cell(source) for source in sources]
    nbformat.write(new_notebook(cells=cells), folder / f"{lesson}.ipynb")


# --- What is kept of a notebook ----------------------------------------------------------------


def test_progress_bars_keep_only_their_last_state():
    cell = new_code_cell("train()", metadata={"execution": {"iopub": "now"}, "tags": ["kept"]})
    cell.outputs = [
        stream("stdout", "Epoch 1\n"),
        stream("stderr", "\r 0%|  | 0/2"),
        stream("stderr", "\r50%|# | 1/2\r100%|##| 2/2\n"),
        stream("stdout", "Test set: 99 %\n\n"),
    ]
    (tidied,) = run_lessons.tidy(new_notebook(cells=[cell])).cells
    assert [(output.name, output.text) for output in tidied.outputs] == [
        ("stdout", "Epoch 1\n"),
        ("stderr", "100%|##| 2/2\n"),
        ("stdout", "Test set: 99 %\n\n"),
    ]
    assert tidied.metadata == {"tags": ["kept"]}, "when it ran is different each time"


def test_widgets_leave_their_picture_and_no_state():
    rest = {"text/plain": "DigitPad(Net)", "image/png": "abcd"}
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "0"}}
    cell = new_code_cell("DigitPad(model)", outputs=[new_output("display_data", rest | view)])
    notebook = new_notebook(cells=[cell], metadata={"widgets": {"state": {"0": {}}}})
    tidied = run_lessons.tidy(notebook)
    assert tidied.cells[0].outputs[0].data == rest
    assert "widgets" not in tidied.metadata


def test_saving_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "lesson.ipynb"
    path.write_text("the old one")
    monkeypatch.setattr(nbformat, "writes", lambda *_: pytest.fail("no space"))
    with pytest.raises(pytest.fail.Exception):
        run_lessons.save(new_notebook(), path)
    assert path.read_text() == "the old one"
    assert files_in(tmp_path) == ["lesson.ipynb"]


# --- What a run shows --------------------------------------------------------------------------


def test_a_run_says_where_it_is(capsys):
    """But not before the last cell, which is run_lessons' own."""
    words = new_markdown_cell("Words.\n\n## 2. The data\n\nMore.")
    code = [new_code_cell("1  # one\n# no heading"), new_code_cell("2")]
    cells = [new_markdown_cell("# Lesson"), *code, words, new_code_cell("3")]
    cells += [new_markdown_cell("## Read on"), new_code_cell("4")]
    client = run_lessons.LiveClient(new_notebook(cells=cells))
    for index, cell in enumerate(cells):
        if cell.cell_type == "code":
            client.show_place(cell, index)
    said = [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines() if line]
    assert said == ["Lesson  (cell 2 of 6)", "2. The data  (cell 5 of 6)"]


def test_a_run_shows_what_its_cells_print(capsys, monkeypatch):
    """But not what its own last cell hands over, and no pictures; all of it is kept."""
    kept = []
    monkeypatch.setattr(
        run_lessons.NotebookClient, "output", lambda _, *message: kept.append(message)
    )
    client = run_lessons.LiveClient(new_notebook(cells=[new_code_cell("1"), new_code_cell("2")]))
    text = {"msg_type": "stream", "content": {"name": "stdout", "text": "Epoch 1"}}
    picture = {"msg_type": "display_data", "content": {"data": {"text/plain": "Figure"}}}
    messages = [([], text, None, 0), ([], picture, None, 0), ([], text, None, 1)]
    for message in messages:
        client.output(*message)
    assert capsys.readouterr().out == "Epoch 1"
    assert kept == messages


def test_a_run_says_how_long_it_takes():
    minutes = run_lessons.LESSONS
    both = f"about {minutes['S5'] + minutes['S6']} minutes"
    assert run_lessons.how_long(["S5"]).startswith(f"S5 takes about {minutes['S5']} minutes")
    assert run_lessons.how_long(["S5", "S6"]).startswith(f"S5 and S6 take {both}")
    guide = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    assert f"`make run` takes {both} for lessons 5 and 6" in guide


# --- One lesson --------------------------------------------------------------------------------


def test_a_notebook_runs_in_its_folder_and_hands_over_its_results(tmp_path, monkeypatch):
    def execute(client):
        assert client.timeout is None
        assert client.resources["metadata"]["path"] == str(tmp_path / "out")
        outputs = [stream("stdout", '[[{"network": "Net"}], '), stream("stdout", "null]")]
        client.nb.cells[-1].outputs = outputs

    monkeypatch.setattr(run_lessons, "ROOT", tmp_path)
    monkeypatch.setattr(run_lessons.LiveClient, "execute", execute)
    write_lesson(tmp_path, "S5", "train()")
    notebook, results, film = run_lessons.run_notebook("S5", tmp_path / "out")
    assert [cell.source for cell in notebook.cells] == ["train()"]
    assert (results, film) == ([{"network": "Net"}], None)


def test_solutions_run_in_the_folder_of_their_own(tmp_path, monkeypatch):
    def execute(client):
        assert client.resources["metadata"]["path"] == str(tmp_path / "out" / "solutions")
        client.nb.cells[-1].outputs = [stream("stdout", "[[], null]")]

    monkeypatch.setattr(run_lessons, "ROOT", tmp_path)
    monkeypatch.setattr(run_lessons.LiveClient, "execute", execute)
    (tmp_path / "solutions").mkdir()
    write_lesson(tmp_path / "solutions", "S5", "check()")
    run_lessons.run_notebook("solutions/S5", tmp_path / "out")
    assert (tmp_path / "out" / "solutions").is_dir()


# --- Some of its cells -------------------------------------------------------------------------


def old(source, cell_id, count=1):
    """A code cell that was run once, with other code."""
    result = new_output("execute_result", {"text/plain": "old"}, execution_count=count)
    metadata = {"source_hash": "other code"}
    return new_code_cell(
        source, id=cell_id, execution_count=count, outputs=[result], metadata=metadata
    )


@pytest.fixture
def lesson_with_sections(tmp_path, monkeypatch):
    """A lesson of four sections with a cell each, and one that has never run."""
    cells = [new_markdown_cell("# Lesson"), old("import math", "imports")]
    cells += [new_markdown_cell("No heading: # but words."), old("number = 5", "data")]
    cells += [new_markdown_cell("## 1. Squares"), old("number = 6\nnumber**2", "square", 3)]
    cells += [new_markdown_cell("## 2. New"), new_code_cell("raise ValueError", id="new")]
    cells += [new_markdown_cell("## 3. Roots"), old("math.isqrt(number)", "root", 4)]
    nbformat.write(new_notebook(cells=cells), tmp_path / "S5.ipynb")
    monkeypatch.setattr(run_lessons, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.slow
def test_chosen_cells_run_after_the_set_up_and_all_other_outputs_stay(lesson_with_sections):
    notebook, results, film = run_lessons.run_notebook("S5", lesson_with_sections, ["root"])
    code = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    shown = {name: [output.data["text/plain"] for output in code[name].outputs] for name in code}
    stay = {"imports": ["old"], "data": ["old"], "square": ["old"], "new": []}
    assert shown == stay | {"root": ["2"]}, "the root of 5, as the square has not run"
    counts = {name: cell.execution_count for name, cell in code.items()}
    assert counts == {"imports": 1, "data": 2, "square": 3, "new": None, "root": 5}
    assert code["root"].outputs[0].execution_count == 5
    assert (results, film) == ([], None)
    assert run_lessons.changed_cells(notebook) == ["imports", "data", "square", "new"]


def test_the_cells_to_choose_from_are_listed(lesson_with_sections):
    with pytest.raises(run_lessons.Unfinished) as stop:
        run_lessons.run_notebook("S5", lesson_with_sections, ["root", "cube"])
    first, *table = str(stop.value).splitlines()
    assert first == "There is no code cell cube among these:"
    assert [line.split()[0] for line in table] == ["imports", "data", "square", "new", "root"]
    assert "number = 6" in table[2]


def test_changed_code_is_noticed_once_a_notebook_has_been_run():
    cells = [new_markdown_cell("words"), new_code_cell("1"), new_code_cell("2")]
    notebook = new_notebook(cells=cells)
    assert run_lessons.changed_cells(notebook) == []
    run_lessons.note_sources(notebook.cells)
    assert run_lessons.changed_cells(notebook) == []
    cells[0].source = "other words"
    cells[2].source = "2 "
    cells.append(new_code_cell("3"))
    assert run_lessons.changed_cells(notebook) == [cells[2].id, cells[3].id]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (CellExecutionError("ZeroDivisionError in cell 1", "", ""), "ZeroDivisionError in cell 1"),
        (AssertionError(), "Stopped."),
        (KeyboardInterrupt(), "Stopped."),
        (DeadKernelError(), "has died, perhaps for lack of memory."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_lesson_has_reached_is_kept(tmp_path, monkeypatch, error, sentence):
    def execute(client):
        raise error

    write_lesson(tmp_path, "S6", "train()")
    monkeypatch.setattr(run_lessons, "ROOT", tmp_path)
    monkeypatch.setattr(run_lessons.LiveClient, "execute", execute)
    with pytest.raises(run_lessons.Unfinished) as stop:
        run_lessons.run_notebook("S6", tmp_path)
    *_, reason, where = str(stop.value).splitlines()
    assert sentence in reason
    assert where == f"S6.ipynb stopped there; see S6.failed.ipynb in {tmp_path}"
    kept = nbformat.read(tmp_path / "S6.failed.ipynb", as_version=4)
    assert [cell.source for cell in kept.cells] == ["train()"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped(tmp_path, number):
    """Lesson 5 and its result are kept, and what lesson 6 has reached; it reads like no crash."""
    write_lesson(tmp_path, "S5", f"results = [{ROW}]")
    endless = "import time; print('waiting'); time.sleep(60)"
    write_lesson(tmp_path, "S6", "results = []; print('reached')", endless)
    process = subprocess.Popen(
        [sys.executable, ROOT / "tests" / "programs" / "other_lessons.py", tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while "waiting" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    said, complained = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "Net (S5)" in said
    assert "Stopped." in complained and "run_lessons.py" not in complained
    assert "S6.ipynb stopped there; see S6.failed.ipynb in" in complained
    assert (tmp_path / "out" / "S5.ipynb").is_file()
    assert "reached" in (tmp_path / "out" / "S6.failed.ipynb").read_text()


def test_a_kernel_that_nbclient_stopped_after_a_signal_has_not_died(monkeypatch):
    """On a busy machine nbclient sees the kernel die before it says that it stopped it."""

    def execute(client):
        client._async_cleanup_kernel_future = "set by its handler of signals"
        raise DeadKernelError("Kernel died")

    monkeypatch.setattr(run_lessons.LiveClient, "execute", execute)
    assert run_lessons.execute(run_lessons.LiveClient(new_notebook())) == "\n\nStopped."


# --- The command -------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs the command with stubs for lessons; returns what it printed, and which lessons ran."""
    lessons = []

    def run_notebook(lesson, folder, ids):
        lessons.append(lesson if ids is None else (lesson, *ids))
        notebook = new_notebook(cells=[new_markdown_cell("trained")])
        return notebook, [ROW], {"answers": [1]} if lesson == "S5" else None

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["run_lessons", *map(str, arguments)])
        run_lessons.main()
        return capsys.readouterr().out, lessons

    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
    monkeypatch.setattr(run_lessons, "run_notebook", run_notebook)
    monkeypatch.setattr(run_lessons, "ROOT", tmp_path)
    monkeypatch.setattr(utils, "ensure_mnist", lambda root: True)
    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.setenv("MNIST_ROOT", "digits")
    return run


@pytest.mark.parametrize(("named", "ran"), [([], LESSONS), (["S6"], ["S6"])])
def test_all_lessons_run_unless_one_is_named(run, tmp_path, named, ran):
    said, lessons = run(*named)
    assert lessons == ran
    assert all(f"Net ({lesson})" in said for lesson in ran)
    assert files_in(tmp_path / "runs") == [f"{lesson}.ipynb" for lesson in ran]
    # Notebooks find the course before another module of the same name, and its data from anywhere.
    assert os.environ["PYTHONPATH"] == f"{tmp_path}{os.pathsep}mine"
    assert os.environ["MNIST_ROOT"] == str(tmp_path / "digits")


def test_in_place_the_notebooks_and_the_websites_film_are_updated(run, tmp_path):
    run("--in-place")
    assert files_in(tmp_path) == [*(f"{lesson}.ipynb" for lesson in LESSONS), "film.json"]
    assert (tmp_path / "website" / "film.json").read_text() == '{"answers": [1]}\n'


@pytest.mark.parametrize(
    ("setting", "mnist", "sentence"),
    [
        ("SMOKE_TEST=1", True, "full run: unset EPOCHS and SMOKE_TEST for --in-place"),
        ("EPOCHS=3", True, "full run: unset EPOCHS and SMOKE_TEST for --in-place"),
        ("SMOKE_TEST=0", False, "full run on MNIST: without it, leave out --in-place"),
    ],
)
def test_saved_notebooks_are_replaced_by_a_full_run_on_mnist_only(
    run, monkeypatch, setting, mnist, sentence
):
    monkeypatch.setenv(*setting.split("="))
    monkeypatch.setattr(utils, "ensure_mnist", lambda root: mnist)
    with pytest.raises(SystemExit, match=sentence):
        run("S5", "--in-place")


def test_solutions_and_chosen_cells(run, tmp_path):
    """They are saved where the whole notebook would be; there is no time to tell."""
    said, lessons = run("solutions/S5", "--cells", "s5s-05", "s5s-07")
    assert lessons == [("solutions/S5", "s5s-05", "s5s-07")]
    assert "minutes" not in said
    assert (tmp_path / "runs" / "solutions" / "S5.ipynb").is_file()


def test_outputs_that_are_still_right_are_accepted(run, tmp_path):
    """After a change of names, say: nothing runs, and nothing but the notes changes."""
    nbformat.write(new_notebook(cells=[old("2", "two")]), tmp_path / "S6.ipynb")
    said, lessons = run("S6", "--accept")
    assert lessons == []
    assert said == "S6.ipynb: the outputs stay as they are; changed: two\n"
    notebook = nbformat.read(tmp_path / "S6.ipynb", as_version=4)
    assert run_lessons.changed_cells(notebook) == []
    assert notebook.cells[0].outputs == old("2", "two").outputs


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["S4"], f"there is no lesson S4: choose from {', '.join(LESSONS)}, solutions/S5, "),
        (["--cells", "s5-36"], "--cells needs the one notebook that they are in"),
        (["--out", "."], "the lessons themselves are there"),
        (["--in-place", "--out", "elsewhere"], "the lessons themselves are there"),
    ],
)
def test_wrong_arguments(run, monkeypatch, tmp_path, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        run(*arguments)
    assert sentence in capsys.readouterr().err


def test_settings_are_checked_before_anything_runs(run, monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.write_text("no folder")
    with pytest.raises(SystemExit, match=r"nothing can be written to .*file \(.*with --out$"):
        run("--out", file)
    monkeypatch.setattr(run_lessons, "ROOT", tmp_path / f"a{os.pathsep}b")
    with pytest.raises(SystemExit, match="^the notebooks would not find .*b: Python splits .* Ren"):
        run("--out", tmp_path)
    monkeypatch.setenv("EPOCHS", "none")
    with pytest.raises(SystemExit, match="^EPOCHS=none is not a number of epochs: use a whole"):
        run()


def test_a_full_disk_does_not_cost_the_lesson(run, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "new" / "out"

    def full(path, text):
        if path.parent == folder:
            raise OSError(28, "No space left on device")
        path.write_text(text)

    monkeypatch.setattr(run_lessons, "write_text", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(
        SystemExit, match=r"^Free some space; the complete S6\.ipynb is in "
    ) as stop:
        run("S6", "--out", folder)
    said = capsys.readouterr().out
    assert "S6.ipynb could not be written: No space left on device." in said
    assert "Net (S6)" in said
    spare = Path(str(stop.value).split(" is in ")[1].rstrip("."))
    assert "trained" in (spare / "S6.ipynb").read_text()


@pytest.mark.slow
def test_a_wrong_device():
    """In a process of its own, because the device is looked for when utils.py is imported."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.run_lessons"],
        cwd=ROOT,
        env=os.environ | {"DEVICE": "abacus"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("DEVICE=abacus is not a device of this machine")


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize(
    ("outside", "inside"), [({}, "1"), ({"PYTORCH_ENABLE_MPS_FALLBACK": "0"}, "0")]
)
def test_make_lets_the_cpu_do_what_apples_mps_lacks(outside, inside, monkeypatch):
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    command = ["make", "-s", "--eval", "show: ; @echo $$PYTORCH_ENABLE_MPS_FALLBACK", "show"]
    environment = os.environ | outside
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == f"{inside}\n"
