"""The README says what the notebooks and the networks say."""

import re

import pytest
from test_notebooks import HERE, LESSONS, code_cells, printed, read, results

import model
import report
import utils

README = (HERE / "README.md").read_text(encoding="utf-8")


def table_rows(text):
    """The cells of all table rows, without the markup of code and emphasis."""
    rows = [line.strip().strip("|").split("|") for line in text.splitlines() if line.lstrip().startswith("|")]
    return [[cell.strip().strip("`*") for cell in row] for row in rows]


@pytest.mark.parametrize("lesson", LESSONS)
def test_results_are_those_of_the_saved_notebooks(lesson):
    for network, (parameters, epochs, data, accuracy, _, seconds) in results(read(lesson)).items():
        row = [network, lesson, parameters, epochs, f"{data} test set", f"{accuracy} %", f"{int(seconds):,}"]
        assert row in table_rows(README), f"the README lacks {row}"


def test_every_accuracy_stands_in_a_saved_notebook_or_was_measured():
    figures = set(re.findall(r"\d\d\.\d\d", README))
    known = "".join(printed(read(lesson)) for lesson in LESSONS)
    known += "\n".join([*report.accuracy_table(), report.race_line()])
    known += " ".join(f"{row['accuracy']:.2f}" for row in report.read("published"))
    assert figures and all(figure in known for figure in figures)


@pytest.mark.parametrize("name", ["Net", "NetGAP", "NetFC", "NetMini"])
def test_tables_of_layers_add_up(name):
    section = README.split(f"### `{name}`")[1].split("\n#")[0]
    numbers = [row[-1] for row in table_rows(section)[2:]]
    total = sum(int(number.replace(",", "")) for cell in numbers for number in re.findall(r"[\d,]+", cell))
    assert total == sum(parameter.numel() for parameter in getattr(model, name)().parameters())


def test_every_picture_is_written_by_a_notebook_and_shown_by_the_readme():
    """But for the pad, which is a picture of a browser."""
    sources = "".join(cell.source for lesson in LESSONS for cell in code_cells(read(lesson)))
    written = {"Test_Images/digit_pad.png"} | set(re.findall(r'save="(Test_Images/[\w.]+)"', sources))
    shown = set(re.findall(r"\((Test_Images/[\w.]+)\)", README))
    kept = {f"Test_Images/{path.name}" for path in (HERE / "Test_Images").iterdir()}
    assert written == shown == kept


def test_environment_variables_are_those_that_utils_reads():
    source = (HERE / "utils.py").read_text(encoding="utf-8")
    assert set(re.findall(r'environ\.get\("(\w+)"', source)) == {
        "SMOKE_TEST",
        "EPOCHS",
        "MNIST_ROOT",
        "DEVICE",
    }
    assert all(f"| `{name}" in README for name in ["SMOKE_TEST", "EPOCHS", "MNIST_ROOT", "DEVICE"])
    notebooks = "".join(cell.source for lesson in LESSONS for cell in code_cells(read(lesson)))
    assert "environ" not in notebooks, "the environment is read in utils.py only"


def test_error_messages_quoted_in_the_readme_exist():
    sources = (HERE / "utils.py").read_text(encoding="utf-8") + (HERE / "model.py").read_text(
        encoding="utf-8"
    )
    quoted = [
        row[0] for row in table_rows(README.split("## When something goes wrong")[1].split("\n## ")[0])[2:]
    ]
    own = [message for message in quoted if message.startswith("…")]
    assert own and all(message.strip("… ") in sources for message in own)


def test_the_public_names_are_all_there():
    for name in utils.__all__:
        assert hasattr(utils, name), name


def test_the_example_says_what_happens(capsys):
    section = README.split("## In your own notebook")[1]
    example = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    exec(example.replace("model(torch.zeros", "total = model(torch.zeros"), names := {})
    assert "Total params: 17,466" in capsys.readouterr().out
    assert abs(names["total"].item() - 1) < 1e-5
