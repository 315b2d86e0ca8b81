"""The bench's JavaScript: its arithmetic against autograd, and the bench without a kernel."""

import pytest
import torch
from browsing import change, fits, load, middle, press, saved, set_rate, show, texts, weight

from course.widgets.bench import BackpropBench

# --- Pure functions ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench_js(blank):
    return load(blank, BackpropBench._esm)


def random_worlds(count):
    """Weights, inputs and targets with numbers of both signs."""
    rows = (4 * torch.rand(count, 12, dtype=torch.float64) - 2).tolist()
    return [[row[:8], row[8:10], [abs(number) / 2 for number in row[10:]]] for row in rows]


def test_error_gradients_and_step_are_those_of_autograd(bench_js):
    code = """(bench, worlds) => worlds.map((world) => [
      bench.forward(...world).E, bench.backward(...world), bench.update(...world, 0.5)
    ])"""
    worlds = random_worlds(20)
    answers = bench_js.evaluate(code, worlds)
    for (weights, inputs, targets), (error, gradients, moved) in zip(worlds, answers):
        bench = BackpropBench(inputs, weights, targets)
        assert error == pytest.approx(bench.error, rel=1e-12)
        assert gradients == pytest.approx(bench.gradients, rel=1e-9, abs=1e-15)
        steps = zip(weights, bench.gradients)
        assert moved == pytest.approx([weight - 0.5 * slope for weight, slope in steps])


def test_the_factors_of_each_gradient_multiply_to_it(bench_js):
    """Notices a factor that is missing, doubled, or taken from another neuron."""
    code = """(bench, worlds) => worlds.map((world) =>
      [1, 2, 3, 4, 5, 6, 7, 8].map((n) => bench.product(n, ...world).numbers))"""
    python = str.maketrans("−·[]", "-*()")
    worlds = random_worlds(5)
    for (weights, inputs, targets), products in zip(worlds, bench_js.evaluate(code, worlds)):
        values = [eval(product.translate(python)) for product in products]
        gradients = BackpropBench(inputs, weights, targets).gradients
        assert values == pytest.approx(gradients, rel=0.02, abs=2e-4), products


def test_the_notation_is_the_lessons(bench_js):
    code = "bench => [5, 8, 4].map((n) => bench.product(n, Array(8).fill(1), [1, 1], [0, 0]).names)"
    through_1, through_2 = "(a_o1 − t_1) · a_o1(1 − a_o1)", "(a_o2 − t_2) · a_o2(1 − a_o2)"
    assert bench_js.evaluate(code) == [
        f"{through_1} · a_h1",
        f"{through_2} · a_h2",
        f"[{through_1} · w_6 + {through_2} · w_8] · a_h2(1 − a_h2) · i_2",
    ]


def test_numbers_keep_the_decimals_that_tell_something(bench_js):
    numbers = bench_js.evaluate("bench => [0, 0.5, -0.05, 0.00018826, 12.3456].map(bench.show)")
    assert numbers == ["0.0000", "0.5000", "−0.0500", "0.000188", "12.35"]


# --- The bench, without a kernel -----------------------------------------------------------------

ERROR = ".bench-error .bench-value"
STATUS = ".bench-status"
STEP = ".bench-curve text"
LESSON = BackpropBench().weights


@pytest.fixture
def shown(blank):
    show(blank, BackpropBench())
    return blank


def test_it_starts_with_the_lessons_numbers_and_without_gradients(shown):
    """Notices zeros in place of gradients that are not known yet."""
    activations = ["0.0500", "0.1000", "0.5069", "0.5106", "0.6065", "0.6305"]
    assert texts(shown, ".bench-neuron .bench-value") == activations
    assert texts(shown, ERROR) == ["0.242520"]
    assert texts(shown, ".bench-target") == ["target 0.01", "target 0.99"]
    assert texts(shown, ".bench-gradient") == [""] * 8
    assert shown.get_by_role("button", name="Update").is_disabled()
    weight(shown, 5).click()
    unknown = "The gradient of w5 is not known yet: press Backward."
    assert texts(shown, ".bench-product") == [unknown]


def test_forward_backward_update_make_one_step_and_so_does_step(shown):
    press(shown, "Forward", "Backward")
    gradients = texts(shown, ".bench-gradient")
    assert gradients[4] == "∂E/∂w 0.0722 ▼", "w5 will fall"
    assert gradients[6] == "∂E/∂w −0.0425 ▲", "w7 will rise"
    press(shown, "Update")
    by_three = saved(shown, "weights"), texts(shown, ERROR)
    steps = zip(LESSON, BackpropBench().gradients)
    assert by_three[0] == pytest.approx([w - slope for w, slope in steps], abs=1e-12)
    assert texts(shown, ".bench-gradient") == [""] * 8, "those were of the old weights"
    press(shown, "Rewind", "Step")
    assert (saved(shown, "weights"), texts(shown, ERROR)) == by_three
    assert texts(shown, STATUS) == ["Step 1: E falls from 0.242520 to 0.228548."]


def test_rewind_returns_to_the_start_and_keeps_the_rate_and_the_old_curve(shown):
    press(shown, "100 steps")
    assert saved(shown, "weights") != LESSON and len(saved(shown, "past")) == 100
    set_rate(shown, "0.5", key="Tab")
    assert len(saved(shown, "past")) == 100, "another learning rate loses nothing"
    curve = shown.locator(".bench-now").get_attribute("points")
    press(shown, "Rewind", "Rewind")
    assert shown.locator(".bench-earlier").get_attribute("points") == curve, "to compare with"
    assert saved(shown, "weights") == LESSON and saved(shown, "past") == []
    assert saved(shown, "learning_rate") == 0.5


def test_a_learning_rate_is_a_number_from_0_to_1000(shown):
    for wrong in ("-1", "", "1001"):
        set_rate(shown, "0.5")
        set_rate(shown, wrong)
        assert texts(shown, STATUS) == ["The learning rate must be a number from 0 to 1000."]
        assert saved(shown, "learning_rate") == 0.5
        assert shown.get_by_label("learning rate").input_value() == "0.5"
    set_rate(shown, "0.25")
    assert texts(shown, STATUS) == ["The learning rate is 0.25."], "the complaint is over"
    set_rate(shown, "0")
    press(shown, "Step")
    assert texts(shown, STATUS) == ["Step 1: E stays at 0.242520."]


def test_large_rates_change_hardly_anything_or_are_refused(shown):
    change(shown, learning_rate=1000)
    press(shown, "100 steps", "Step")
    assert texts(shown, STATUS) == ["Step 101: E stays at 0.000100."], "it rises, but by less"
    change(shown, learning_rate=1e308, targets=[100, 1])
    press(shown, "Rewind", "Step")
    infinite = "The weights would become infinite: use a smaller learning rate."
    assert texts(shown, STATUS) == [infinite]
    assert saved(shown, "weights") == LESSON and saved(shown, "past") == []


def drag(page, part, right, up):
    x, y = middle(part)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + right, y - up)
    page.mouse.up()


def test_the_mouse_moves_a_weight_until_it_lets_go(shown):
    drag(shown, weight(shown, 5), right=30, up=10)
    assert saved(shown, "weights")[4] == pytest.approx(0.80), "40 pixels are 40 hundredths"
    shown.mouse.move(10, 10)
    assert saved(shown, "weights") == pytest.approx([*LESSON[:4], 0.80, *LESSON[5:]])


def test_choosing_a_large_weight_leaves_it_as_it_is(shown):
    """Large steps lead beyond what can be dragged."""
    change(shown, weights=[*LESSON[:4], -71.76, *LESSON[5:]])
    drag(shown, weight(shown, 5), right=1, up=0)
    assert saved(shown, "weights")[4] == pytest.approx(-71.75)


def test_keys_move_a_weight_within_its_limits(shown):
    steps = [("ArrowUp", 0.41), ("ArrowLeft", 0.40), ("Shift+ArrowUp", 0.50), ("PageDown", 0.40)]
    steps += [("PageUp", 0.50), ("ArrowRight", 0.51), ("ArrowDown", 0.50), ("Shift+PageDown", -0.5)]
    steps += [("Shift+PageUp", step - 0.5) for step in range(1, 21)]
    steps += [("Shift+PageUp", 20), ("Shift+PageDown", 19)]
    for key, expected in steps:
        weight(shown, 5).press(key)
        assert saved(shown, "weights")[4] == pytest.approx(expected), key


def touch(page, *events):
    """Touch the screen: (kind of event, a place for each finger on it)."""
    screen = page.context.new_cdp_session(page)
    for kind, *places in events:
        points = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(places)]
        screen.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def test_a_finger_drags_a_weight(shown):
    """Notices: a browser that takes the finger's way for scrolling, and ends the drag."""
    x, y = middle(weight(shown, 5))
    moves = [("touchMove", (x + way, y)) for way in range(10, 130, 10)]
    touch(shown, ("touchStart", (x, y)), *moves, ("touchEnd",))
    assert saved(shown, "weights")[4] == pytest.approx(0.40 + 1.20)


def test_a_second_finger_leaves_the_first_ones_weight_alone(shown):
    (x, y), other = middle(weight(shown, 1)), middle(weight(shown, 7))
    moves = [("touchMove", (x + way, y), other) for way in (10, 20, 30)]
    touch(shown, ("touchStart", (x, y)), ("touchStart", (x, y), other), *moves, ("touchEnd",))
    assert saved(shown, "weights") == pytest.approx([0.45, *LESSON[1:]])


@pytest.mark.parametrize("name", ["weights", "inputs", "targets"])
def test_numbers_set_in_python_are_shown(shown, name):
    news = {name: [0.3, 0.6] if name != "weights" else [0] * 8}
    change(shown, **news)
    assert texts(shown, ERROR) == [f"{BackpropBench(**news).error:.6f}"]


def test_the_chosen_weight_is_marked_and_its_gradient_worked_out(shown):
    weight(shown, 5).click()
    assert texts(shown, ".bench-chosen text")[0] == "w5 = 0.4000"
    assert weight(shown, 5).get_attribute("aria-valuetext") == "0.4000"
    press(shown, "Backward")
    change(shown, weights=[*LESSON[:4], 0.8, *LESSON[5:]])
    slope = BackpropBench(weights=saved(shown, "weights")).gradients[4]
    assert weight(shown, 5).get_attribute("aria-valuetext") == f"0.8000, gradient {slope:.4f}"
    product = shown.locator(".bench-product")
    assert product.locator("sub").all_inner_texts()[:3] == ["5", "o1", "1"]
    assert f"= {slope:.4f}" in product.inner_text()
    assert f"w5 = 0.8000 − 1 · {slope:.4f} = {0.8 - slope:.4f}." in product.inner_text()


def test_the_curve_falls_with_the_error_and_pointer_and_keys_choose_a_step(shown):
    press(shown, "100 steps")
    assert texts(shown, STATUS) == ["Step 100: E falls from 0.242520 to 0.012395."]
    points = shown.locator(".bench-now").get_attribute("points").split()
    heights = [150 - float(point.split(",")[1]) for point in points]
    assert len(heights) == 101 and heights == sorted(heights, reverse=True)
    box = shown.locator(".bench-curve svg").bounding_box()
    at = {10: "step 0: E = 0.242520", 250: "step 100: E = 0.012395", 130: "step 50: E = "}
    for place, text in at.items():
        shown.mouse.move(box["x"] + box["width"] * place / 260, box["y"] + 50)
        assert texts(shown, STEP)[0].startswith(text)
    shown.mouse.move(box["x"] - 50, box["y"] + box["height"] + 100)
    assert texts(shown, STEP) == ["step 100: E = 0.012395"], "the last step again"
    for keys, step in {"L": 99, "LLLR": 97, "RRRRRRRRR": 100}.items():
        for key in keys:
            shown.locator(".bench-curve svg").press({"L": "ArrowLeft", "R": "ArrowRight"}[key])
        assert texts(shown, STEP)[0].startswith(f"step {step}: "), keys


PLACES = """() => {
  const numbers = (part, names) => names.map((name) => Number(part.getAttribute(name)));
  const all = (selector, names) =>
    [...document.querySelectorAll(selector)].map((part) => numbers(part, names));
  return [
    all("circle[data-layer]", ["cx", "cy"]),
    all(".bench-network > line", ["x1", "y1", "x2", "y2"]),
    all(".bench-weight > text:first-of-type", ["x", "y"]),
  ];
}"""
WAYS = ["i1 h1", "i2 h1", "i1 h2", "i2 h2", "h1 o1", "h2 o1", "h1 o2", "h2 o2"]  # of w1 ... w8


def test_each_weight_stands_between_the_neurons_that_it_connects(shown):
    """Notices: w2 on the way from i1 to h2, where the lesson has w3."""
    circles, lines, numbers = shown.evaluate(PLACES)
    neurons = dict(zip(["i1", "i2", "h1", "h2", "o1", "o2"], circles))
    nodes = shown.locator("[data-node]").evaluate_all("all => all.map((text) => text.dataset.node)")
    assert nodes == list(neurons)
    for way, line, (x, y), n in zip(WAYS, lines, numbers, range(1, 9)):
        start, end = way.split()
        x1, y1, x2, y2 = line
        assert [x1, y1] == neurons[start] and [x2, y2] == neurons[end], f"w{n}"
        assert y == pytest.approx(y1 + (x - x1) / (x2 - x1) * (y2 - y1), abs=5)
    names = [text.split(" ")[0] for text in texts(shown, ".bench-weight > text:first-of-type")]
    assert names == [f"w{n}" for n in range(1, 9)]


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


HOLD = """() => { // so that a slow machine finds the animations, which else end after a second
  const animate = Element.prototype.animate;
  Element.prototype.animate = function (...settings) {
    const animation = animate.apply(this, settings);
    animation.pause();
    return animation;
  };
}"""
LIGHT = """() => document.getAnimations().filter(({ effect }) => effect.target.dataset.layer)
  .map(({ effect }) => [Number(effect.target.dataset.layer), effect.getTiming().delay])"""


@pytest.mark.parametrize(("name", "direction"), [("Forward", 1), ("Backward", -1)])
def test_light_goes_from_left_to_right_and_back(page, name, direction):
    """Notices: a backward pass that is shown from the inputs to the error."""
    show(page, BackpropBench())
    press(page, name)
    assert page.evaluate(LIGHT) == [], "not for who has asked for less motion"
    page.emulate_media(reduced_motion="no-preference")
    page.evaluate(HOLD)
    press(page, name)
    lit = sorted(page.evaluate(LIGHT))
    assert lit[0][0] == 0 and lit[-1][0] == 5 and min(delay for _, delay in lit) == 0
    delays = [direction * delay for _, delay in lit]
    assert delays == sorted(delays) and len(set(delays)) == 6


def test_on_a_phone_all_of_the_network_can_be_read(page):
    show(page, BackpropBench())
    page.set_viewport_size({"width": 390, "height": 844})
    press(page, "Backward")
    assert fits(page)
    for part in [*page.locator("[data-node]").all(), page.locator(ERROR)]:
        box = part.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
        assert box["y"] + box["height"] <= 844, "outputs and error are in view"
    scale = page.locator(".bench-network").bounding_box()["width"] / 360
    size = "text => parseFloat(getComputedStyle(text).fontSize)"
    assert scale * page.locator(".bench-gradient").first.evaluate(size) >= 11
    boxes = [part.bounding_box() for part in page.locator(".bench-weight rect").all()]
    for n, box in enumerate(boxes):
        for other in boxes[:n]:
            is_beside = abs(box["x"] - other["x"]) >= box["width"] - 3
            assert is_beside or abs(box["y"] - other["y"]) >= box["height"], "none covers another"


def test_a_phone_that_is_turned_keeps_the_chosen_weight_and_the_keyboard(page):
    show(page, BackpropBench())
    weight(page, 5).focus()
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator(".bench-tall").wait_for()
    page.keyboard.press("ArrowUp")
    assert saved(page, "weights")[4] == pytest.approx(0.41)
