"""The lessons in JupyterLab and Notebook 7, in a real browser, used as a person would use them.

Each runs a lesson's set-up, and the cells that show its grid, curves, tables and widgets. Every
cell is run by `make test`, without a browser.

Screenshots go to runs/browser. Test_Images/digit_pad.png is a copy of lab-pad-3.png there.
"""

import nbformat
import pytest
from browsing import CONTRAST, PICTURES, STROKES, answer_of, draw, settled_answer, texts, wait_until
from helpers import read

from course.widgets.bench import BackpropBench
from tools.run_lessons import select_cells

FOLDERS = {"lab": "lab/tree", "notebook": "notebooks"}  # in the server's addresses
THEMES = {"lab": "light", "notebook": "dark"}  # to test both
CELLS = {  # beside the set-up
    "S5": ["data", "first-training", "first-answer", "s5-20", "s5-40", "one-step"]
    + ["training", "results", "s5-58", "s5-60", "lens"],
    "S6": ["s6-05", "bench", "s6-56", "s6-60", "fit", "training-gap", "curves-gap"]
    + ["training-fc", "side-by-side", "pad"],
}
each_kind = pytest.mark.parametrize("kind", FOLDERS)
RUN_ALL = """async () => {
  await jupyterapp.shell.currentWidget.sessionContext.ready;
  return jupyterapp.commands.execute("notebook:run-all-cells");
}"""


def run_lesson(page, jupyter, kind, lesson):
    """Open the lesson, with the cells above, and run it. No cell may fail."""
    address, folder = jupyter
    notebook = read(lesson)
    notebook.cells = select_cells(notebook, CELLS[lesson])
    for cell in notebook.cells:
        if cell.cell_type == "code":  # without outputs: a test must see only its own
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, folder / f"{lesson}.ipynb")
    page.set_default_timeout(300_000)  # starting a kernel takes long on a busy machine
    page.emulate_media(color_scheme=THEMES[kind])
    page.goto(f"{address}/{FOLDERS[kind]}/{lesson}.ipynb?reset")
    page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for()
    is_done = page.evaluate(RUN_ALL)
    assert texts(page, '[data-mime-type$="jupyter.error"]') == []
    assert is_done


def outputs(page, code):
    """The outputs of the cell with this code."""
    has_code = page.locator(".jp-InputArea", has_text=code)
    return page.locator(".jp-CodeCell").filter(has=has_code).first.locator(".jp-OutputArea-output")


def sees_picture(page, code, name):
    """Check that the cell with this code shows a picture, and that it is not tiny."""
    picture = outputs(page, code).locator("img").last
    picture.scroll_into_view_if_needed()
    width, height = picture.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert width > 300 and height > 150, code
    page.screenshot(path=PICTURES / f"{name}.png")


def sees_text(page, code, text):
    output = outputs(page, code).filter(has_text=text).first
    output.scroll_into_view_if_needed()
    assert output.is_visible()


@each_kind
def test_lesson_5(page, jupyter, kind):
    run_lesson(page, jupyter, kind, "S5")
    sees_picture(page, "utils.data_visualization(", f"{kind}-S5-grid")
    sees_picture(page, "utils.plot_loss(", f"{kind}-S5-curves")
    sees_text(page, ".summary()", "Total params: 593,200")
    sees_text(page, "print_results", "593,200")
    use_film(page, kind)
    use_lens(page, kind)


@each_kind
def test_lesson_6(page, jupyter, kind):
    run_lesson(page, jupyter, kind, "S6")
    sees_picture(page, "utils.data_visualization(", f"{kind}-S6-grid")
    sees_picture(page, "utils.plot_loss(**gap_history", f"{kind}-S6-curves")
    sees_text(page, "NetGAP().summary()", "Total params: 17,466")
    sees_text(page, "print_results", "19,602")
    use_bench(page, kind)
    use_pad(page, kind)
    page.keyboard.press("Control+s")  # the pad has the focus, and leaves Jupyter its own keys
    saved = wait_until(page, lambda: notebook_with_outputs(jupyter[1] / "S6.ipynb"))
    assert "widgets" not in saved.metadata


# --- The widgets ---------------------------------------------------------------------------------


def notebook_with_outputs(path):
    """The notebook in a file that was written without outputs, once Jupyter has saved it."""
    text = path.read_text(encoding="utf-8")
    is_whole = text.endswith("}\n")  # and not just being written
    return nbformat.reads(text, as_version=4) if is_whole and '"output_type"' in text else None


def use_film(page, kind):
    slider = page.locator(".film input")
    slider.scroll_into_view_if_needed()
    assert texts(page, ".film-slider span") == ["before training"]
    slider.press("End")
    assert texts(page, ".film-slider span") == ["after epoch 1 of 1"]
    page.locator(".film").screenshot(path=PICTURES / f"{kind}-film.png")


def use_lens(page, kind):
    lens_map = page.locator(".lens-map")
    lens_map.scroll_into_view_if_needed()
    captions = set()
    for key in ["ArrowUp", "ArrowDown"]:  # one of them, if the cell is at an edge
        lens_map.press(key)
        captions.update(texts(page, ".lens-caption"))
    assert len(captions) == 2, "the keys move the cell, not the notebook"
    assert "With the bias" in page.locator(".lens-sum").inner_text()
    page.locator(".lens").screenshot(path=PICTURES / f"{kind}-lens.png")


def use_bench(page, kind):
    """Python, the page and the lesson's table must have the same numbers."""
    page.locator(".bench").scroll_into_view_if_needed()
    for _ in range(2):
        page.get_by_role("button", name="100 steps", exact=True).click()
    assert texts(page, ".bench-error .bench-value") == ["0.005207"]
    page.get_by_role("button", name="Rewind", exact=True).click()
    page.get_by_role("slider", name="w5").press("ArrowUp")
    weights = [0.15, 0.20, 0.25, 0.30, 0.41, 0.45, 0.50, 0.55]
    expected = f"{BackpropBench(weights=weights).error:.6f}"
    assert texts(page, ".bench-error .bench-value") == [expected]
    page.get_by_role("button", name="Backward", exact=True).click()
    page.locator(".bench").screenshot(path=PICTURES / f"{kind}-bench.png")


def use_pad(page, kind):
    pad = page.locator(".digit-pad-canvas")
    pad.scroll_into_view_if_needed()
    assert answer_of(page) == ["Draw a large digit.", [0] * 10], "an empty pad shows no guess"
    assert page.locator(".digit-pad").evaluate(CONTRAST) > 140
    for digit in (7, 3):
        pad.press("Delete")
        draw(page, STROKES[digit])
        shares = settled_answer(page, f"This is a {digit}.")
        assert shares[digit] >= 70 and sum(shares) == pytest.approx(100, abs=1)
        page.locator(".digit-pad").screenshot(path=PICTURES / f"{kind}-pad-{digit}.png")
    page.get_by_role("button", name="Clear", exact=True).press("Enter")
    settled_answer(page, "Draw a large digit.")
    for key in ["ArrowUp", "Space", *["ArrowDown"] * 16, "Space"]:  # with the keyboard, a 1
        pad.press(key)
    settled_answer(page, "This is a 1.")
    pad.press("Backspace")
    settled_answer(page, "Draw a large digit.")
