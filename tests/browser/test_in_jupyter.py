"""Both lessons in JupyterLab and Notebook 7, in a real browser, used as a person would use them.

Screenshots go to runs/browser. Test_Images/digit_pad.png is a copy of lab-pad-3.png there.
"""

import contextlib
import time

import nbformat
import pytest
from browsing import CONTRAST, PICTURES, STROKES, answer_of, draw, ink, settled_answer, texts

from course.widgets.bench import BackpropBench

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

# "over" once each cell has its number, or one its error; "lost" if none waits for its number.
STATE = """count => {
  const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")];
  const numbers = prompts.map((prompt) => prompt.textContent.trim());
  const isDone = numbers.length === count && numbers.every((text) => /^\\[\\d+\\]:?$/.test(text));
  if (isDone || document.querySelector('[data-mime-type$="jupyter.error"]')) return "over";
  return numbers.some((text) => text.includes("*")) ? "" : "lost";
}"""
BEGUN = """() => [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")]
  .some((prompt) => /[*\\d]/.test(prompt.textContent))"""


def open_notebook(page, jupyter, lesson):
    kind, address, _ = jupyter
    page.goto(f"{address}/{'lab/tree' if kind == 'lab' else 'notebooks'}/{lesson}.ipynb?reset")
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
    if kind == "lab":
        page.keyboard.press("Control+b")  # more room: without the side bar


def click_run_all(page):
    """Click Run All Cells; return whether cells run. Without a kernel, a page asks for one."""
    try:
        page.get_by_role("menuitem", name="Run", exact=True).click(timeout=5000)
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click(timeout=5000)
        page.wait_for_function(BEGUN, timeout=5000, polling=300)
    except playwright.TimeoutError:
        accept = page.locator(".jp-Dialog .jp-mod-accept")
        with contextlib.suppress(playwright.TimeoutError):  # the dialog may close by itself
            accept.first.click(timeout=2000)
        page.keyboard.press("Escape")  # whatever else is open
        return False
    return True


def run_all(page, jupyter, lesson):
    """Open the lesson and run it; wait until every cell has its number. No cell may fail."""
    open_notebook(page, jupyter, lesson)
    notebook = nbformat.read(jupyter[2] / f"{lesson}.ipynb", as_version=4)
    count = sum(cell.cell_type == "code" for cell in notebook.cells)
    state = "lost"
    for _ in range(6):
        if click_run_all(page):
            found = page.wait_for_function(STATE, arg=count, timeout=300_000, polling=500)
            state = found.json_value()
        if state == "over":
            break
    assert state == "over", f"{lesson} did not run"
    assert texts(page, '[data-mime-type$="jupyter.error"]') == []


def outputs(page, code):
    """The outputs of the cell with this code."""
    has_code = page.locator(".jp-InputArea", has_text=code)
    return page.locator(".jp-CodeCell").filter(has=has_code).first.locator(".jp-OutputArea-output")


def sees_picture(page, jupyter, code, name):
    """Check that the cell with this code shows a picture, and that it is not tiny."""
    picture = outputs(page, code).locator("img").last
    picture.scroll_into_view_if_needed()
    width, height = picture.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert width > 300 and height > 150, code
    page.screenshot(path=PICTURES / f"{jupyter[0]}-{name}.png")


def sees_text(page, code, text):
    output = outputs(page, code).filter(has_text=text).first
    output.scroll_into_view_if_needed()
    assert output.is_visible()


def test_lesson_5(page, jupyter):
    run_all(page, jupyter, "S5")
    sees_picture(page, jupyter, "utils.data_visualization(", "S5-grid")
    sees_picture(page, jupyter, "utils.plot_loss(", "S5-curves")
    sees_text(page, ".summary()", "Total params: 593,200")
    sees_text(page, "print_results", "593,200")
    use_film(page, jupyter)
    use_lens(page, jupyter)


def test_lesson_6_and_its_pad(page, jupyter):
    run_all(page, jupyter, "S6")
    sees_picture(page, jupyter, "utils.data_visualization(", "S6-grid")
    sees_picture(page, jupyter, "utils.plot_loss(**gap_history", "S6-curves")
    sees_text(page, "NetGAP().summary()", "Total params: 17,466")
    sees_text(page, "print_results", "19,602")
    use_bench(page, jupyter)
    use_pad(page, jupyter)
    page.keyboard.press("Control+s")  # the pad has the focus, and leaves Jupyter its own keys
    assert "widgets" not in read_once_saved(jupyter[2] / "S6.ipynb").metadata


def read_once_saved(path, patience=30):
    """Wait until the file, which was copied without outputs, holds some; return the notebook."""
    deadline = time.monotonic() + patience
    while True:
        notebook = nbformat.read(path, as_version=4)
        if any(cell.get("outputs") for cell in notebook.cells):
            return notebook
        assert time.monotonic() < deadline, f"{path.name} was not saved"
        time.sleep(0.1)


# --- The widgets ---------------------------------------------------------------------------------


def use_film(page, jupyter):
    slider = page.locator(".film input")
    slider.scroll_into_view_if_needed()
    assert texts(page, ".film-slider span") == ["before training"]
    slider.press("ArrowRight")
    assert texts(page, ".film-slider span") == ["after epoch 1 of 1"]
    page.locator(".film").screenshot(path=PICTURES / f"{jupyter[0]}-film.png")


def use_lens(page, jupyter):
    page.locator(".lens-map").scroll_into_view_if_needed()
    before = texts(page, ".lens-caption")
    page.locator(".lens-map").press("ArrowDown")
    assert texts(page, ".lens-caption") != before, "the key moves the cell, not the notebook"
    assert "With the bias" in page.locator(".lens-sum").inner_text()
    page.locator(".lens").screenshot(path=PICTURES / f"{jupyter[0]}-lens.png")


def use_bench(page, jupyter):
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
    page.locator(".bench").screenshot(path=PICTURES / f"{jupyter[0]}-bench.png")


def use_pad(page, jupyter):
    pad = page.locator(".digit-pad-canvas")
    button = {
        name: page.get_by_role("button", name=name, exact=True)
        for name in ["Undo", "Clear", "Thicker"]
    }
    pad.scroll_into_view_if_needed()
    assert answer_of(page) == ["Draw a large digit.", [0] * 10], "an empty pad shows no guess"
    assert page.locator(".digit-pad").evaluate(CONTRAST) > 140
    assert button["Undo"].is_disabled() and button["Clear"].is_disabled()
    for digit in (7, 3):
        pad.press("Delete")
        draw(page, STROKES[digit])
        shares = settled_answer(page, f"This is a {digit}.")
        assert shares[digit] > 70 and sum(shares) == pytest.approx(100, abs=1)
        page.locator(".digit-pad").screenshot(path=PICTURES / f"{jupyter[0]}-pad-{digit}.png")

    draw(page, [(0.1, 0.9), (0.9, 0.1)])
    crossed_out = "() => document.querySelector('.digit-pad-verdict').innerText !== 'This is a 3.'"
    page.wait_for_function(crossed_out)
    button["Undo"].click()
    settled_answer(page, "This is a 3.")

    button["Clear"].press("Enter")
    settled_answer(page, "Draw a large digit.")
    assert ink(page) == 0
    draw(page, STROKES[1])
    thin = ink(page)
    button["Undo"].click()
    button["Thicker"].click()
    draw(page, STROKES[1])
    assert 0 < thin < ink(page)

    pad.press("Delete")
    for key in ["ArrowUp", "Space", *["ArrowDown"] * 16, "Space"]:  # with the keyboard, a 1
        pad.press(key)
    settled_answer(page, "This is a 1.")
    pad.press("Backspace")
    settled_answer(page, "Draw a large digit.")
