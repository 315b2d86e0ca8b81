"""Lesson 6, part 1, as a spreadsheet: a row for each step, computed by formulas."""

import io
import math
import re

import xlsxwriter
from xlsxwriter.utility import xl_rowcol_to_cell

from course.files import replacing

# What a row computes from its weights, in the order of the columns.
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
WEIGHTS = ["w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8"]
# The weights of the next row, from the numbers of the row before.
DESCENT = {name: f"{name}-learning_rate*dE_d{name}" for name in WEIGHTS}
COLUMNS = ["step", *WEIGHTS, *FORMULAS]
SETTINGS = ["i1", "i2", "t1", "t2", "learning_rate"]

# Rows and columns are counted from 0, as XlsxWriter does.
FIRST_SETTING = 3  # the row of i1
HEADINGS = 22  # the row of the column names; the chart stands above


def write_spreadsheet(path, inputs, weights, targets, learning_rate, steps=100):
    """Write steps of gradient descent to an Excel file. Changing a yellow cell changes the rest."""
    has_right_sizes = len(inputs) == 2 and len(weights) == 8 and len(targets) == 2
    if not has_right_sizes or not 1 <= steps <= 10_000:
        raise ValueError(
            "the spreadsheet needs two inputs, eight weights, two targets, and 1 to 10,000 steps"
        )
    numbers = [*inputs, *weights, *targets, learning_rate]
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"the spreadsheet needs finite numbers, got {numbers}")
    values = dict(zip(SETTINGS, [*inputs, *targets, learning_rate]))
    values |= dict(zip(WEIGHTS, weights))
    file = io.BytesIO()
    book = xlsxwriter.Workbook(file)
    sheet = book.add_worksheet("Backpropagation")
    write_head(book, sheet, values)
    write_steps(book, sheet, values, steps)
    add_chart(book, sheet, steps)
    sheet.set_column(1, len(COLUMNS), 10)
    sheet.set_landscape()  # printed, all columns fit on a page
    sheet.fit_to_pages(1, 0)
    book.close()
    try:
        with replacing(path) as target:
            target.write(file.getvalue())
    except OSError as error:  # as with a picture, this is no reason to stop a lesson
        print(f"The spreadsheet could not be saved as {path}: {error.strerror}.")


def write_head(book, sheet, values):
    """The title, the settings in yellow cells, and the headings of the columns."""
    bold = book.add_format({"bold": True})
    large = book.add_format({"bold": True, "font_size": 14})
    heading = book.add_format({"bold": True, "bottom": 1, "align": "right"})
    yellow = add_yellow(book)
    title = "Backpropagation by hand: a network of two inputs, two hidden neurons and two outputs"
    hint = "Change a yellow cell, and all else follows. Click on a number to see its formula."
    sheet.write(0, 0, title, large)
    sheet.write(1, 0, hint)
    for row, name in enumerate(SETTINGS, FIRST_SETTING):
        sheet.write(row, 0, name.replace("_", " "), bold)
        sheet.write(row, 2, values[name], yellow)
    for column, name in enumerate(COLUMNS):
        sheet.write(HEADINGS, column, name.replace("dE_d", "∂E/∂"), heading)


def write_steps(book, sheet, values, steps):
    """A row for each step: the formulas, each with its value, which previews show."""
    yellow = add_yellow(book)
    six_decimals = book.add_format({"num_format": "0.000000"})

    def write_formulas(row, formulas, cells):
        for name, formula in formulas.items():
            values[name] = evaluate(formula, values)
            column = COLUMNS.index(name)
            sheet.write_formula(row, column, to_excel(formula, cells), six_decimals, values[name])

    for step in range(steps + 1):
        row = HEADINGS + 1 + step
        sheet.write(row, 0, step)
        if step == 0:
            for name in WEIGHTS:
                sheet.write(row, COLUMNS.index(name), values[name], yellow)
        else:
            write_formulas(row, DESCENT, cells=cells_of(row - 1))
        write_formulas(row, FORMULAS, cells=cells_of(row))


def cells_of(row):
    """The cell of each name, as Excel writes it: of the settings, and of the numbers in a row."""
    cells = {}
    for setting_row, name in enumerate(SETTINGS, FIRST_SETTING):
        cells[name] = xl_rowcol_to_cell(setting_row, 2, row_abs=True, col_abs=True)
    for column, name in enumerate(COLUMNS):
        cells[name] = xl_rowcol_to_cell(row, column)
    return cells


def to_excel(formula, cells):
    """A formula with cells in place of names."""
    return "=" + re.sub(r"\w+", lambda word: cells.get(word[0], word[0]), formula)


def evaluate(formula, values):
    """The value that Excel will compute."""
    try:
        return eval(formula.replace("^", "**"), {"EXP": math.exp}, values)
    except OverflowError:
        reason = "the numbers become infinite: use smaller weights or a smaller learning rate"
        raise ValueError(reason) from None


def add_yellow(book):
    return book.add_format({"bg_color": "#FFF2A8", "border": 1})


def add_chart(book, sheet, steps):
    """Draw the error after each step, between the settings and the rows."""
    chart = book.add_chart({"type": "scatter", "subtype": "straight"})
    first = HEADINGS + 1
    last = first + steps
    step_column = COLUMNS.index("step")
    error_column = COLUMNS.index("E")
    chart.add_series(
        {
            "name": "E",
            "categories": [sheet.name, first, step_column, last, step_column],
            "values": [sheet.name, first, error_column, last, error_column],
            "line": {"color": "#D62728", "width": 2},
        }
    )
    chart.set_title({"name": "The error after each step", "name_font": {"size": 12}})
    chart.set_x_axis({"name": "step", "min": 0, "max": steps})
    chart.set_y_axis({"name": "E", "min": 0})
    chart.set_legend({"none": True})
    chart.set_size({"width": 760, "height": 340})
    sheet.insert_chart(3, 4, chart)
