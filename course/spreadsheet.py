"""Lesson 6, part 1, as a spreadsheet: a row for each step, with live formulas in the lesson's notation."""

import io
import math
import re

import xlsxwriter

from course.files import replacing

# What a row computes from its weights, in the order of the columns. `i1` and `t1` are yellow cells above.
SUMS = {"h1": "w1*i1+w2*i2", "h2": "w3*i1+w4*i2"}
HIDDEN = {"a_h1": "1/(1+EXP(-h1))", "a_h2": "1/(1+EXP(-h2))"}
OUTPUTS = {
    "o1": "w5*a_h1+w6*a_h2",
    "o2": "w7*a_h1+w8*a_h2",
    "a_o1": "1/(1+EXP(-o1))",
    "a_o2": "1/(1+EXP(-o2))",
}
ERRORS = {"E1": "(t1-a_o1)^2/2", "E2": "(t2-a_o2)^2/2", "E": "E1+E2"}
TO_H1 = "((a_o1-t1)*a_o1*(1-a_o1)*w5+(a_o2-t2)*a_o2*(1-a_o2)*w7)*a_h1*(1-a_h1)"
TO_H2 = "((a_o1-t1)*a_o1*(1-a_o1)*w6+(a_o2-t2)*a_o2*(1-a_o2)*w8)*a_h2*(1-a_h2)"
GRADIENTS = {
    "dE_dw1": f"{TO_H1}*i1",
    "dE_dw2": f"{TO_H1}*i2",
    "dE_dw3": f"{TO_H2}*i1",
    "dE_dw4": f"{TO_H2}*i2",
    "dE_dw5": "(a_o1-t1)*a_o1*(1-a_o1)*a_h1",
    "dE_dw6": "(a_o1-t1)*a_o1*(1-a_o1)*a_h2",
    "dE_dw7": "(a_o2-t2)*a_o2*(1-a_o2)*a_h1",
    "dE_dw8": "(a_o2-t2)*a_o2*(1-a_o2)*a_h2",
}
FORMULAS = SUMS | HIDDEN | OUTPUTS | ERRORS | GRADIENTS
WEIGHTS = [f"w{n}" for n in range(1, 9)]
COLUMNS = ["step", *WEIGHTS, *FORMULAS]
SETTINGS = ["i1", "i2", "t1", "t2", "learning rate"]
TOP = 22  # the row of the column names, counted from 0 as XlsxWriter does; the chart stands above


def write_spreadsheet(path, inputs, weights, targets, learning_rate, steps=100):
    """Write some steps of gradient descent to an Excel file, in which changing a yellow cell changes all."""
    if not 1 <= steps <= 10_000 or len(weights) != 8 or len(inputs) != 2 or len(targets) != 2:
        raise ValueError(
            "the spreadsheet needs two inputs, eight weights, two targets, and 1 to 10,000 steps"
        )
    file = io.BytesIO()
    book = xlsxwriter.Workbook(file)
    sheet = book.add_worksheet("Backpropagation")
    bold, title = book.add_format({"bold": True}), book.add_format({"bold": True, "font_size": 14})
    number = book.add_format({"num_format": "0.000000"})
    yellow = book.add_format({"bg_color": "#FFF2A8", "border": 1})
    names = book.add_format({"bold": True, "bottom": 1, "align": "right"})
    sheet.write(
        0,
        0,
        "Backpropagation by hand: a network of two inputs, two hidden neurons and two outputs",
        title,
    )
    sheet.write(
        1, 0, "Change a yellow cell, and all else follows. Click on a number to see its formula."
    )
    for row, (name, value) in enumerate(zip(SETTINGS, [*inputs, *targets, learning_rate]), 3):
        sheet.write(row, 0, name, bold)
        sheet.write(row, 2, value, yellow)
    for column, name in enumerate(COLUMNS):
        sheet.write(TOP, column, name.replace("dE_d", "∂E/∂"), names)
    values = dict(zip(WEIGHTS, weights)) | dict(zip(SETTINGS, [*inputs, *targets, learning_rate]))
    for step in range(steps + 1):
        row = TOP + 1 + step
        sheet.write(row, 0, step)
        if step == 0:
            for name in WEIGHTS:
                sheet.write(row, COLUMNS.index(name), values[name], yellow)
        else:
            values |= {w: values[w] - learning_rate * values[f"dE_d{w}"] for w in WEIGHTS}
            for w in WEIGHTS:
                formula = (
                    f"={_cell(w, row - 1)}-{_cell('learning rate')}*{_cell(f'dE_d{w}', row - 1)}"
                )
                sheet.write_formula(row, COLUMNS.index(w), formula, number, values[w])
        for name, formula in FORMULAS.items():
            values[name] = _evaluate(formula, values)
            sheet.write_formula(
                row, COLUMNS.index(name), _in_cells(formula, row), number, values[name]
            )
    _add_chart(book, sheet, steps)
    sheet.set_column(1, len(COLUMNS), 10)
    sheet.set_landscape()  # printed, all columns fit on a page
    sheet.fit_to_pages(1, 0)
    book.close()
    try:
        with replacing(path) as target:
            target.write(file.getvalue())
    except OSError as error:  # as with a picture, this is no reason to stop a lesson
        print(f"The spreadsheet could not be saved as {path}: {error.strerror}.")


def _cell(name, row=None):
    """The cell of a setting, or of a number in a row, as Excel writes it."""
    if name in SETTINGS:
        return xlsxwriter.utility.xl_rowcol_to_cell(
            3 + SETTINGS.index(name), 2, row_abs=True, col_abs=True
        )
    return xlsxwriter.utility.xl_rowcol_to_cell(row, COLUMNS.index(name))


def _in_cells(formula, row):
    """The formula as Excel needs it: with cells of this row, and yellow cells, in place of names."""
    return "=" + re.sub(r"[a-z_]*[a-zE]\d", lambda name: _cell(name[0], row), formula)


def _evaluate(formula, values):
    """What Excel will compute, stored beside the formula so that previews show it."""
    return eval(formula.replace("^", "**"), {"EXP": math.exp}, values)


def _add_chart(book, sheet, steps):
    chart = book.add_chart({"type": "scatter", "subtype": "straight"})
    rows = TOP + 1, TOP + 1 + steps
    column = COLUMNS.index("E")
    place = {"categories": 0, "values": column}
    series = {key: [sheet.name, rows[0], where, rows[1], where] for key, where in place.items()}
    chart.add_series(series | {"name": "E", "line": {"color": "#D62728", "width": 2}})
    chart.set_title({"name": "The error after each step", "name_font": {"size": 12}})
    chart.set_x_axis({"name": "step", "min": 0, "max": steps})
    chart.set_y_axis({"name": "E", "min": 0})
    chart.set_legend({"none": True})
    chart.set_size({"width": 760, "height": 340})
    sheet.insert_chart(3, 4, chart)
