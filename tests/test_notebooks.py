"""The saved notebooks: whole runs, short cells, clean outputs, working comparisons, exercises."""

import ast
import base64
import re
import shutil
import statistics
import subprocess
import sys

import nbformat
import pytest
import torch
import torch.nn.functional as F
from helpers import (
    LESSONS,
    ROOT,
    code_cells,
    each_lesson,
    printed,
    read,
    results,
    run_python,
    solutions,
    tagged,
)
from IPython.core.inputtransformer2 import TransformerManager
from torch import nn

from course import exercises
from course.widgets.bench import BackpropBench
from course.widgets.lens import ConvolutionLens
from course.widgets.pad import DigitPad
from tools import run_lessons

SOLVED = [lesson for lesson in LESSONS if (ROOT / "solutions" / f"{lesson}.ipynb").exists()]
each_solved = pytest.mark.parametrize("lesson", SOLVED)


def outputs_of(lesson):
    return [output for cell in code_cells(read(lesson)) for output in cell.outputs]


@each_lesson
def test_saved_by_one_whole_run(lesson):
    """A null count would switch off nbval's comparison."""
    cells = code_cells(read(lesson))
    counts = [cell.execution_count for cell in cells]
    numbers = list(range(1, len(cells) + 1))
    assert counts == numbers, f"run those that never ran: python -m tools.run_lessons {lesson} ..."
    assert not [output for output in outputs_of(lesson) if output.output_type == "error"]
    if any("get_trainloader(" in cell.source for cell in cells):
        assert "MNIST: 60,000 digits" in printed(read(lesson))


@pytest.mark.parametrize("notebook", [*LESSONS, *(f"solutions/{lesson}" for lesson in SOLVED)])
def test_outputs_belong_to_the_code(notebook):
    """Nbval compares tagged cells; of the others, a note tells what code was run."""
    changed = run_lessons.changed_cells(read(notebook))
    command = f"python -m tools.run_lessons {notebook} --in-place --cells"
    assert not changed, (
        f"their code has changed: {command} {' '.join(changed)} (and the cells that they need)"
    )


def prints_at_once(source):
    """Whether code calls `print` as it runs, and not only in functions that it defines."""
    statements = ast.parse(TransformerManager().transform_cell(source)).body  # `!git clone`, too
    at_once = [part for part in statements if not isinstance(part, ast.FunctionDef | ast.ClassDef)]
    names = [node for part in at_once for node in ast.walk(part) if isinstance(node, ast.Name)]
    return any(name.id == "print" for name in names)


@each_lesson
def test_no_output_is_lost(lesson):
    """Notices a cell whose words were deleted: a page would then show nothing below it."""
    cells = [cell for cell in code_cells(read(lesson)) if prints_at_once(cell.source)]
    assert cells
    assert [cell.id for cell in cells if not cell.outputs] == []


@each_lesson
def test_outputs_render_on_code_hosting_sites(lesson):
    notebook = read(lesson)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata
    for output in outputs_of(lesson):
        assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
        assert "\r" not in output.get("text", ""), "a progress bar is saved with all its states"
        assert "Warning" not in output.get("text", "")


@pytest.mark.parametrize("widget", [BackpropBench, ConvolutionLens, DigitPad])
def test_widgets_are_saved_with_their_present_still_pictures(widget):
    data = [output.get("data", {}) for lesson in LESSONS for output in outputs_of(lesson)]
    saved = [each["image/png"] for each in data if widget.__name__ in each.get("text/plain", "")]
    present = (ROOT / "Test_Images" / widget.preview).read_bytes()
    assert saved and all(base64.b64decode(picture) == present for picture in saved)


@each_lesson
def test_cells_are_short_and_explained(lesson):
    notebook = read(lesson)
    _, *cells = code_cells(notebook)  # the first is the same in all lessons
    lengths = [len(cell.source.splitlines()) for cell in cells]
    assert max(lengths) <= 25, "divide the cells with more than 25 lines"
    assert statistics.median(lengths) <= 6, "half of the cells should have six lines at most"
    pairs = list(zip(notebook.cells, notebook.cells[1:]))
    unexplained = [b for a, b in pairs if a.cell_type == b.cell_type == "code"]
    assert len(unexplained) <= 0.25 * len(lengths)
    assert notebook.cells[0].source.startswith("# Lesson ")
    assert f"/{lesson}.ipynb)" in notebook.cells[0].source, "the Colab badge opens this notebook"


@each_lesson
def test_deterministic_outputs_are_tagged_for_comparison(lesson):
    compared = tagged(read(lesson), "nbval-check-output")
    assert all(cell.outputs for cell in compared)
    tables = [cell for cell in code_cells(read(lesson)) if ".summary()" in cell.source]
    assert all(cell in compared for cell in tables), "a table of layers must be compared"
    assert len(compared) >= {"S5": 3, "S6": 7}.get(lesson, 0)


def test_saved_results_reach_what_the_lessons_promise():
    promised = [("S5", "Net", 20, 99.2), ("S6", "NetGAP", 19, 99.4), ("S6", "NetFC", 19, 99.4)]
    for lesson, network, most_epochs, goal in promised:
        row = results(read(lesson))[network]
        epochs = int(row[1])
        data = row[2]
        accuracy = float(row[3])
        assert data == "MNIST" and epochs <= most_epochs and accuracy >= goal


# --- One more lesson ----------------------------------------------------------------------------


def write_lesson_7(folder):
    """Twenty cells: the title and the set-up of lesson 5, and nine sums."""
    lesson = read("S5")
    badges = [line for line in lesson.cells[0].source.splitlines() if line.startswith("[![")]
    badges = "\n".join(badges).replace("S5.ipynb", "S7.ipynb")
    setup = code_cells(lesson)[0]
    cells = [nbformat.v4.new_markdown_cell(f"# Lesson 7: sums\n\n{badges}\n\nYou will add."), setup]
    for number in range(2, 11):
        cells.append(nbformat.v4.new_markdown_cell(f"Add {number} to itself:"))
        sum_of_two = nbformat.v4.new_output("stream", text=f"{2 * number}\n")
        code = f"print({number} + {number})"
        cells.append(nbformat.v4.new_code_cell(code, execution_count=number, outputs=[sum_of_two]))
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=lesson.metadata)
    run_lessons.note_sources(cells)
    nbformat.write(notebook, folder / "S7.ipynb")


@pytest.mark.slow
def test_one_more_lesson_is_a_notebook_and_an_entry(tmp_path):
    """In a copy of the course: it is published, it is on the website, and the tests know it."""
    folder = tmp_path / "course"
    left_out = [".*", "runs", "site", "data", "__pycache__"]
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*left_out))
    write_lesson_7(folder)
    entry = folder / "course" / "__init__.py"
    entry.write_text(entry.read_text().replace('"S6": 10}', '"S6": 10, "S7": 1}'))
    said = run_python("-m", "tools.publish", "some-one/mnist-course", cwd=folder, PYTHONPATH="")
    assert "S7.ipynb: 5 links now lead to https://github.com/some-one/mnist-course" in said
    run_python("-m", "website.build", "runs/site", cwd=folder, PYTHONPATH="")
    site = folder / "runs" / "site"
    assert "github/some-one/mnist-course/blob/main/S7.ipynb" in (site / "S7.ipynb").read_text()
    assert "\nLesson 7 <S7>\n" in (site / "index.md").read_text(encoding="utf-8")
    names = ["notebooks", "publish", "glossary", "first_cell", "readme", "run_lessons"]
    files = [f"tests/test_{name}.py" for name in names]
    chosen = ["-m", "not slow", "-k", "S7 or all_lessons or lessons_are or is_loaded"]
    said = run_python("-m", "pytest", "-q", *chosen, *files, cwd=folder, PYTHONPATH="")
    passed = re.search(r"(\d+) passed", said)
    assert passed and int(passed[1]) >= 10, said


# --- Exercises: open ones say so, the solutions are right, and both are the same exercises ------


def headings(notebook):
    """The numbered headings: those of the exercises stand last in a lesson."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return re.findall(r"^#+ (\d+\. .*)$", "\n".join(texts), re.MULTILINE)


def test_the_table_for_teachers_has_each_exercise():
    text = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    exercises = []
    for lesson in SOLVED:
        for number, _ in enumerate(headings(solutions(lesson)), start=1):
            exercises.append(f"{lesson[1:]}.{number}")
    assert re.findall(r"^\| (\d+\.\d+) \|", text, re.MULTILINE) == exercises


def count_checks(cells):
    return len(re.findall(r"^check_\w+\(", "\n".join(cell.source for cell in cells), re.MULTILINE))


def test_the_lessons_are_those_in_the_folder():
    """The Makefile runs what it finds, the other commands what course.LESSONS lists."""
    assert {path.stem for path in ROOT.glob("S*.ipynb")} == set(LESSONS)
    with_exercises = {lesson for lesson in LESSONS if tagged(read(lesson), "exercise")}
    assert {path.stem for path in ROOT.glob("solutions/*.ipynb")} == with_exercises


@each_lesson
def test_open_exercises_say_so(lesson, capsys):
    checks = {name: getattr(exercises, name) for name in exercises.__all__}
    for cell in tagged(read(lesson), "exercise"):
        exec(cell.source, {"torch": torch, "F": F, "nn": nn, **checks})
        said = capsys.readouterr().out.splitlines()
        assert len(said) == count_checks([cell]) > 0
        assert all(line.startswith("✗ ") for line in said), said


@each_solved
def test_solutions_solve_the_exercises_of_the_lesson(lesson):
    exercise_cells = tagged(read(lesson), "exercise")
    solved = headings(solutions(lesson))
    assert solved == headings(read(lesson))[-len(exercise_cells) :]
    compared = tagged(solutions(lesson), "nbval-check-output")
    assert count_checks(compared) == count_checks(exercise_cells)
    said = printed(nbformat.v4.new_notebook(cells=compared))
    assert said == "✓ Right!\n" * count_checks(compared)


def test_the_solution_quotes_what_both_networks_reach():
    """The accuracies of the third epoch: `Small` in the solution, `Net` in the lesson."""
    small, net = (
        re.search(r"Epoch  3: .* test (\d\d\.\d\d) %", printed(notebook))[1]
        for notebook in [solutions("S5"), read("S5")]
    )
    text = " ".join("".join(cell.source for cell in solutions("S5").cells).split())
    assert f"`Small` has {small} % after its third epoch, and `Net` has {net} %" in text


# --- What learners copy, and what nbval compares --------------------------------------------------


def test_no_file_that_is_loaded_can_run_code():
    """A learner copies what a lesson does: so each torch.load says that it wants weights only."""
    notebooks = [*map(read, LESSONS), *map(solutions, SOLVED)]
    sources = [cell.source for notebook in notebooks for cell in code_cells(notebook)]
    files = [ROOT / "utils.py", *ROOT.glob("course/**/*.py")]
    sources += [path.read_text(encoding="utf-8") for path in files]
    trees = [ast.parse(source) for source in sources if "torch.load(" in source]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    loads = [ast.unparse(call) for call in calls if ast.unparse(call.func) == "torch.load"]
    assert len(loads) >= 3
    assert all("weights_only=True" in load for load in loads)


@pytest.mark.slow
def test_nbval_compares_numbers_but_not_progress_bars(tmp_path):
    """Tagged cells print 42. Saved were 42 and 43, each with another progress bar."""
    notebook = nbformat.v4.new_notebook()
    for saved in ["42\n", "43\n"]:
        code = 'import sys\nprint(42)\nprint("now", file=sys.stderr)'
        cell = nbformat.v4.new_code_cell(code, execution_count=1)
        cell.metadata["tags"] = ["nbval-check-output"]
        for name, text in [("stdout", saved), ("stderr", "then\n")]:
            cell.outputs.append(nbformat.v4.new_output("stream", name=name, text=text))
        notebook.cells.append(cell)
    nbformat.write(notebook, tmp_path / "small.ipynb")
    shutil.copy(ROOT / "conftest.py", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env"]
    done = subprocess.run([*command, "small.ipynb"], cwd=tmp_path, capture_output=True, text=True)
    assert "FAILED small.ipynb::Cell 1" in done.stdout
    assert "1 failed, 1 passed" in done.stdout
