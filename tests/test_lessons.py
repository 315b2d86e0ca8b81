"""The lessons' exercises: open ones are told so, the solutions are right, and both are the same exercises."""

import re

import nbformat
import pytest
import torch
import torch.nn.functional as F
from test_notebooks import HERE, LESSONS, code_cells, printed, read
from torch import nn

import exercises

each_lesson = pytest.mark.parametrize("lesson", LESSONS)


def solutions(lesson):
    return nbformat.read(HERE / "solutions" / f"{lesson}.ipynb", as_version=4)


def headings(notebook):
    """The numbered headings: those of the exercises stand last in a lesson."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return re.findall(r"^#+ (\d\. .*)$", "\n".join(texts), re.MULTILINE)


def tagged(notebook, tag):
    return [cell.source for cell in code_cells(notebook) if tag in cell.metadata.get("tags", [])]


def count_checks(sources):
    return len(re.findall(r"^check_\w+\(", "\n".join(sources), re.MULTILINE))


@each_lesson
def test_open_exercises_are_told_so(lesson, capsys):
    names = {"torch": torch, "F": F, "nn": nn} | {
        name: getattr(exercises, name) for name in exercises.__all__
    }
    for source in tagged(read(lesson), "exercise"):
        exec(source, dict(names))
        said = capsys.readouterr().out.splitlines()
        assert len(said) == count_checks([source]) > 0
        assert all(line.startswith("✗ ") for line in said), said


@each_lesson
def test_solutions_are_saved_as_right_and_compared(lesson):
    compared = tagged(solutions(lesson), "nbval-check-output")
    assert printed(solutions(lesson)) == "✓ Right!\n" * count_checks(compared)
    assert count_checks(compared) == count_checks(tagged(read(lesson), "exercise"))


@each_lesson
def test_solutions_solve_the_exercises_of_the_lesson(lesson):
    solved = headings(solutions(lesson))
    assert solved == headings(read(lesson))[-len(solved) :]
    assert 5 <= len(solved) == len(tagged(read(lesson), "exercise")) <= 8
