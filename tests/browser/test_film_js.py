"""The film's JavaScript: its pure functions, and the film itself without any kernel."""

import base64

import pytest
import torch
from browsing import PICTURES, load_module
from helpers import HERE
from torch import nn

import utils
from course.widgets.film import TrainingFilm
from model import NetMini

FILES = HERE / "course" / "widgets" / "film"


@pytest.fixture
def film_js(page):
    return load_module(page, FILES / "film.js")


def test_pictures_are_laid_out_side_by_side(film_js):
    """Notices rows and columns swapped, and pictures that touch or overlap."""
    code = """film => {
        const {width, height, rgba} = film.sheet([10, 20, 30, 40, 50, 60], [3, 1, 2], 2, (b) => [b, b, b]);
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
    history = utils.History(m := NetMini(), torch.optim.SGD(m.parameters(), lr=0.1), live=False)
    image = utils.Normalize()(utils.shipped_digits()[0][3, :1])[0]
    film = TrainingFilm(history, image)
    for epoch, _ in enumerate(film.record(range(3))):
        for name, values in zip(history.curves, [0.5, 60, 0.4, 70]):
            history.curves[name].append(values + 10 * epoch)
        nn.init.zeros_(history.model.classes.weight)
        nn.init.zeros_(history.model.classes.bias)
        with torch.no_grad():
            history.model.classes.bias[epoch] = 10
    values = {
        name: getattr(film, name)
        for name in ["sizes", "answers", "curves", "measured_on", "changes"]
    }
    for name in ["filters", "maps", "digit"]:
        values[name] = base64.b64encode(getattr(film, name)).decode()
    film_js.evaluate(SHOW, [TrainingFilm._css, values])
    return page


def best(page):
    return page.locator(".course-best > span").all_inner_texts()


def test_the_slider_goes_through_the_epochs(shown):
    slider = shown.locator(".film input")
    assert shown.locator(".film-slider span").inner_text() == "before training"
    slider.press("End")
    assert shown.locator(".film-slider span").inner_text() == "after epoch 3 of 3"
    assert best(shown) == ["2", "100 %"]
    bars = [bar.bounding_box()["width"] for bar in shown.locator(".course-track > div").all()]
    assert bars[2] > 100 and max(bars[:2] + bars[3:]) < 2
    assert (
        shown.locator(".film-curve figcaption").inner_text()
        == "accuracy: training 80.00 %, test 90.00 %"
    )
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


PIXEL = """canvas => [...canvas.getContext("2d").getImageData(0, 0, 1, 1).data].slice(0, 3)"""
BY_HAND = {  # three epochs of one filter of one pixel: blue, white, half red, red
    "sizes": {"filters": [1, 1, 1], "maps": [1, 1, 1]},
    "filters": [1, 128, 192, 255],
    "maps": [10, 20, 30, 40],
    "digit": [77] * 784,
    "answers": [[0.1] * 10, *([0.01] * n + [0.91] + [0.01] * (9 - n) for n in (4, 5, 6))],
    "curves": {"train_acc": [60, 70, 80], "test_acc": [95, 96, 97]},
    "measured_on": "test",
    "changes": [11, 22, 33],
}


@pytest.fixture
def by_hand(page, film_js):
    """The page with a film of easy numbers; its filters do not begin at the first of their bytes."""
    values = BY_HAND | {
        name: base64.b64encode(bytes(BY_HAND[name])).decode()
        for name in ["filters", "maps", "digit"]
    }
    film_js.evaluate(SHOW, [TrainingFilm._css, values])
    page.evaluate("""() => {
        const { buffer, byteLength } = values.filters;
        const longer = new Uint8Array([200, ...new Uint8Array(buffer)]);
        values.filters = new DataView(longer.buffer, 1, byteLength);
        heard["change:answers"]();
    }""")
    return page


def shown_at(page):
    """What the film shows now: the colours of filter, map and digit, the change, and the best digit."""
    colours = [canvas.evaluate(PIXEL) for canvas in page.locator(".film canvas").all()]
    return *colours, page.locator(".film-change").inner_text().split(", ")[1], best(page)


def test_each_epoch_shows_its_own_filters_maps_and_answer(by_hand):
    """Notices: a frame, a map or a bar of the epoch before or after."""
    grey = [77] * 3
    assert shown_at(by_hand)[:4] == ([0, 0, 255], [10] * 3, grey, "before training")
    for epoch, (colour, change) in enumerate(
        zip([[255] * 3, [255, 126, 126], [255, 0, 0]], [11, 22, 33]), 1
    ):
        by_hand.locator(".film input").press("ArrowRight")
        text = f"changed by {change}.0 % in this epoch"
        expected = (colour, [10 + 10 * epoch] * 3, grey, text, [str(3 + epoch), "91 %"])
        assert shown_at(by_hand) == expected
        track = by_hand.locator(".course-track").nth(3 + epoch)
        assert (
            track.evaluate("track => track.firstElementChild.offsetWidth / track.offsetWidth")
            > 0.85
        )


def test_the_curves_end_at_the_line_of_the_epoch(by_hand):
    """Notices: the two curves swapped, a line one epoch ahead, and accuracies beside the wrong grid line."""
    slider = by_hand.locator(".film input")
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    assert (
        by_hand.locator(".film-curve figcaption").inner_text()
        == "accuracy: training 70.00 %, test 96.00 %"
    )
    training, test = (
        [
            [float(number) for number in point.split(",")]
            for point in line.get_attribute("points").split()
        ]
        for line in by_hand.locator(".film polyline").all()
    )
    assert [x for x, _ in training] == [x for x, _ in test] == pytest.approx([260 / 3, 520 / 3])
    now = by_hand.locator(".film-now")
    assert (
        float(now.get_attribute("x1")) == float(now.get_attribute("x2")) == pytest.approx(520 / 3)
    )
    (_, first), (_, second) = test
    assert second < first < min(y for _, y in training), "95 and 96 % are above 60 and 70 %"
    lines = by_hand.locator(".film svg line:not(.film-now)").all()
    heights = dict(zip(by_hand.locator(".film svg text").all_text_contents(), lines))
    assert float(heights["95 %"].get_attribute("y1")) == pytest.approx(first)


def test_a_new_training_begins_at_its_start(by_hand):
    slider = by_hand.locator(".film input")
    slider.press("End")
    assert slider.input_value() == "3"
    by_hand.evaluate(
        "() => { values.answers = values.answers.slice(0, 3); heard['change:answers'](); }"
    )
    assert by_hand.locator(".film-slider span").inner_text() == "before training"
    slider.press("End")
    assert by_hand.locator(".film-slider span").inner_text() == "after epoch 2 of 2"


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


def test_on_a_phone_the_whole_slider_is_in_view(shown):
    shown.set_viewport_size({"width": 320, "height": 760})
    slider = shown.locator(".film input").bounding_box()
    assert slider["x"] + slider["width"] <= 320


def test_in_high_contrast_the_bars_keep_their_colours(shown):
    shown.emulate_media(forced_colors="active")
    colours = "bar => [bar, bar.parentElement].map(part => getComputedStyle(part).backgroundColor)"
    bar, track = shown.locator(".course-track > div").first.evaluate(colours)
    assert bar == "rgb(61, 139, 253)" and track == "rgba(128, 128, 128, 0.25)"


def test_a_removed_film_leaves_nothing_behind(shown):
    shown.evaluate("() => close()")
    shown.locator(".film input").press("a")
    assert shown.locator("[data-lm-suppress-shortcuts]").count() == 0
    assert shown.evaluate("() => Object.keys(heard)") == []
