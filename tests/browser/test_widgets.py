"""What all four widgets promise, and what their scripts share (course/widgets/look.js)."""

from collections import OrderedDict

import numpy as np
import pytest
from browsing import (
    PICTURES,
    WIDGETS,
    change,
    encoded,
    fits,
    load,
    open_page,
    seven,
    short_film,
    show,
    texts,
)
from torch import nn

import utils
from course.checkpoints import get_trained
from course.widgets.bench import BackpropBench
from course.widgets.lens import ConvolutionLens
from course.widgets.pad import DigitPad
from model import Net, NetMini

MAKERS = {
    "pad": lambda: DigitPad(NetMini()),
    "bench": BackpropBench,
    "lens": lambda: ConvolutionLens(get_trained(Net), seven()),
    "film": short_film,
}
PLACES = {  # one that can have the keyboard
    "pad": ".digit-pad-canvas",
    "bench": ".bench-weight >> nth=0",
    "lens": ".lens-map",
    "film": ".film input",
}


@pytest.fixture(scope="module", params=MAKERS)
def shown(request, browser):
    """The name of a widget, and the page that shows it."""
    page = open_page(browser)
    show(page, MAKERS[request.param]())
    yield request.param, page
    page.close()


# --- All widgets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1000, 500, 320])
def test_all_of_it_is_in_view_and_within_its_width(shown, width):
    """All of it but on a phone, which may have to be scrolled down."""
    name, page = shown
    page.set_viewport_size({"width": width, "height": 760})
    if name == "bench":
        page.get_by_role("button", name="Backward").click()
    if name == "lens":
        page.locator("select").select_option("5")  # conv3: three tables
    page.locator(PLACES[name]).focus()
    page.screenshot(path=PICTURES / f"{name}-{width}.png")
    box = page.locator(".course-widget").bounding_box()
    assert fits(page) and (box["y"] + box["height"] <= 768 or width == 320)


def test_jupyter_gets_its_own_keys_and_no_other(shown):
    name, page = shown
    place = page.locator(PLACES[name])
    guarded = page.locator("[data-lm-suppress-shortcuts]")
    ours = {"a": True, "Control+s": False, "Control+z": name == "pad", "Shift+Enter": False}
    for key, is_ours in ours.items():
        place.press(key)
        assert guarded.count() == is_ours, key


@pytest.mark.parametrize("name", MAKERS)
def test_a_removed_widget_leaves_nothing_behind(page, name):
    show(page, MAKERS[name]())
    page.evaluate("() => stage.close()")
    page.locator(PLACES[name]).press("a")
    assert page.locator("[data-lm-suppress-shortcuts]").count() == 0
    assert page.evaluate("() => Object.keys(stage.listeners)") == []


BLOCKS = {  # as browsers that hide their users, and their extensions, do
    "no canvas": "HTMLCanvasElement.prototype.getContext = () => null",
    "no pixels": "CanvasRenderingContext2D.prototype.getImageData = () => { throw Error('no') }",
    "white pixels": """CanvasRenderingContext2D.prototype.getImageData = (x, y, width, height) =>
        new ImageData(new Uint8ClampedArray(4 * width * height).fill(255), width, height)""",
}


# The bench needs no canvas.
@pytest.mark.parametrize(
    ("name", "block"),
    [*(("pad", block) for block in BLOCKS), ("lens", "no canvas"), ("film", "no canvas")],
)
def test_a_browser_that_blocks_drawings_is_named_as_the_cause(page, name, block):
    page.evaluate(f"() => {{ {BLOCKS[block]} }}")
    show(page, MAKERS[name]())
    page.get_by_text("This browser blocks drawings (canvas). Allow them for this page").wait_for()
    assert page.locator(".course-widget").count() == 0


EVIL = "<img src=x onerror=isHacked=true>"


def test_names_of_layers_are_shown_as_text(page):
    """A network may be somebody else's, and its names are whatever that person likes."""

    class Evil(nn.Conv2d):
        """Its name is set below."""

    Evil.__name__ = EVIL
    network = nn.Sequential(OrderedDict({EVIL: Evil(1, 2, 3), "1": nn.Conv2d(2, 1, 1)}))
    lens = ConvolutionLens(network, seven())
    show(page, lens)
    assert f"1. {EVIL}: convolution" in texts(page, "option")
    page.locator("select").select_option("2")
    sentence = page.locator(".lens-sum")
    assert f", from {EVIL}, contributes" in sentence.inner_text()
    assert page.locator("img").count() == 0
    *before, last = lens.layers
    unknown = [*before, last | {"name": EVIL, "kind": EVIL}]
    change(page, layers=unknown, buffer=encoded(lens.buffer))
    assert f"The lens cannot explain “{EVIL}”" in sentence.inner_text()
    assert page.locator("img").count() == 0


def test_names_of_data_are_shown_as_text(page):
    film = short_film()
    film.measured_on = EVIL
    show(page, film)
    assert EVIL in page.locator(".film-curve figcaption").inner_text()
    assert page.locator("img").count() == 0


# --- What the scripts share ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def look(blank):
    return load(blank, (WIDGETS / "look.js").read_text(encoding="utf-8"))


def test_numbers_have_a_true_minus_sign_and_zero_has_none(look):
    numbers = [1.005, -0.05, -0.0004, 0, -12]
    shown = look.evaluate("(look, all) => all.map((number) => look.fixed(number, 2))", numbers)
    assert shown == ["1.00", "−0.05", "0.00", "0.00", "−12.00"]
    assert look.evaluate("look => [look.fixed(-0.4, 0), look.fixed(-1 / 0, 2)]") == ["0", "−∞"]


def test_the_axis_of_accuracies_is_that_of_pythons_pictures(look):
    accuracies = np.array([20, 50, 80, 99, 99.5, 100])
    shares = look.evaluate("(look, all) => all.map(look.axisShare)", accuracies.tolist())
    low, high = utils.stretch(50), utils.stretch(100)
    expected = (utils.stretch(np.maximum(accuracies, 50)) - low) / (high - low)
    assert shares == pytest.approx(expected.tolist())
    assert shares[0] == shares[1] == 0 and shares[-1] == 1


def test_bytes_come_in_many_forms(look):
    code = """look => {
      const bytes = look.fromBase64("AAAAgD8AAADA"); // a zero, then 1 and -2 as 32-bit numbers
      const forms = [new DataView(bytes.buffer, 1), bytes.subarray(1), bytes.slice(1).buffer];
      return forms.map((form) => [look.bytesOf(form).length, ...look.floatsOf(form)]);
    }"""
    assert look.evaluate(code) == [[8, 1, -2]] * 3


def test_bars_show_an_answer_or_nothing(look):
    code = """(look, all) => {
      const root = document.createElement("div");
      root.innerHTML = look.BARS;
      look.showBars(root, all.map((number) => number ?? NaN));
      const rows = [...root.querySelectorAll(".course-row")];
      const widthOf = (row) => row.querySelector(".course-track > div").style.width;
      return rows.map((row) => [row.classList.contains("course-best"), row.ariaLabel,
        row.ariaValueNow, widthOf(row), row.lastElementChild.textContent].join(" "));
    }"""
    rows = look.evaluate(code, [0.024, 0.8, *[0.022] * 8])
    assert rows[:2] == ["false digit 0 2.4 2.4% 2 %", "true digit 1 80.0 80% 80 %"]
    for nothing in ([0] * 10, [None] + [0.1] * 9):
        rows = look.evaluate(code, nothing)
        assert rows == [f"false digit {digit} 0.0 0% " for digit in range(10)]
