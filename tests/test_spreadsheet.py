"""The spreadsheet of lesson 6: its formulas are evaluated here, without the writer's help."""

import math
import re
import shutil
import subprocess
import zipfile
from xml.etree import ElementTree

import pytest
import torch

from course.spreadsheet import COLUMNS, write_spreadsheet

INPUTS, TARGETS = [0.05, 0.10], [0.01, 0.99]
WEIGHTS = [0.15, 0.20, 0.25, 0.30, 0.40, 0.45, 0.50, 0.55]
NAMESPACE = {"x": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}


class Sheet:
    """A sheet's cells; `compute` evaluates a formula from the constants it leads back to, as Excel does."""

    def __init__(self, path):
        with zipfile.ZipFile(path) as archive:
            self.chart = archive.read("xl/charts/chart1.xml").decode()
            self.drawing = archive.read("xl/drawings/drawing1.xml").decode()
            styles = ElementTree.fromstring(archive.read("xl/styles.xml"))
            tree = ElementTree.fromstring(archive.read("xl/worksheets/sheet1.xml"))
            strings = ElementTree.fromstring(archive.read("xl/sharedStrings.xml"))
        texts = ["".join(item.itertext()) for item in strings.findall("x:si", NAMESPACE)]
        fills = [
            "FFF2A8" in ElementTree.tostring(fill).decode()
            for fill in styles.find("x:fills", NAMESPACE)
        ]
        is_yellow = [fills[int(xf.get("fillId"))] for xf in styles.find("x:cellXfs", NAMESPACE)]
        self.formulas, self.stored, self.computed, self.yellow = {}, {}, {}, set()
        for cell in tree.iter(f"{{{NAMESPACE['x']}}}c"):
            formula, value = cell.find("x:f", NAMESPACE), cell.find("x:v", NAMESPACE)
            if value is None:
                continue
            if is_yellow[int(cell.get("s", 0))]:
                self.yellow.add(cell.get("r"))
            if formula is not None:
                self.formulas[cell.get("r")] = formula.text
            self.stored[cell.get("r")] = (
                texts[int(value.text)] if cell.get("t") == "s" else float(value.text)
            )

    def compute(self, cell):
        if cell not in self.formulas:
            return self.stored[cell]
        if cell not in self.computed:
            code = re.sub(r"\$?([A-Z]{1,2})\$?(\d+)", r'self.compute("\1\2")', self.formulas[cell])
            names = {"self": self, "EXP": math.exp}
            self.computed[cell] = eval(code.replace("^", "**"), names)
        return self.computed[cell]

    def column(self, title):
        """The cells below a title."""
        (top,) = [cell for cell, value in self.stored.items() if value == title]
        letters, row = re.fullmatch(r"([A-Z]+)(\d+)", top).groups()
        return [
            f"{letters}{n}"
            for n in range(int(row) + 1, int(row) + 1000)
            if f"{letters}{n}" in self.stored
        ]

    def setting(self, title):
        (cell,) = [
            cell for cell, value in self.stored.items() if value == title and cell.startswith("A")
        ]
        return "C" + cell[1:]


@pytest.fixture
def sheet(tmp_path):
    write_spreadsheet(tmp_path / "new" / "b.xlsx", INPUTS, WEIGHTS, TARGETS, 1.0, steps=200)
    return Sheet(tmp_path / "new" / "b.xlsx")


def by_autograd(weights, inputs=INPUTS, targets=TARGETS, rate=1.0, steps=0):
    """(weights, error, gradients) after some steps."""
    w = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
    i, t = torch.tensor([inputs, targets], dtype=torch.float64)
    for step in range(steps + 1):
        hidden = torch.sigmoid(w[:4].view(2, 2) @ i)
        error = ((t - torch.sigmoid(w[4:].view(2, 2) @ hidden)) ** 2).sum() / 2
        (slopes,) = torch.autograd.grad(error, w)
        if step < steps:
            w = (w - rate * slopes).detach().requires_grad_()
    return w.tolist(), error.item(), slopes.tolist()


def row(sheet, step):
    """(weights, error, gradients) that the formulas give in the row of a step."""
    weights = [sheet.compute(sheet.column(f"w{n}")[step]) for n in range(1, 9)]
    slopes = [sheet.compute(sheet.column(f"∂E/∂w{n}")[step]) for n in range(1, 9)]
    return weights, sheet.compute(sheet.column("E")[step]), slopes


def test_formulas_give_the_lessons_numbers(sheet):
    assert round(sheet.compute(sheet.column("E")[0]), 6) == 0.242520
    assert round(sheet.compute(sheet.column("E")[200]), 6) == 0.005207
    for step in (0, 1, 50):
        for ours, theirs in zip(row(sheet, step), by_autograd(WEIGHTS, steps=step)):
            assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-15)


def test_stored_values_are_what_the_formulas_give(sheet):
    """A preview shows the stored values; zeros, or those of another row, would be noticed here."""
    assert len(sheet.formulas) > 200 * len(COLUMNS) * 0.9
    for cell in sheet.formulas:
        assert sheet.stored[cell] == pytest.approx(sheet.compute(cell), rel=1e-12)


def test_changing_a_yellow_cell_changes_all(sheet):
    """Notices a number that was written in place of a reference."""
    changed = [0.3, -0.2, 0.7, 0.1, -0.4, 0.8, 0.2, -0.6]
    for n, value in enumerate(changed, 1):
        sheet.stored[sheet.column(f"w{n}")[0]] = value
    for title, value in {
        "i1": 0.9,
        "i2": -0.3,
        "t1": 0.4,
        "t2": 0.2,
        "learning rate": 0.25,
    }.items():
        sheet.stored[sheet.setting(title)] = value
    expected = by_autograd(changed, [0.9, -0.3], [0.4, 0.2], 0.25, steps=3)
    for ours, theirs in zip(row(sheet, 3), expected):
        assert ours == pytest.approx(theirs, rel=1e-9)


def test_references_to_yellow_cells_stay_when_a_formula_is_copied(tmp_path):
    """In Excel, `$C$4` stays when a cell is filled into others, `C$4` and `$C4` do not."""
    write_spreadsheet(tmp_path / "b.xlsx", INPUTS, WEIGHTS, TARGETS, 1.0, steps=1)
    sheet = Sheet(tmp_path / "b.xlsx")
    settings = {sheet.setting(title) for title in ["i1", "i2", "t1", "t2", "learning rate"]}
    assert sheet.yellow == settings | {sheet.column(f"w{n}")[0] for n in range(1, 9)}
    references = [
        found
        for formula in sheet.formulas.values()
        for found in re.findall(r"[$A-Z]+[$\d]+", formula)
    ]
    assert {found for found in references if found.replace("$", "") in settings} == {
        re.sub(r"(\D+)(\d+)", r"$\1$\2", cell) for cell in settings
    }


def test_the_chart_shows_the_error_after_each_step(sheet):
    cells = sheet.column("E")
    letters, first, last = (
        cells[0].rstrip("0123456789"),
        *(re.sub(r"\D", "", cell) for cell in (cells[0], cells[-1])),
    )
    assert f"Backpropagation!${letters}${first}:${letters}${last}" in sheet.chart
    assert sheet.stored[f"A{first}"] == 0 and sheet.stored[f"A{last}"] == 200
    assert (
        f"Backpropagation!$A${first}:$A${last}" in sheet.chart
        and '<c:max val="200"/>' in sheet.chart
    )
    lowest = max(int(row) for row in re.findall(r"<xdr:row>(\d+)", sheet.drawing))  # counted from 0
    assert lowest + 1 < int(first) - 1, "it covers no number"


def test_wrong_sizes_are_refused_before_the_file_is_touched(tmp_path):
    (tmp_path / "b.xlsx").write_text("mine")
    for wrong in [
        (INPUTS, WEIGHTS[:7], TARGETS, 1.0),
        (INPUTS[:1], WEIGHTS, TARGETS, 1.0),
        (INPUTS, WEIGHTS, TARGETS * 2, 1.0),
    ]:
        with pytest.raises(ValueError, match="two inputs, eight weights, two targets"):
            write_spreadsheet(tmp_path / "b.xlsx", *wrong)
    for steps in (0, 10_001):
        with pytest.raises(ValueError, match="1 to 10,000 steps"):
            write_spreadsheet(tmp_path / "b.xlsx", INPUTS, WEIGHTS, TARGETS, 1.0, steps)
    assert (tmp_path / "b.xlsx").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice is not installed")
def test_libreoffice_computes_the_same(sheet, tmp_path):
    """Without the stored values, which LibreOffice would believe, and with another w5."""
    bare, written = tmp_path / "bare.xlsx", tmp_path / "new" / "b.xlsx"
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(bare, "w") as target:
        for name in source.namelist():
            content = source.read(name).decode()
            if name.endswith("sheet1.xml"):
                content = re.sub(r"(<f>[^<]*</f>)<v>[^<]*</v>", r"\1", content).replace(
                    "<v>0.4</v>", "<v>0.9</v>"
                )
            target.writestr(name, content)
    profile = f"-env:UserInstallation=file://{tmp_path}/profile"
    command = [
        "soffice",
        profile,
        "--headless",
        "--convert-to",
        "csv",
        "--outdir",
        str(tmp_path),
        str(bare),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    rows = [
        line.split(",") for line in (tmp_path / "bare.csv").read_text(errors="replace").splitlines()
    ]
    (top,) = [number for number, row in enumerate(rows) if row[:2] == ["step", "w1"]]
    changed = [0.9 if weight == 0.4 else weight for weight in WEIGHTS]
    for step in (0, 1, 200):
        weights, error, slopes = by_autograd(changed, steps=step)
        found = [float(number) for number in rows[top + 1 + step]]
        assert found[1:9] == pytest.approx(weights, abs=1e-6)
        assert found[rows[top].index("E")] == pytest.approx(error, abs=1e-6)
        assert found[-8:] == pytest.approx(slopes, abs=1e-6)


def test_a_place_that_cannot_be_written_does_not_stop_the_lesson(tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    write_spreadsheet(tmp_path / "file" / "a.xlsx", INPUTS, WEIGHTS, TARGETS, 0.5, steps=1)
    assert "a.xlsx: File exists." in capsys.readouterr().out
