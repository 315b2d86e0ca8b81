"""The film's JavaScript: its pure functions, and the film without a kernel."""

import pytest
from browsing import PICTURES, change, encoded, load, open_page, short_film, show, texts

from course.widgets.film import TrainingFilm


@pytest.fixture(scope="module")
def film_js(blank):
    return load(blank, TrainingFilm._esm)


def test_pictures_are_laid_out_side_by_side(film_js):
    """Notices rows and columns swapped, and pictures that touch or overlap."""
    code = """film => {
      const bytes = [10, 20, 30, 40, 50, 60];
      const { width, height, rgba } = film.sheet(bytes, [3, 1, 2], 2, (b) => [b, b, b]);
      const every = (channel) => [...rgba].filter((_, n) => n % 4 === channel);
      return [width, height, every(0), every(3)];
    }"""
    width, height, red, opacity = film_js.evaluate(code)
    assert (width, height) == (5, 3)
    assert red == [10, 20, 0, 30, 40, *[0] * 5, 50, 60, 0, 0, 0]
    assert opacity == [255 if value else 0 for value in red]


def test_weights_are_red_and_blue(film_js):
    colours = film_js.evaluate("film => [255, 1, 128].map(film.colourOf)")
    assert colours == [[255, 0, 0], [0, 0, 255], [255, 255, 255]]


def test_curves_start_after_the_first_epoch_and_good_accuracies_are_high(film_js):
    times = [[0, 0], [0, 1], [0, 2], [1, 0], [2, 0], [3, 0], [4, 0]]
    code = "(film, times) => film.curvePoints([50, 99, 99.5, 100], times, [600, 100])"
    points = film_js.evaluate(code, times)
    assert [x for x, _ in points] == [300, 400, 500, 600]
    heights = [100 - y for _, y in points]
    assert heights[0] == 0 and heights[3] == 100
    assert heights[2] - heights[1] > 8, "half a per cent must be seen"


# --- The film, without a kernel ------------------------------------------------------------------

TITLE = ".film-slider span"
ACCURACY = ".film-curve figcaption"


@pytest.fixture
def shown(blank):
    show(blank, short_film())
    return blank


def best(page):
    return page.locator(".course-best > span").all_inner_texts()


def test_the_slider_goes_through_the_epochs(shown):
    slider = shown.locator(".film input")
    assert texts(shown, TITLE) == ["before training"]
    slider.press("End")
    assert texts(shown, TITLE) == ["after epoch 3 of 3"] and best(shown) == ["2", "100 %"]
    assert texts(shown, ACCURACY) == ["accuracy: training 80.00 %, test 90.00 %"]
    slider.press("ArrowLeft")
    assert texts(shown, TITLE) == ["after epoch 2 of 3"] and best(shown) == ["1", "100 %"]
    assert texts(shown, ".film-change")[0].endswith("changed by 0.0 % in this epoch")
    slider.press("Home")
    assert texts(shown, TITLE) == ["before training"]
    assert texts(shown, ACCURACY) == ["accuracy: training –, test –"]
    assert shown.locator(".film polyline").first.get_attribute("points") == ""
    shown.screenshot(path=PICTURES / "film-start.png")


def test_a_training_that_was_resumed_counts_all_epochs(shown):
    change(shown, start=5, answers=short_film().answers)
    assert texts(shown, TITLE) == ["after epoch 5 of 8"]


PIXEL = """canvas => [...canvas.getContext("2d").getImageData(0, 0, 1, 1).data].slice(0, 3)"""
BY_HAND = {  # three epochs of one filter of one pixel: blue, white, half red, red
    "sizes": {"filters": [1, 1, 1], "maps": [1, 1, 1]},
    "filters": encoded(bytes([1, 128, 192, 255])),
    "maps": encoded(bytes([10, 20, 30, 40])),
    "digit": encoded(bytes([77] * 784)),
    "curves": {"train_acc": [60, 70, 80], "test_acc": [95, 96, 97]},
    "measured_on": "test",
    "times": [[0, 0], [1, 0], [2, 0], [3, 0]],
    "changes": [11, 22, 33],
    "answers": [[0.1] * 10, *([0.01] * n + [0.91] + [0.01] * (9 - n) for n in (4, 5, 6))],
}


@pytest.fixture
def by_hand(shown):
    """The page with a film of easy numbers."""
    change(shown, **BY_HAND)
    return shown


def test_each_epoch_shows_its_own_filters_maps_and_answer(by_hand):
    """Notices: a frame, a map or a bar of the epoch before or after."""
    filters = [[0, 0, 255], [255] * 3, [255, 126, 126], [255, 0, 0]]
    for epoch, colour in enumerate(filters):
        if epoch > 0:
            by_hand.locator(".film input").press("ArrowRight")
            assert best(by_hand) == [str(3 + epoch), "91 %"]
        colours = [canvas.evaluate(PIXEL) for canvas in by_hand.locator(".film canvas").all()]
        assert colours == [[77] * 3, colour, [10 + 10 * epoch] * 3]
        text = f"changed by {11 * epoch}.0 % in this epoch" if epoch else "before training"
        assert texts(by_hand, ".film-change") == [f"filters of the first layer, {text}"]


def test_the_curves_end_at_the_line_of_the_epoch(by_hand):
    """Notices: curves swapped, a line one epoch ahead, accuracies beside the wrong grid line."""
    by_hand.locator(".film input").press("ArrowRight")
    by_hand.locator(".film input").press("ArrowRight")
    assert texts(by_hand, ACCURACY) == ["accuracy: training 70.00 %, test 96.00 %"]
    curves = []
    for line in by_hand.locator(".film polyline").all():
        points = line.get_attribute("points").split()
        curves.append([[float(number) for number in point.split(",")] for point in points])
    training, test = curves
    assert [x for x, _ in training] == [x for x, _ in test] == pytest.approx([260 / 3, 520 / 3])
    now = by_hand.locator(".film-now")
    assert float(now.get_attribute("x1")) == pytest.approx(520 / 3)
    assert now.get_attribute("x2") == now.get_attribute("x1")
    heights = [y for _, y in training + test]
    assert heights == sorted(heights, reverse=True), "60, 70, 95 and 96 % from below"
    lines = by_hand.locator(".film svg line:not(.film-now)").all()
    grid = dict(zip(texts(by_hand, ".film svg text"), lines))
    assert float(grid["95 %"].get_attribute("y1")) == pytest.approx(test[0][1])


def test_a_new_training_begins_at_its_start(by_hand):
    by_hand.locator(".film input").press("End")
    change(by_hand, times=BY_HAND["times"][:3], answers=BY_HAND["answers"][:3])
    assert texts(by_hand, TITLE) == ["before training"]
    by_hand.locator(".film input").press("End")
    assert texts(by_hand, TITLE) == ["after epoch 2 of 2"]


def test_the_first_epoch_is_shown_step_by_step(by_hand):
    times = [[0, 0], [0, 2], [1, 0], [2, 0]]
    change(by_hand, times=times, answers=BY_HAND["answers"])
    by_hand.locator(".film input").press("ArrowRight")
    assert texts(by_hand, TITLE) == ["epoch 1 of 2, after step 2"]
    assert texts(by_hand, ACCURACY) == ["accuracy: training –, test –"]
    by_hand.locator(".film input").press("ArrowRight")
    assert texts(by_hand, TITLE) == ["after epoch 1 of 2"]
    assert texts(by_hand, ACCURACY) == ["accuracy: training 60.00 %, test 95.00 %"]
    (point,) = by_hand.locator(".film polyline").first.get_attribute("points").split()
    now = by_hand.locator(".film-now").get_attribute("x1")
    assert float(point.split(",")[0]) == pytest.approx(float(now)) == pytest.approx(520 / 3)


def test_a_film_without_a_training_says_so(blank):
    film = short_film()
    show(blank, TrainingFilm(film.history, film.image))
    assert "run the training first" in blank.locator(".film").inner_text()


def test_in_high_contrast_the_bars_keep_their_colours(page):
    show(page, short_film())
    page.emulate_media(forced_colors="active")
    colours = "bar => [bar, bar.parentElement].map(part => getComputedStyle(part).backgroundColor)"
    bar, track = page.locator(".course-track > div").first.evaluate(colours)
    assert bar == "rgb(61, 139, 253)" and track == "rgba(128, 128, 128, 0.25)"


PARTS = ".film :is(input, button, figure, canvas, figcaption, .course-row)"


@pytest.fixture
def timed(browser):
    """A page on which a test can make time pass faster."""
    page = open_page(browser)
    page.clock.install()
    yield page
    page.close()


def test_the_film_plays_to_its_end_and_starts_over(timed):
    show(timed, short_film())
    button, title = timed.get_by_role("button"), timed.locator(".film-slider span")
    button.click()
    assert button.inner_text() == "Pause"
    timed.clock.run_for(10_000)
    assert title.inner_text() == "after epoch 3 of 3" and button.inner_text() == "Play"
    button.click()
    assert title.inner_text() == "before training"


def test_the_film_pauses_at_a_press_and_at_the_slider(timed):
    show(timed, short_film())
    button, title = timed.get_by_role("button"), timed.locator(".film-slider span")
    for pause in [button.click, lambda: timed.locator(".film input").press("ArrowRight")]:
        timed.locator(".film input").press("Home")
        button.click()
        timed.clock.run_for(800)
        pause()
        stopped = title.inner_text()
        timed.clock.run_for(10_000)
        assert title.inner_text() == stopped != "before training"


@pytest.mark.parametrize("width", [390, 1000])
def test_the_films_answer_is_beside_its_slider_and_nothing_jumps(page, width):
    show(page, short_film())
    page.set_viewport_size({"width": width, "height": 844})
    slider = page.locator(".film input").bounding_box()
    bars = page.locator(".course-row").last.bounding_box()
    assert slider["y"] < bars["y"] < slider["y"] + 320
    places = "all => all.map((part) => part.getBoundingClientRect().top)"
    before = page.locator(PARTS).evaluate_all(places)
    page.locator(".film input").press("End")
    after = page.locator(PARTS).evaluate_all(places)
    assert before == pytest.approx(after, abs=1)
