"""The spreadsheet of lesson 6: its formulas are evaluated here, without the writer's help."""

import math
import re
import zipfile
from xml.etree import ElementTree

import pytest
import torch

from course.spreadsheet import write_spreadsheet

INPUTS = [0.05, 0.10]
TARGETS = [0.01, 0.99]
WEIGHTS = [0.15, 0.20, 0.25, 0.30, 0.40, 0.45, 0.50, 0.55]
STEPS = 200
SETTINGS = ["i1", "i2", "t1", "t2", "learning rate"]
ROW = [f"w{n}" for n in range(1, 9)] + ["E"] + [f"∂E/∂w{n}" for n in range(1, 9)]


class Sheet:
    """A sheet's cells; `compute` evaluates a formula from its constants, as Excel does."""

    def __init__(self, path):
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name).decode() for name in archive.namelist()}
        self.chart = files["xl/charts/chart1.xml"] + files["xl/drawings/drawing1.xml"]
        texts = read_xml(files["xl/sharedStrings.xml"])
        texts = ["".join(item.itertext()) for item in texts]
        styles = read_xml(files["xl/styles.xml"])
        fills = [ElementTree.tostring(fill).decode() for fill in styles.find("fills")]
        self.formulas = {}
        self.stored = {}
        self.yellow = set()
        for cell in read_xml(files["xl/worksheets/sheet1.xml"]).iter("c"):
            name = cell.get("r")
            value = cell.findtext("v")
            self.stored[name] = texts[int(value)] if cell.get("t") == "s" else float(value)
            if cell.find("f") is not None:
                self.formulas[name] = cell.findtext("f")
            style = styles.find("cellXfs")[int(cell.get("s", 0))]
            if "FFF2A8" in fills[int(style.get("fillId"))]:
                self.yellow.add(name)
        self.computed = {}

    def compute(self, cell):
        if cell not in self.formulas:
            return self.stored[cell]
        if cell not in self.computed:
            code = re.sub(r"\$?([A-Z]{1,2})\$?(\d+)", r'self.compute("\1\2")', self.formulas[cell])
            names = {"self": self, "EXP": math.exp}
            self.computed[cell] = eval(code.replace("^", "**"), names)
        return self.computed[cell]

    def cell(self, title, step):
        """The cell of a column in the row of a step."""
        (heading,) = [cell for cell, value in self.stored.items() if value == title]
        letters, row = re.fullmatch(r"([A-Z]+)(\d+)", heading).groups()
        return f"{letters}{int(row) + 1 + step}"

    def settings(self):
        """The cells of the settings, two to the right of their names in column A."""
        names = {value: cell for cell, value in self.stored.items() if cell[0] == "A"}
        return ["C" + names[title][1:] for title in SETTINGS]

    def row(self, step):
        """What the formulas give in the row of a step: the weights, the error, the gradients."""
        return [self.compute(self.cell(title, step)) for title in ROW]


def read_xml(text):
    """The tree of a file, without namespaces."""
    return ElementTree.fromstring(re.sub(r' xmlns="[^"]*"', "", text))


def by_autograd(weights, inputs=INPUTS, targets=TARGETS, rate=1.0, steps=0):
    """The weights, the error and the gradients after some steps, in one list."""
    w = torch.tensor(weights, dtype=torch.float64)
    i, t = torch.tensor([inputs, targets], dtype=torch.float64)
    for step in range(steps + 1):
        w.requires_grad_()
        hidden = torch.sigmoid(w[:4].view(2, 2) @ i)
        error = ((t - torch.sigmoid(w[4:].view(2, 2) @ hidden)) ** 2).sum() / 2
        (gradients,) = torch.autograd.grad(error, w)
        if step < steps:
            w = (w - rate * gradients).detach()
    return [*w.tolist(), error.item(), *gradients.tolist()]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("spreadsheet") / "new" / "b.xlsx"
    write_spreadsheet(path, INPUTS, WEIGHTS, TARGETS, 1.0, STEPS)
    return path


@pytest.fixture
def sheet(path):
    return Sheet(path)


def test_formulas_give_the_lessons_numbers(sheet):
    errors = [round(sheet.compute(sheet.cell("E", step)), 6) for step in (0, STEPS)]
    assert errors == [0.242520, 0.005207]
    for step in (0, 1, 50):
        expected = by_autograd(WEIGHTS, steps=step)
        assert sheet.row(step) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_stored_values_are_what_the_formulas_give(sheet):
    """A preview shows the stored values; zeros, or those of another row, would be noticed here."""
    assert len(sheet.formulas) == 19 * (STEPS + 1) + 8 * STEPS
    computed = {cell: sheet.compute(cell) for cell in sheet.formulas}
    stored = {cell: sheet.stored[cell] for cell in computed}
    assert stored == pytest.approx(computed, rel=1e-12)


def test_changing_the_yellow_cells_changes_all(sheet):
    """Notices a number that was written in place of a reference."""
    weights = [0.3, -0.2, 0.7, 0.1, -0.4, 0.8, 0.2, -0.6]
    weight_cells = [sheet.cell(f"w{n}", 0) for n in range(1, 9)]
    assert sheet.yellow == {*weight_cells, *sheet.settings()}
    sheet.stored |= dict(zip(weight_cells, weights))
    sheet.stored |= dict(zip(sheet.settings(), [0.9, -0.3, 0.4, 0.2, 0.25]))
    expected = by_autograd(weights, [0.9, -0.3], [0.4, 0.2], 0.25, steps=3)
    assert sheet.row(3) == pytest.approx(expected, rel=1e-9)


def test_references_to_settings_stay_when_a_formula_is_copied(sheet):
    """In Excel, `$C$4` stays when a cell is filled into others, `C$4` and `$C4` do not."""
    settings = sheet.settings()
    references = set(re.findall(r"[$A-Z]+[$\d]+", " ".join(sheet.formulas.values())))
    found = {reference for reference in references if reference.replace("$", "") in settings}
    assert found == {f"${cell[0]}${cell[1:]}" for cell in settings}


def test_the_chart_shows_the_error_after_each_step(sheet):
    letters, first = re.fullmatch(r"([A-Z]+)(\d+)", sheet.cell("E", 0)).groups()
    last = int(first) + STEPS
    assert sheet.stored[f"A{first}"] == 0 and sheet.stored[f"A{last}"] == STEPS
    assert f"Backpropagation!${letters}${first}:${letters}${last}" in sheet.chart
    assert f"Backpropagation!$A${first}:$A${last}" in sheet.chart
    assert f'<c:max val="{STEPS}"/>' in sheet.chart
    rows = re.findall(r"<xdr:row>(\d+)", sheet.chart)  # counted from 0
    assert max(int(row) for row in rows) + 1 < int(first) - 1, "it covers no number"


SIZES = "two inputs, eight weights, two targets, and 1 to 10,000 steps"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"weights": WEIGHTS[:7]}, SIZES),
        ({"inputs": INPUTS[:1]}, SIZES),
        ({"targets": TARGETS * 2}, SIZES),
        ({"steps": 0}, SIZES),
        ({"steps": 10_001}, SIZES),
        ({"inputs": [0.05, math.nan]}, "the spreadsheet needs finite numbers"),
        ({"learning_rate": math.inf}, "the spreadsheet needs finite numbers"),
        ({"weights": [-1e6] * 8}, "the numbers become infinite: use smaller weights"),
    ],
    ids=str,
)
def test_wrong_numbers_are_refused_before_the_file_is_touched(tmp_path, wrong, reason):
    (tmp_path / "b.xlsx").write_text("mine")
    right = {"inputs": INPUTS, "weights": WEIGHTS, "targets": TARGETS, "learning_rate": 1.0}
    with pytest.raises(ValueError, match=reason):
        write_spreadsheet(tmp_path / "b.xlsx", **right | wrong)
    assert (tmp_path / "b.xlsx").read_text() == "mine"


def test_a_place_that_cannot_be_written_does_not_stop_the_lesson(tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    write_spreadsheet(tmp_path / "file" / "a.xlsx", INPUTS, WEIGHTS, TARGETS, 0.5, steps=1)
    assert "a.xlsx: File exists." in capsys.readouterr().out
