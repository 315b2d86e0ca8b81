"""The notebooks as they are saved: whole runs, short cells, clean outputs, and checks that compare."""

import ast
import re
import shutil
import statistics
import subprocess
import sys
import types
from pathlib import Path

import nbformat
import pytest

HERE = Path(__file__).resolve().parent.parent
LESSONS = ["S5", "S6"]
HELPERS = {"S5": ["model.py", "utils.py", "insight.py", "exercises.py"]}
HELPERS["S6"] = [*HELPERS["S5"], "measurements.py"]
each_lesson = pytest.mark.parametrize("lesson", LESSONS)


def read(lesson):
    return nbformat.read(HERE / f"{lesson}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook):
    """All that the saved notebook printed to stdout."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def results(notebook):
    """The lines of the saved table of results, split into words, by network."""
    lines = re.split(r"^network +parameters", printed(notebook), flags=re.MULTILINE)[-1].splitlines()[1:]
    words = [line.split() for line in lines]
    return {line[0]: line[1:] for line in words if len(line) == 7 and line[5] == "%"}


@each_lesson
def test_saved_by_one_whole_run(lesson):
    notebook = read(lesson)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), "a null count would switch off nbval's comparison"
    assert not [o for cell in code_cells(notebook) for o in cell.outputs if o.output_type == "error"]
    assert "source:   MNIST" in printed(notebook) or "MNIST: 60,000 digits" in printed(notebook)


@each_lesson
def test_outputs_render_on_code_hosting_sites(lesson):
    notebook = read(lesson)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata
    for cell in code_cells(notebook):
        for output in cell.outputs:
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
            assert "\r" not in output.get("text", ""), "a progress bar is saved with all its states"
            assert "Warning" not in output.get("text", "")


@each_lesson
def test_cells_are_short_and_explained(lesson):
    notebook = read(lesson)
    lengths = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    assert max(lengths) <= 25 and statistics.median(lengths) <= 5
    pairs = list(zip(notebook.cells, notebook.cells[1:]))
    unexplained = [b for a, b in pairs if a.cell_type == b.cell_type == "code"]
    assert len(unexplained) <= 0.25 * len(lengths)
    assert notebook.cells[0].source.startswith("# Lesson ")
    assert f"/{lesson}.ipynb)" in notebook.cells[0].source, "the Colab badge opens this notebook"


@each_lesson
def test_deterministic_outputs_are_tagged_for_comparison(lesson):
    tagged = [c for c in code_cells(read(lesson)) if "nbval-check-output" in c.metadata.get("tags", [])]
    assert all(cell.outputs for cell in tagged)
    for cell in code_cells(read(lesson)):
        if ".summary()" in cell.source:
            assert cell in tagged, "a table of layers must be compared"
    assert len(tagged) >= {"S5": 3, "S6": 7}[lesson]


def test_saved_results_reach_what_the_lessons_promise():
    assert results(read("S5"))["Net"][:3] == ["593,200", "20", "MNIST"]
    assert float(results(read("S5"))["Net"][3]) >= 99.2
    for network, parameters in [("NetGAP", "17,466"), ("NetFC", "19,602")]:
        row = results(read("S6"))[network]
        assert row[0] == parameters and int(row[1]) < 20 and row[2] == "MNIST" and float(row[3]) >= 99.4


# --- The first cell, which prepares Colab --------------------------------------------------------


@pytest.fixture
def colab(tmp_path, monkeypatch):
    """An empty folder in something like Colab, and the commands that the first cell gives."""
    home = tmp_path / "content"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    commands = []
    real_run = subprocess.run

    def run(command, **keywords):
        commands.append(command)
        if command[0] == "git":
            real_run(command, **keywords, stderr=subprocess.DEVNULL)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


@pytest.fixture
def origin(tmp_path):
    """A repository with the helpers and a measurement, in the place of the one on the web."""
    folder = tmp_path / "origin"
    measurements = folder / "benchmarks" / "results"
    measurements.mkdir(parents=True)
    (measurements / "published.json").write_text("[]")
    for name in HELPERS["S6"]:
        shutil.copy(HERE / name, folder)
    for command in ["init --quiet", "add .", "-c user.name=a -c user.email=b commit --quiet -m c"]:
        subprocess.run(["git", *command.split()], cwd=folder, check=True)
    return folder


def first_cell(lesson, repository):
    source = code_cells(read(lesson))[0].source
    (address,) = [
        node.value.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "REPOSITORY"
    ]
    return source.replace(address, Path(repository).as_posix())


@each_lesson
def test_first_cell_fetches_the_helpers_in_colab(lesson, origin, colab):
    cell = first_cell(lesson, origin)
    exec(cell, {})
    for name in HELPERS[lesson]:
        assert Path(name).read_text(encoding="utf-8") == (HERE / name).read_text(encoding="utf-8")
    assert Path("benchmarks/results/published.json").exists() == (lesson == "S6")
    assert not any("torch" in command or "torchvision" in command for command in colab)

    colab.clear()
    exec(cell, {})
    assert colab == [], "the second run must do nothing"


@each_lesson
def test_first_cell_leaves_a_learners_own_files_alone(lesson, origin, colab):
    Path("model.py").write_text("# mine")
    exec(first_cell(lesson, origin), {})
    assert Path("model.py").read_text() == "# mine"
    assert Path("insight.py").exists()


@each_lesson
def test_first_cell_asks_for_an_upload_where_nothing_can_be_fetched(lesson, colab, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"upload model\.py, utils\.py, insight\.py, exercises\.py"):
        exec(first_cell(lesson, tmp_path / "nowhere"), {})


@each_lesson
def test_first_cell_installs_only_small_missing_packages(lesson, colab, monkeypatch):
    for name in HELPERS[lesson]:
        Path(name).touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    exec(first_cell(lesson, "nowhere"), {})
    assert [command[-2:] for command in colab] == [["torchsummary", "mlxtend"]]
    assert "--no-deps" in colab[0], "no dependency may replace Colab's torch"


@each_lesson
def test_first_cell_does_nothing_outside_colab(lesson, monkeypatch):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.setattr(subprocess, "run", lambda *_: pytest.fail("a command was run outside Colab"))
    exec(first_cell(lesson, "nowhere"), {})


# --- nbval -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("saved", "passes"), [("42\n", True), ("43\n", False)])
def test_nbval_compares_numbers_but_not_progress_bars(tmp_path, saved, passes):
    """A tagged cell that prints 42, saved with the right or a wrong number and another progress bar."""
    code = 'import sys\nprint(42)\nprint("now", file=sys.stderr)'
    cell = nbformat.v4.new_code_cell(code, execution_count=1, metadata={"tags": ["nbval-check-output"]})
    for name, text in [("stdout", saved), ("stderr", "then\n")]:
        cell.outputs.append(nbformat.v4.new_output("stream", name=name, text=text))
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "small.ipynb")
    shutil.copy(HERE / "conftest.py", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env", "small.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode == 0) == passes, done.stdout
    assert ("1 passed" in done.stdout) == passes
