"""The widgets in the hand: they fit a phone, play, explain in pictures, and take each usual key."""

import pytest
import torch
from browsing import (
    DIGIT,
    change,
    choose_layer,
    press,
    saved,
    set_rate,
    short_film,
    show,
    texts,
    weight,
)

from course.checkpoints import get_trained
from course.widgets.bench import BackpropBench
from course.widgets.lens import ConvolutionLens
from model import NetMini

# --- The bench -----------------------------------------------------------------------------------

STEP = ".bench-curve text"


@pytest.fixture
def shown(page):
    show(page, BackpropBench())
    return page


def test_a_phone_that_is_turned_keeps_the_chosen_weight_and_the_keyboard(shown):
    weight(shown, 5).focus()
    shown.set_viewport_size({"width": 390, "height": 844})
    shown.locator(".bench-tall").wait_for()
    shown.keyboard.press("ArrowUp")
    assert saved(shown, "weights")[4] == pytest.approx(0.41)


def test_a_weights_line_shows_its_size_and_sign(shown):
    change(shown, weights=[0.1, 2, -0.1, -2, 0, 0, 0, 9])
    style = "lines => lines.map(l => [getComputedStyle(l).stroke, parseFloat(l.style.strokeWidth)])"
    lines = shown.locator(".bench-network > line").evaluate_all(style)[:8]
    (red, thin), (also_red, thick), (blue, _), (also_blue, _), *_ = lines
    assert red == also_red != blue == also_blue and thin < thick < lines[7][1] <= 10


def test_after_an_update_the_last_gradient_stays_marked_as_from_before(shown):
    weight(shown, 5).click()
    press(shown, "Backward")
    formula = shown.locator(".bench-product").inner_text().splitlines()
    press(shown, "Update")
    before = shown.locator(".bench-product").inner_text().splitlines()
    assert before[0] == f"Before the update: {formula[0]}" and before[1] == formula[1]
    press(shown, "Rewind")
    assert "is not known yet" in shown.locator(".bench-product").inner_text()


@pytest.mark.parametrize(("typed", "rate"), [("0,5", 0.5), ("0.5", 0.5), (" 2 ", 2)])
def test_a_learning_rate_may_have_a_comma(shown, typed, rate):
    set_rate(shown, typed)
    assert saved(shown, "learning_rate") == rate


def test_arrow_keys_change_the_learning_rate(shown):
    for key, rate in [("ArrowUp", 1.1), ("ArrowDown", 1.0), *[("ArrowDown", None)] * 12]:
        shown.get_by_label("learning rate").press(key)
        assert rate is None or saved(shown, "learning_rate") == pytest.approx(rate)
    assert saved(shown, "learning_rate") == 0


def test_home_and_end_lead_to_the_ends_of_a_slider(shown):
    weight(shown, 5).press("End")
    assert saved(shown, "weights")[4] == 20
    weight(shown, 5).press("Home")
    assert saved(shown, "weights")[4] == -20
    press(shown, "100 steps")
    for key, step in [("Home", 0), ("End", 100)]:
        shown.locator(".bench-curve svg").press(key)
        assert texts(shown, STEP)[0].startswith(f"step {step}: ")


# --- The film ------------------------------------------------------------------------------------

PARTS = ".film :is(input, button, figure, canvas, figcaption, .course-row)"


@pytest.fixture
def film(page):
    show(page, short_film())
    return page


def test_the_film_plays_to_its_end_and_starts_over(film):
    film.clock.install()
    button, title = film.get_by_role("button"), film.locator(".film-slider span")
    button.click()
    assert button.inner_text() == "Pause"
    film.clock.run_for(10_000)
    assert title.inner_text() == "after epoch 3 of 3" and button.inner_text() == "Play"
    button.click()
    assert title.inner_text() == "before training"


def test_the_film_pauses_at_a_press_and_at_the_slider(film):
    film.clock.install()
    button, title = film.get_by_role("button"), film.locator(".film-slider span")
    for pause in [button.click, lambda: film.locator(".film input").press("ArrowRight")]:
        film.locator(".film input").press("Home")
        button.click()
        film.clock.run_for(800)
        pause()
        stopped = title.inner_text()
        film.clock.run_for(10_000)
        assert title.inner_text() == stopped != "before training"


@pytest.mark.parametrize("width", [390, 1000])
def test_the_films_answer_is_beside_its_slider_and_nothing_jumps(film, width):
    film.set_viewport_size({"width": width, "height": 844})
    slider = film.locator(".film input").bounding_box()
    bars = film.locator(".course-row").last.bounding_box()
    assert slider["y"] < bars["y"] < slider["y"] + 320
    places = "all => all.map((part) => part.getBoundingClientRect().top)"
    before = film.locator(PARTS).evaluate_all(places)
    film.locator(".film input").press("End")
    after = film.locator(PARTS).evaluate_all(places)
    assert before == pytest.approx(after, abs=1)


# --- The lens ------------------------------------------------------------------------------------


@pytest.fixture
def lens(page):
    show(page, ConvolutionLens(get_trained(NetMini).eval(), DIGIT))
    return page


def test_on_a_phone_the_map_and_its_sums_are_on_one_screen(lens):
    lens.set_viewport_size({"width": 390, "height": 844})
    choose_layer(lens, "block2.0")  # with several input maps
    box = lens.locator(".lens-sum").bounding_box()
    assert lens.locator(".lens-map").bounding_box()["y"] > 0
    assert box["y"] + box["height"] <= 844


def test_home_and_end_lead_to_the_edges_of_a_map_and_the_page_stays(lens):
    lens.evaluate("document.body.style.height = '3000px'")
    lens.locator(".lens-map").focus()
    lens.evaluate("scrollTo(0, 20)")
    for key, place in {"Home": "column 1", "End": "column 26", "PageUp": "row 1, "}.items():
        lens.keyboard.press(key)
        assert place in texts(lens, ".lens-caption")[0] and lens.evaluate("scrollY") == 20


def test_relu_is_drawn_with_its_number_on_the_curve(lens):
    choose_layer(lens, "ReLU")
    lens.locator(".lens-map").focus()
    places = set()
    for key in ["Home", *["ArrowRight"] * 25]:
        lens.keyboard.press(key)
        dot = lens.locator(".lens-sum circle")
        x, y = float(dot.get_attribute("cx")), float(dot.get_attribute("cy"))
        assert y == pytest.approx(min(60, 60 - (x - 60)), abs=0.01), "on the curve"
        places.add(round(x))
    assert len(places) > 3


def test_a_linear_layer_is_drawn_as_bars_that_add_up(lens):
    choose_layer(lens, "linear layer")
    numbers = [float(text.replace("−", "-")) for text in texts(lens, ".lens-bars td:last-child")]
    result = float(lens.locator(".lens-sum b").inner_text().replace("−", "-"))
    assert sum(numbers) == pytest.approx(result, abs=0.005)
    width = "all => all.map((bar) => parseFloat(bar.style.width))"
    widths = torch.tensor(lens.locator(".lens-bars td > div").evaluate_all(width))
    sizes = torch.tensor(numbers).abs()
    torch.testing.assert_close(widths, 50 * sizes / sizes.max(), atol=0.2, rtol=0)
