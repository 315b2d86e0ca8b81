"""tools/run_lessons.py: what it runs, what it keeps, and what it says to wrong settings."""

import os
import signal
import subprocess
import sys
import tempfile

import nbformat
import pytest
from helpers import LESSONS, PATIENCE, ROOT, environment, files_in
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import utils
from tools import publish, run_lessons

ROW = {"network": "Net", "parameters": 1, "epochs": 1, "data": "MNIST", "accuracy": 9, "seconds": 1}
COURSE = ROOT  # of these tests; the lessons that they run are in other folders


@pytest.fixture(autouse=True)
def lessons(monkeypatch, tmp_path):
    """The folder in which the command looks for lessons."""
    monkeypatch.setattr(run_lessons, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def execute_by(monkeypatch):
    """Replaces what runs a notebook."""
    return lambda function: monkeypatch.setattr(run_lessons.LiveClient, "execute", function)


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def write_lesson(path, *sources):
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)


def old(source, cell_id, count=1):
    """A code cell that was run once, with other code."""
    result = new_output("execute_result", {"text/plain": "old"}, execution_count=count)
    metadata = {"source_hash": "other code"}
    return new_code_cell(
        source, id=cell_id, execution_count=count, outputs=[result], metadata=metadata
    )


# --- What is shown and kept ----------------------------------------------------------------------


def test_what_can_be_read_without_a_kernel_is_kept():
    """The last state of a progress bar, the picture of a widget; not when a cell ran."""
    shown = {"text/plain": "DigitPad(Net)", "image/png": "abcd"}
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "0"}}
    outputs = [
        stream("Epoch 1\n"),
        stream("\r 0%|  | 0/2", "stderr"),
        stream("\r50%|# | 1/2\r100%|##| 2/2\n", "stderr"),
        stream("Test set: 99 %\n\n"),
        new_output("display_data", shown | view),
    ]
    metadata = {"execution": {"iopub": "now"}, "tags": ["kept"]}
    cell = new_code_cell("train()", outputs=outputs, metadata=metadata)
    notebook = new_notebook(cells=[cell], metadata={"widgets": {"state": {"0": {}}}})
    tidied = run_lessons.tidy(notebook)
    assert "widgets" not in tidied.metadata
    assert tidied.cells[0].metadata == {"tags": ["kept"]}
    *texts, picture = tidied.cells[0].outputs
    assert [(output.name, output.text) for output in texts] == [
        ("stdout", "Epoch 1\n"),
        ("stderr", "100%|##| 2/2\n"),
        ("stdout", "Test set: 99 %\n\n"),
    ]
    assert picture.data == shown


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
    guide = (COURSE / "docs" / "contributing.md").read_text(encoding="utf-8")
    assert f"`make run` takes {both} for lessons 5 and 6" in guide


@pytest.mark.parametrize("lesson", ["S5", "solutions/S5"])
def test_a_notebook_runs_in_its_folder_and_hands_over_its_results(lessons, execute_by, lesson):
    target = lessons / "out" / f"{lesson}.ipynb"

    def execute(client):
        assert client.timeout is None
        assert client.resources["metadata"]["path"] == str(target.parent)
        assert target.parent.is_dir()
        client.nb.cells[-1].outputs = [stream('[[{"network": "Net"}], '), stream("null]")]

    execute_by(execute)
    write_lesson(lessons / f"{lesson}.ipynb", "train()")
    notebook, results, film = run_lessons.run_notebook(lesson, lessons / "out")
    assert [cell.source for cell in notebook.cells] == ["train()"]
    assert (results, film) == ([{"network": "Net"}], None)


# --- Some of the cells ---------------------------------------------------------------------------


@pytest.fixture
def sections(lessons):
    """A lesson of four sections with a cell each, and one that has never run."""
    cells = [new_markdown_cell("# Lesson"), old("import math", "imports")]
    cells += [new_markdown_cell("No heading: # but words."), old("number = 5", "data")]
    cells += [new_markdown_cell("## 1. Squares"), old("number = 6\nnumber**2", "square", 3)]
    cells += [new_markdown_cell("## 2. New"), new_code_cell("raise ValueError", id="new")]
    cells += [new_markdown_cell("## 3. Roots"), old("math.isqrt(number)", "root", 4)]
    nbformat.write(new_notebook(cells=cells), lessons / "S5.ipynb")


@pytest.mark.slow
def test_chosen_cells_run_after_the_set_up_and_all_other_outputs_stay(lessons, sections):
    notebook, results, film = run_lessons.run_notebook("S5", lessons, ["root"])
    code = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    shown = {name: [output.data["text/plain"] for output in code[name].outputs] for name in code}
    stay = {"imports": ["old"], "data": ["old"], "square": ["old"], "new": []}
    assert shown == stay | {"root": ["2"]}, "the root of 5, as the square has not run"
    counts = {name: cell.execution_count for name, cell in code.items()}
    assert counts == {"imports": 1, "data": 2, "square": 3, "new": None, "root": 5}
    assert code["root"].outputs[0].execution_count == 5
    assert (results, film) == ([], None)
    assert run_lessons.changed_cells(notebook) == ["imports", "data", "square", "new"]


def test_the_cells_to_choose_from_are_listed(lessons, sections):
    with pytest.raises(run_lessons.Unfinished) as stop:
        run_lessons.run_notebook("S5", lessons, ["root", "cube"])
    first, *table = str(stop.value).splitlines()
    assert first == "There is no code cell cube among these:"
    assert [line.split()[0] for line in table] == ["imports", "data", "square", "new", "root"]
    assert "number = 6" in table[2]


def test_changed_code_is_noticed_once_a_notebook_has_been_run(lessons, execute_by):
    cells = [new_markdown_cell("words"), new_code_cell("1"), new_code_cell("2")]
    assert run_lessons.changed_cells(new_notebook(cells=cells)) == []
    nbformat.write(new_notebook(cells=cells), lessons / "S5.ipynb")
    execute_by(lambda client: client.nb.cells[-1].outputs.append(stream("[[], null]")))
    notebook, _, _ = run_lessons.run_notebook("S5", lessons)
    assert run_lessons.changed_cells(notebook) == []
    notebook.cells[0].source = "other words"
    notebook.cells[2].source = "2 "
    notebook.cells.append(new_code_cell("3"))
    assert run_lessons.changed_cells(notebook) == [cell.id for cell in notebook.cells[2:]]


def test_outputs_stay_when_the_course_is_published_elsewhere(monkeypatch):
    def cell_of(home):
        return new_code_cell(f"!git clone https://github.com/{home}")

    before = run_lessons.fingerprint(cell_of(publish.current()))
    monkeypatch.setattr(publish, "current", lambda: "some-one/copy")
    assert run_lessons.fingerprint(cell_of("some-one/copy")) == before
    assert run_lessons.fingerprint(cell_of("some-one/other")) != before


# --- A run that stops ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "stopped_by_nbclient", "sentence"),
    [
        (CellExecutionError("ZeroDivisionError in cell 1", "", ""), False, "ZeroDivisionError in"),
        (AssertionError(), False, "Stopped."),
        (KeyboardInterrupt(), False, "Stopped."),
        (DeadKernelError(), False, "has died, perhaps for lack of memory."),
        (DeadKernelError(), True, "Stopped."),  # after a signal, on a busy machine
    ],
    ids=["error", "signal", "interrupt", "dead kernel", "killed kernel"],
)
def test_what_a_lesson_has_reached_is_kept(
    lessons, execute_by, error, stopped_by_nbclient, sentence
):
    def execute(client):
        if stopped_by_nbclient:
            client._async_cleanup_kernel_future = "set by its handler of signals"
        raise error

    execute_by(execute)
    write_lesson(lessons / "S6.ipynb", "train()")
    with pytest.raises(run_lessons.Unfinished) as stop:
        run_lessons.run_notebook("S6", lessons)
    *_, reason, where = str(stop.value).splitlines()
    assert sentence in reason
    runs = lessons / "runs"  # also of a run in place: among the lessons it would be taken for one
    assert where == f"S6.ipynb stopped there; see failed-S6.ipynb in {runs}"
    kept = nbformat.read(runs / "failed-S6.ipynb", as_version=4)
    assert [cell.source for cell in kept.cells] == ["train()"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_a_run_that_is_stopped(lessons):
    """Lesson 5 and its result are kept, and what lesson 6 has reached; it reads like no crash."""
    write_lesson(lessons / "S5.ipynb", f"results = [{ROW}]")
    endless = "import time; print('waiting'); time.sleep(60)"
    write_lesson(lessons / "S6.ipynb", "results = []; print('reached')", endless)
    process = subprocess.Popen(
        [sys.executable, COURSE / "tests" / "programs" / "other_lessons.py", lessons],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while "waiting" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "Net (S5)" in said
    assert "Stopped." in complained and "run_lessons.py" not in complained
    assert "S6.ipynb stopped there; see failed-S6.ipynb in" in complained
    assert (lessons / "out" / "S5.ipynb").is_file()
    assert "reached" in (lessons / "out" / "failed-S6.ipynb").read_text()


# --- The command -------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command with stubs for lessons; returns what it printed, and which lessons ran."""
    ran = []

    def run_notebook(lesson, folder, ids):
        ran.append(lesson if ids is None else (lesson, *ids))
        notebook = new_notebook(cells=[new_markdown_cell("trained")])
        return notebook, [ROW], {"answers": [1]} if lesson == "S5" else None

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["run_lessons", *map(str, arguments)])
        run_lessons.main()
        return capsys.readouterr().out, ran

    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
    monkeypatch.setattr(run_lessons, "run_notebook", run_notebook)
    monkeypatch.setattr(utils, "ensure_mnist", lambda root: True)
    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.setenv("MNIST_ROOT", "digits")
    return run


@pytest.mark.parametrize(("named", "ran"), [([], LESSONS), (["S6"], ["S6"])], ids=["all", "S6"])
def test_all_lessons_run_unless_one_is_named(run, lessons, named, ran):
    said, found = run(*named)
    assert found == ran
    assert all(f"Net ({lesson})" in said for lesson in ran)
    assert files_in(lessons / "runs") == [f"{lesson}.ipynb" for lesson in ran]
    # Notebooks find the course before another module of the same name, and its data from anywhere.
    assert os.environ["PYTHONPATH"] == f"{lessons}{os.pathsep}mine"
    assert os.environ["MNIST_ROOT"] == str(lessons / "digits")


def test_in_place_the_notebooks_and_the_websites_film_are_updated(run, lessons):
    run("--in-place")
    assert files_in(lessons) == [*(f"{lesson}.ipynb" for lesson in LESSONS), "film.json"]
    assert (lessons / "website" / "film.json").read_text() == '{"answers": [1]}\n'


def test_solutions_and_chosen_cells(run, lessons):
    """They are saved where the whole notebook would be; there is no time to tell."""
    said, ran = run("solutions/S5", "--cells", "s5s-05", "s5s-07")
    assert ran == [("solutions/S5", "s5s-05", "s5s-07")]
    assert "minutes" not in run("S5", "--cells", "s5-05")[0] + said
    assert files_in(lessons / "runs" / "solutions") == ["S5.ipynb"]


def test_outputs_that_are_still_right_are_accepted(run, lessons):
    """After a change of names, say: nothing runs, and nothing but the notes changes."""
    nbformat.write(new_notebook(cells=[old("2", "two")]), lessons / "S6.ipynb")
    said, ran = run("S6", "--accept")
    assert ran == []
    assert said == "S6.ipynb: the outputs stay as they are; changed: two\n"
    notebook = nbformat.read(lessons / "S6.ipynb", as_version=4)
    assert run_lessons.changed_cells(notebook) == []
    assert notebook.cells[0].outputs == old("2", "two").outputs


def test_a_full_disk_does_not_cost_the_lesson(run, lessons, monkeypatch, capsys):
    folder = lessons / "new" / "out"

    def full(path, text):
        if path.parent == folder:
            raise OSError(28, "No space left on device")
        path.write_text(text)

    monkeypatch.setattr(run_lessons, "write_text", full)
    monkeypatch.setattr(tempfile, "tempdir", str(lessons))
    with pytest.raises(SystemExit, match=r"^Free some space; the complete S6\.ipynb is in "):
        run("S6", "--out", folder)
    said = capsys.readouterr().out
    assert "S6.ipynb could not be written: No space left on device." in said
    assert "Net (S6)" in said
    (spare,) = lessons.glob("*/S6.ipynb")
    assert "trained" in spare.read_text()


FULL_RUN = "full run: unset EPOCHS and SMOKE_TEST for --in-place"


@pytest.mark.parametrize(
    ("arguments", "settings", "sentence"),
    [
        ("S4", {}, f"there is no lesson S4: choose from {', '.join(LESSONS)}, solutions/S5, "),
        ("--cells s5-36", {}, "--cells needs the one notebook that they are in"),
        ("--out .", {}, "the lessons themselves are there"),
        ("--in-place --out elsewhere", {}, "the lessons themselves are there"),
        ("S5 --in-place", {"SMOKE_TEST": "1"}, FULL_RUN),
        ("S5 --in-place", {"EPOCHS": "3"}, FULL_RUN),
        ("S5 --in-place", {"MNIST": "none"}, "full run on MNIST: without it, leave out --in-place"),
        ("", {"EPOCHS": "none"}, "EPOCHS=none is not a number of epochs: use a whole"),
        ("--out file", {}, "file (File exists): name another folder with --out"),
        ("--out out", {"ROOT": f"a{os.pathsep}b"}, f"the course in a{os.pathsep}b: Python splits"),
    ],
)
def test_wrong_settings_are_refused_before_anything_runs(
    run, lessons, monkeypatch, capsys, arguments, settings, sentence
):
    monkeypatch.chdir(lessons)
    (lessons / "file").write_text("no folder")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(utils, "ensure_mnist", lambda root: "MNIST" not in settings)
    monkeypatch.setattr(run_lessons, "ROOT", settings.get("ROOT", lessons))
    with pytest.raises(SystemExit) as stop:
        run(*arguments.split())
    assert sentence in f"{stop.value}{capsys.readouterr().err}"


@pytest.mark.slow
def test_a_wrong_device():
    """In a process of its own, because the device is looked for when utils.py is imported."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.run_lessons"],
        cwd=COURSE,
        env=environment(DEVICE="abacus"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("DEVICE=abacus is not a device of this machine")
