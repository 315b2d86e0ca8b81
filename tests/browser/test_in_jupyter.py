"""Both lessons in JupyterLab and Notebook 7, in a real browser, used as a person would use them.

Screenshots go to runs/browser. Test_Images/digit_pad.png is a copy of lab-pad-3.png there.
"""

import contextlib
import math
import time

import nbformat
import pytest
from browsing import PICTURES, bars, draw, ink, sees_verdict

from course.widgets.bench import BackpropBench

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

# "over" once every cell has its number, or one its error; "lost" if no cell waits though some lack a number.
STATE = """count => {
    const texts = selector => [...document.querySelectorAll(selector)].map(each => each.textContent.trim());
    const prompts = texts(".jp-CodeCell .jp-InputPrompt");
    const errors = texts('[data-mime-type="application/vnd.jupyter.error"]');
    if (errors.length || (prompts.length === count && prompts.every(each => /^\\[\\d+\\]:?$/.test(each))))
        return "over";
    return prompts.some(each => each.includes("*")) ? "" : "lost";
}"""

BEGUN = """() => [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")]
    .some(each => /[*\\d]/.test(each.textContent))"""


def open_notebook(page, jupyter, lesson):
    kind, address, _ = jupyter
    page.goto(f"{address}/{'lab/tree' if kind == 'lab' else 'notebooks'}/{lesson}.ipynb?reset")
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
    if kind == "lab":
        page.keyboard.press("Control+b")  # more room: without the side bar


def keep_picture(page_or_element, jupyter, name):
    page_or_element.screenshot(path=PICTURES / f"{jupyter[0]}-{name}.png")


def cell(page, code):
    """Return the cell with this code."""
    return (
        page.locator(".jp-CodeCell").filter(has=page.locator(".jp-InputArea", has_text=code)).first
    )


def out_of_the_way(page):
    """Accept the dialog that asks for a kernel, or close whatever else is open."""
    accept = page.locator(".jp-Dialog .jp-mod-accept")
    with contextlib.suppress(playwright.TimeoutError):  # it may close by itself
        accept.first.click(timeout=2000) if accept.count() else page.keyboard.press("Escape")


def run_all(page, jupyter, lesson):
    """Open the lesson and click Run All Cells; wait until every cell has its number. No cell may fail."""
    open_notebook(page, jupyter, lesson)
    notebook = nbformat.read(jupyter[2] / f"{lesson}.ipynb", as_version=4)
    count = sum(cell.cell_type == "code" for cell in notebook.cells)
    for _ in range(
        6
    ):  # a page whose kernel is not ready asks for one, and forgets what it was to run
        try:
            page.get_by_role("menuitem", name="Run", exact=True).click(timeout=5000)
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click(timeout=5000)
            page.wait_for_function(BEGUN, timeout=5000, polling=300)
        except playwright.TimeoutError:
            out_of_the_way(page)
            continue
        state = page.wait_for_function(STATE, arg=count, timeout=300_000, polling=500)
        if state.json_value() == "over":
            break
    else:
        pytest.fail(f"{lesson} did not run")
    errors = page.locator('[data-mime-type="application/vnd.jupyter.error"]').all_inner_texts()
    assert errors == []


def sees_picture(page, jupyter, code, name):
    """Check that the cell with this code shows a picture, and that it is not tiny."""
    picture = cell(page, code).locator(".jp-OutputArea img").last
    picture.scroll_into_view_if_needed()
    size = picture.evaluate("image => [image.naturalWidth, image.naturalHeight, image.complete]")
    assert size[0] > 300 and size[1] > 150 and size[2], f"{code}: {size}"
    keep_picture(page, jupyter, name)


def sees_text(page, code, text):
    output = cell(page, code).locator(".jp-OutputArea-output", has_text=text).first
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
    play(page, jupyter)

    page.keyboard.press(
        "Control+s"
    )  # while the pad has the focus: it must leave Jupyter's own keys alone
    saved = read_once_saved(jupyter[2] / "S6.ipynb")
    assert "widgets" not in saved.metadata


def read_once_saved(path, patience=30):
    """Wait until the file, which was copied without outputs, holds some; return the notebook."""
    for _ in range(10 * patience):
        notebook = nbformat.read(path, as_version=4)
        if any(cell.get("outputs") for cell in notebook.cells):
            return notebook
        time.sleep(0.1)
    pytest.fail(f"{path.name} was not saved")


# --- Film, lens and bench ----------------------------------------------------------------------------------


def use_film(page, jupyter):
    slider = page.locator(".film input")
    slider.scroll_into_view_if_needed()
    assert page.locator(".film-slider span").inner_text() == "before training"
    slider.press("ArrowRight")
    assert page.locator(".film-slider span").inner_text() == "after epoch 1 of 1"
    keep_picture(page.locator(".film"), jupyter, "film")


def use_lens(page, jupyter):
    maps = page.locator(".lens-map")
    maps.scroll_into_view_if_needed()
    before = page.locator(".lens-caption").inner_text()
    maps.press("ArrowDown")
    assert page.locator(".lens-caption").inner_text() != before, (
        "the arrow key moves the cell, not the notebook"
    )
    assert "With the bias" in page.locator(".lens-sum").inner_text()
    keep_picture(page.locator(".lens"), jupyter, "lens")


def use_bench(page, jupyter):
    """Python, the page and the lesson's table must have the same numbers."""
    bench = page.locator(".bench")
    bench.scroll_into_view_if_needed()
    for _ in range(2):
        page.get_by_role("button", name="100 steps", exact=True).click()
    assert bench.locator(".bench-error .bench-value").text_content() == "0.005207"
    page.get_by_role("button", name="Rewind", exact=True).click()
    weight = page.get_by_role("slider", name="w5")
    weight.press("ArrowUp")
    assert (
        bench.locator(".bench-error .bench-value").text_content()
        == f"{BackpropBench(weights=W5).error:.6f}"
    )
    page.get_by_role("button", name="Backward", exact=True).click()
    keep_picture(bench, jupyter, "bench")


W5 = [0.15, 0.20, 0.25, 0.30, 0.41, 0.45, 0.50, 0.55]


# --- The pad -----------------------------------------------------------------------------------------------


def arc(x, y, radius, start, end, steps=14):
    angles = [math.radians(start + (end - start) * n / steps) for n in range(steps + 1)]
    return [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]


STROKES = {  # as fractions of the pad
    3: [*arc(0.48, 0.33, 0.16, -150, 80), *arc(0.48, 0.66, 0.19, -80, 150)],
    7: [(0.28, 0.24), (0.7, 0.22), (0.62, 0.4), (0.52, 0.6), (0.44, 0.82)],
    1: [(0.5, 0.2), (0.5, 0.5), (0.5, 0.8)],
}


def contrast(page):
    """Return the contrast between the pad's text and its background: from 1 to 21."""
    colours = page.evaluate("""() => {
        let behind = document.querySelector(".digit-pad");
        const colour = getComputedStyle(behind).color;
        while (/rgba\\(.*, 0\\)|transparent/.test(getComputedStyle(behind).backgroundColor))
            behind = behind.parentElement;
        return [colour, getComputedStyle(behind).backgroundColor];
    }""")
    lights = []
    for colour in colours:
        channels = [float(part) / 255 for part in colour.strip("rgba()").split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(lights) / min(lights)


def play(page, jupyter):
    pad = page.locator(".digit-pad-canvas")
    pad.scroll_into_view_if_needed()
    sees_verdict(page, "Draw a large digit.")
    assert bars(page) == [0] * 10, "an empty pad shows no guess"
    assert contrast(page) > 4.5, "the minimum in the accessibility guidelines"
    button = {
        name: page.get_by_role("button", name=name, exact=True)
        for name in ["Undo", "Clear", "Thicker"]
    }
    assert button["Undo"].is_disabled() and button["Clear"].is_disabled()

    for digit in (7, 3):
        draw(page, STROKES[digit])
        sees_verdict(page, f"This is a {digit}.")
        assert bars(page)[digit] > 70 and sum(bars(page)) == pytest.approx(100, abs=1)
        keep_picture(page.locator(".digit-pad"), jupyter, f"pad-{digit}")
        if digit == 7:
            button["Clear"].click()
            sees_verdict(page, "Draw a large digit.")
            assert bars(page) == [0] * 10

    draw(page, [(0.1, 0.9), (0.9, 0.1)])
    page.wait_for_function(
        "() => document.querySelector('.digit-pad-verdict').innerText !== 'This is a 3.'"
    )
    button["Undo"].click()
    sees_verdict(page, "This is a 3.")

    button["Clear"].press("Enter")
    before = ink(page)
    draw(page, STROKES[1])
    thin = ink(page)
    button["Undo"].click()
    button["Thicker"].click()
    draw(page, STROKES[1])
    assert before == 0 < thin < ink(page)

    pad.press("Delete")
    sees_verdict(page, "Draw a large digit.")
    for key in ["ArrowUp", "Space", *["ArrowDown"] * 16, "Space"]:  # with the keyboard, a 1
        pad.press(key)
    sees_verdict(page, "This is a 1.")
    pad.press("Backspace")
    sees_verdict(page, "Draw a large digit.")
