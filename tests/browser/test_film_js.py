"""The film's JavaScript: its pure functions, and the film itself without any kernel."""

import base64

import pytest
import torch
from browsing import PICTURES, load_module
from helpers import HERE
from torch import nn

import utils
from course.film import TrainingFilm
from model import NetMini

FILES = HERE / "course" / "film"


@pytest.fixture
def film_js(page):
    return load_module(page, FILES / "film.js")


def test_pictures_are_laid_out_side_by_side(film_js):
    """Notices rows and columns swapped, and pictures that touch or overlap."""
    code = """film => {
        const [width, height, rgba] = film.sheet([10, 20, 30, 40, 50, 60], [3, 1, 2], 2, (b) => [b, b, b]);
        const every = (channel) => [...rgba].filter((_, n) => n % 4 === channel);
        return [width, height, every(0), every(3)];
    }"""
    width, height, red, opacity = film_js.evaluate(code)
    assert (width, height) == (5, 3)
    assert red == [10, 20, 0, 30, 40, *[0] * 5, 50, 60, 0, 0, 0]
    assert [value > 0 for value in opacity] == [value > 0 for value in red]


def test_weights_are_red_and_blue(film_js):
    colours = film_js.evaluate("film => [film.colourOf(255), film.colourOf(1), film.colourOf(128)]")
    assert colours == [[255, 0, 0], [0, 0, 255], [255, 255, 255]]


def test_the_curves_axis_is_stretched_and_starts_after_the_first_epoch(film_js):
    code = "film => film.curvePoints([50, 99, 99.5, 100, 20], 6, [500, 100])"
    points = film_js.evaluate(code)
    assert [x for x, _ in points] == [100, 200, 300, 400, 500]
    heights = [100 - y for _, y in points]
    assert heights[0] == heights[4] == 0 and heights[3] == 100
    assert heights[2] - heights[1] > 8, "half a per cent must be seen"


SHOW = """(film, [css, values]) => {
  document.head.appendChild(document.createElement("style")).textContent = css;
  window.values = values;
  for (const name of ["filters", "maps", "digit"])
    values[name] = new DataView(Uint8Array.from(atob(values[name]), (c) => c.charCodeAt(0)).buffer);
  window.heard = {};
  const model = {
    get: (name) => values[name],
    on: (name, hear) => { heard[name] = hear; },
    off: (name) => { delete heard[name]; },
  };
  window.close = film.default.render({ model, el: document.body });
}"""


@pytest.fixture
def shown(page, film_js):
    """The page with a film of three epochs, in which the network is changed by hand."""
    history = utils.History(NetMini(), None)
    image = utils.Normalize()(utils.shipped_digits()[0][3, :1])[0]
    film = TrainingFilm(history, image)
    for epoch, _ in enumerate(film.record(range(3))):
        for name, values in zip(history.curves, [0.5, 60, 0.4, 70]):
            history.curves[name].append(values + 10 * epoch)
        nn.init.zeros_(history.model.classes.weight)
        nn.init.zeros_(history.model.classes.bias)
        with torch.no_grad():
            history.model.classes.bias[epoch] = 10
    values = {name: getattr(film, name) for name in ["sizes", "answers", "curves", "measured_on", "changes"]}
    for name in ["filters", "maps", "digit"]:
        values[name] = base64.b64encode(getattr(film, name)).decode()
    film_js.evaluate(SHOW, [TrainingFilm._css, values])
    return page


def best(page):
    return page.locator(".film-best > span").all_inner_texts()


def test_the_slider_goes_through_the_epochs(shown):
    slider = shown.locator(".film input")
    assert shown.locator(".film-slider span").inner_text() == "before training"
    slider.press("End")
    assert shown.locator(".film-slider span").inner_text() == "after epoch 3 of 3"
    assert best(shown) == ["2", "100 %"]
    bars = [bar.bounding_box()["width"] for bar in shown.locator(".film-bar").all()]
    assert bars[2] > 100 and max(bars[:2] + bars[3:]) < 2
    assert shown.locator(".film-curve figcaption").inner_text() == "accuracy: training 80.00 %, test 90.00 %"
    slider.press("ArrowLeft")
    assert shown.locator(".film-slider span").inner_text() == "after epoch 2 of 3"
    assert best(shown) == ["1", "100 %"]
    assert shown.locator(".film-change").inner_text().endswith("changed by 0.0 % in this epoch")
    assert len(shown.locator(".film polyline").first.get_attribute("points").split()) == 2
    slider.press("Home")
    assert shown.locator(".film-slider span").inner_text() == "before training"
    assert shown.locator(".film-curve figcaption").inner_text() == "accuracy: training –, test –"
    assert shown.locator(".film polyline").first.get_attribute("points") == ""
    shown.screenshot(path=PICTURES / "film-start.png")


def test_a_film_without_a_training_says_so(page, film_js):
    film_js.evaluate(SHOW, ["", {"answers": [], "filters": "", "maps": "", "digit": ""}])
    assert "run the training first" in page.locator(".film").inner_text()


@pytest.mark.parametrize("width", [1000, 500])
def test_all_of_it_is_in_view_and_within_its_width(shown, width):
    shown.set_viewport_size({"width": width, "height": 760})
    shown.screenshot(path=PICTURES / f"film-{width}.png")
    assert shown.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    bottom = shown.locator(".film-answer").bounding_box()
    assert bottom["y"] + bottom["height"] <= 760


def test_a_removed_film_leaves_nothing_behind(shown):
    shown.evaluate("() => close()")
    shown.locator(".film input").press("a")
    assert shown.locator("[data-lm-suppress-shortcuts]").count() == 0
    assert shown.evaluate("() => Object.keys(heard)") == []
