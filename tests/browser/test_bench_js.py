"""The bench's JavaScript: its arithmetic against autograd, and the bench itself without any kernel."""

import re

import pytest
import torch
from browsing import PICTURES, load_module
from helpers import HERE

from course.widgets.bench import BackpropBench

FILES = HERE / "course" / "widgets" / "bench"


@pytest.fixture
def bench_js(page):
    return load_module(page, FILES / "bench.js")


def random_cases(count=20):
    """(weights, inputs, targets) with numbers of both signs."""
    numbers = (4 * torch.rand(count, 12, dtype=torch.float64) - 2).tolist()
    return [(row[:8], row[8:10], [abs(number) / 2 for number in row[10:]]) for row in numbers]


# --- Pure functions ----------------------------------------------------------------------------------------


def test_error_and_gradients_are_those_of_autograd(bench_js):
    code = "(bench, args) => [bench.forward(...args).E, bench.backward(...args)]"
    for weights, inputs, targets in random_cases():
        expected = BackpropBench(inputs, weights, targets)
        error, gradients = bench_js.evaluate(code, [weights, inputs, targets])
        assert error == pytest.approx(expected.error, rel=1e-12)
        assert gradients == pytest.approx(expected.gradients, rel=1e-9, abs=1e-15)


def test_two_hundred_steps_end_where_the_lesson_ends(bench_js):
    code = """(bench, [w, i, t]) => {
        for (let step = 0; step < 200; step++) w = bench.update(w, i, t, 1.0);
        return bench.forward(w, i, t).E;
    }"""
    bench = BackpropBench()
    assert round(bench.error, 6) == 0.242520
    assert (
        round(bench_js.evaluate(code, [bench.weights, bench.inputs, bench.targets]), 6) == 0.005207
    )


def test_the_factors_of_each_gradient_multiply_to_it(bench_js):
    """Notices a factor that is missing, doubled, or taken from another neuron."""
    for weights, inputs, targets in random_cases(5):
        expected = BackpropBench(inputs, weights, targets).gradients
        for n in range(1, 9):
            code = "(bench, args) => bench.product(...args).numbers"
            numbers = bench_js.evaluate(code, [n, weights, inputs, targets])
            code = numbers.replace("−", "-").replace("·", "*").replace("[", "(").replace("]", ")")
            assert eval(code) == pytest.approx(expected[n - 1], rel=0.02, abs=2e-4), (
                f"w{n}: {numbers}"
            )


def test_the_notation_is_the_lessons(bench_js):
    def names(n):
        code = "(bench, n) => bench.product(n, [1, 1, 1, 1, 1, 1, 1, 1], [1, 1], [0, 0]).names"
        return bench_js.evaluate(code, n).replace("_", "")

    assert names(5) == "(ao1 − t1) · ao1(1 − ao1) · ah1"
    assert names(8) == "(ao2 − t2) · ao2(1 − ao2) · ah2"
    through_both = "[(ao1 − t1) · ao1(1 − ao1) · w6 + (ao2 − t2) · ao2(1 − ao2) · w8]"
    assert names(4) == f"{through_both} · ah2(1 − ah2) · i2"


def test_numbers_keep_the_decimals_that_tell_something(bench_js):
    numbers = bench_js.evaluate("bench => [0, 0.5, -0.05, 0.00018826, 12.3456].map(bench.show)")
    assert numbers == ["0.0000", "0.5000", "−0.0500", "0.000188", "12.35"]


# --- The bench, without a kernel ----------------------------------------------------------------------------

SHOW = """(bench, [css, values]) => {
  document.head.appendChild(document.createElement("style")).textContent = css;
  window.values = values;
  window.saved = { ...values }; // what Python knows
  window.heard = {};
  const model = {
    get: (name) => values[name],
    set: (name, value) => { values[name] = value; },
    save_changes: () => Object.assign(saved, values),
    on: (name, hear) => { heard[name] = hear; },
    off: (name) => { delete heard[name]; },
  };
  window.close = bench.default.render({ model, el: document.body });
}"""


@pytest.fixture
def shown(page, bench_js):
    bench = BackpropBench()
    names = ["inputs", "targets", "weights", "start", "learning_rate", "past", "has_gradients"]
    bench_js.evaluate(SHOW, [BackpropBench._css, {name: getattr(bench, name) for name in names}])
    return page


def press(page, *names):
    for name in names:
        page.get_by_role("button", name=name, exact=True).click()


def value(page, name):
    """Return a value as Python has it."""
    return page.evaluate("name => saved[name]", name)


def texts(page, selector):
    return [text.strip() for text in page.locator(selector).all_text_contents()]


def weight(page, n):
    return page.get_by_role("slider", name=f"w{n}")


def test_it_starts_with_the_lessons_numbers_and_without_gradients(shown):
    """Notices zeros in place of gradients that are not known yet."""
    assert texts(shown, ".bench-error .bench-value") == ["0.242520"]
    assert texts(shown, ".bench-neuron .bench-value") == [
        "0.0500",
        "0.1000",
        "0.5069",
        "0.5106",
        "0.6065",
        "0.6305",
    ]
    assert texts(shown, ".bench-gradient") == [""] * 8
    assert shown.get_by_role("button", name="Update").is_disabled()
    weight(shown, 5).click()
    assert texts(shown, ".bench-product") == [
        "The gradient of w5 is not known yet: press Backward."
    ]
    assert texts(shown, ".bench-target") == ["target 0.01", "target 0.99"]


def test_forward_backward_update_make_one_step_and_so_does_step(shown):
    press(shown, "Forward", "Backward")
    gradients = texts(shown, ".bench-gradient")
    assert gradients[4] == "∂E/∂w 0.0722 ▼" and gradients[6] == "∂E/∂w −0.0425 ▲", (
        "w5 will fall, w7 will rise"
    )
    press(shown, "Update")
    by_three, error = value(shown, "weights"), texts(shown, ".bench-error .bench-value")
    assert texts(shown, ".bench-gradient") == [""] * 8, (
        "those were the gradients of the old weights"
    )
    assert by_three == pytest.approx(
        [w - slope for w, slope in zip(BackpropBench().weights, BackpropBench().gradients)],
        abs=1e-12,
    )
    press(shown, "Rewind", "Step")
    assert (
        value(shown, "weights") == by_three and texts(shown, ".bench-error .bench-value") == error
    )
    assert texts(shown, ".bench-status") == ["Step 1: E falls from 0.242520 to 0.228548."]


def test_rewind_returns_to_the_start_and_the_learning_rate_stays(shown):
    shown.get_by_label("learning rate").fill("2")
    shown.get_by_label("learning rate").press("Enter")
    before = value(shown, "weights")
    press(shown, "100 steps")
    assert value(shown, "weights") != before and len(value(shown, "past")) == 100
    shown.get_by_label("learning rate").fill("0.5")
    shown.get_by_label("learning rate").press("Tab")
    assert len(value(shown, "past")) == 100, "another learning rate loses nothing"
    curve = shown.locator(".bench-now").get_attribute("points")
    press(shown, "Rewind")
    assert shown.locator(".bench-earlier").get_attribute("points") == curve, "to compare with"
    assert (
        value(shown, "weights") == before
        and value(shown, "past") == []
        and value(shown, "learning_rate") == 0.5
    )
    shown.get_by_label("learning rate").fill("-1")
    shown.get_by_label("learning rate").press("Enter")
    assert texts(shown, ".bench-status") == ["The learning rate must be a number from 0 to 1000."]
    assert value(shown, "learning_rate") == 0.5
    assert shown.get_by_label("learning rate").input_value() == "0.5"
    shown.get_by_label("learning rate").fill("0.25")
    shown.get_by_label("learning rate").press("Enter")
    assert texts(shown, ".bench-status") == ["The learning rate is 0.25."], "the complaint is over"


def test_a_weight_follows_mouse_and_keys_and_all_else_follows_it(shown):
    press(shown, "Backward")
    before = texts(shown, ".bench-gradient"), texts(shown, ".bench-error .bench-value")
    box = weight(shown, 5).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    shown.mouse.move(x, y)
    shown.mouse.down()
    shown.mouse.move(x + 30, y - 10)
    shown.mouse.up()
    shown.mouse.move(x + 90, y)  # let go: this one moves nothing
    assert value(shown, "weights")[4] == pytest.approx(0.80), (
        "30 to the right and 10 up: 40 hundredths"
    )
    assert (texts(shown, ".bench-gradient"), texts(shown, ".bench-error .bench-value")) != before
    for key, expected in [
        ("ArrowUp", 0.81),
        ("ArrowLeft", 0.80),
        ("Shift+ArrowUp", 0.90),
        ("PageDown", 0.80),
        ("PageUp", 0.90),
        ("ArrowRight", 0.91),
        ("ArrowDown", 0.90),
        ("Shift+PageDown", -0.10),
        *[("Shift+PageUp", step - 0.10) for step in range(1, 21)],
        ("Shift+PageUp", 20),  # the limit
        ("Shift+PageDown", 19),
    ]:
        weight(shown, 5).press(key)
        assert value(shown, "weights")[4] == pytest.approx(expected), key
    shown.evaluate("() => { values.weights[4] = 0.8; heard['change:weights'](); }")
    expected = BackpropBench(
        weights=[*value(shown, "weights")[:4], 0.8, *value(shown, "weights")[5:]]
    )
    assert texts(shown, ".bench-error .bench-value") == [f"{expected.error:.6f}"]
    product = shown.locator(".bench-product").inner_text()
    assert (
        f"= {expected.gradients[4]:.4f}" in product
        and f"= {0.8 - expected.gradients[4]:.4f}." in product
    )


def test_the_curve_tells_the_error_of_the_step_under_the_pointer(shown):
    press(shown, "100 steps")
    curve = shown.locator(".bench-curve svg")
    box = curve.bounding_box()
    shown.mouse.move(box["x"] + box["width"] * 10 / 260, box["y"] + 50)
    assert texts(shown, ".bench-curve text") == ["step 0: E = 0.242520"]
    shown.mouse.move(box["x"] + box["width"] * 250 / 260, box["y"] + 50)
    assert texts(shown, ".bench-curve text") == ["step 100: E = 0.012395"]
    shown.mouse.move(box["x"] + box["width"] * 130 / 260, box["y"] + 50)
    assert texts(shown, ".bench-curve text")[0].startswith("step 50: ")
    shown.mouse.move(box["x"] - 50, box["y"] + box["height"] + 100)
    assert texts(shown, ".bench-curve text") == ["step 100: E = 0.012395"], "the last step again"


def test_the_curve_falls_with_the_error_and_its_keys_go_through_the_steps(shown):
    """Notices: a curve upside down, arrow keys that do the opposite, and a step before the first."""
    press(shown, "100 steps")
    assert texts(shown, ".bench-status") == ["Step 100: E falls from 0.242520 to 0.012395."]
    points = shown.locator(".bench-now").get_attribute("points").split()
    heights = [150 - float(point.split(",")[1]) for point in points]
    assert len(heights) == 101 and heights == sorted(heights, reverse=True)
    curve = shown.locator(".bench-curve svg")
    for keys, step in [
        (["ArrowLeft"], 99),
        (["ArrowLeft"] * 3 + ["ArrowRight"], 97),
        (["ArrowRight"] * 9, 100),
    ]:
        for key in keys:
            curve.press(key)
        assert texts(shown, ".bench-curve text")[0].startswith(f"step {step}: "), keys


def test_the_curve_before_a_rewind_stays_until_the_next(shown):
    press(shown, "Step", "Step")
    curve = shown.locator(".bench-now").get_attribute("points")
    press(shown, "Rewind", "Rewind")
    assert shown.locator(".bench-earlier").get_attribute("points") == curve


def test_each_weight_stands_between_the_neurons_that_it_connects(shown):
    """Notices: w2 on the way from i1 to h2, where the lesson has w3."""
    places = shown.evaluate("""() => {
        const numbers = (part, ...names) => names.map((name) => Number(part.getAttribute(name)));
        const all = (selector) => [...document.querySelectorAll(selector)];
        const neurons = all(".bench-neuron").map((part) => [
            part.querySelector("[data-node]").dataset.node,
            numbers(part.querySelector("circle"), "cx", "cy"),
        ]);
        const at = ([x, y]) => neurons.find(([, place]) => place[0] === x && place[1] === y)[0];
        const lines = all(".bench-network > line").slice(0, 8)
            .map((line) => [at(numbers(line, "x1", "y1")), at(numbers(line, "x2", "y2"))]);
        const texts = all(".bench-weight > text:first-of-type")
            .map((text) => [text.textContent.split(" ")[0], numbers(text, "x", "y")]);
        return { neurons: Object.fromEntries(neurons), lines, texts };
    }""")
    ways = ["i1 h1", "i2 h1", "i1 h2", "i2 h2", "h1 o1", "h2 o1", "h1 o2", "h2 o2"]
    assert places["lines"] == [way.split() for way in ways]
    for n, ((name, (x, y)), way) in enumerate(zip(places["texts"], ways), 1):
        (x1, y1), (x2, y2) = (places["neurons"][neuron] for neuron in way.split())
        assert name == f"w{n}" and y == pytest.approx(y1 + (x - x1) / (x2 - x1) * (y2 - y1), abs=5)


def test_light_goes_from_left_to_right_and_back(shown):
    """Notices: a backward pass that is shown from the inputs to the error."""
    code = """() => document.getAnimations().filter((each) => each.effect.target.dataset.layer)
        .map(({ effect }) => [Number(effect.target.dataset.layer), effect.getTiming().delay])"""
    for name, direction in [("Forward", 1), ("Backward", -1)]:
        press(shown, name)
        lit = sorted(shown.evaluate(code))
        shown.evaluate("() => document.getAnimations().forEach((each) => each.cancel())")
        assert lit[0][0] == 0 and lit[-1][0] == 5 and min(delay for _, delay in lit) == 0
        assert all(direction * (b - a) >= 0 for (_, a), (_, b) in zip(lit, lit[1:])), name
    shown.emulate_media(reduced_motion="reduce")
    press(shown, "Forward")
    assert shown.evaluate(code) == []


def test_weights_do_not_become_infinite(shown):
    shown.evaluate("() => { values.learning_rate = 1e308; values.targets = [100, 1]; }")
    before = value(shown, "weights")
    press(shown, "Rewind", "Step")
    assert texts(shown, ".bench-status") == [
        "The weights would become infinite: use a smaller learning rate."
    ]
    assert value(shown, "weights") == before and value(shown, "past") == []


def test_a_learning_rate_of_0_changes_nothing(shown):
    shown.get_by_label("learning rate").fill("0")
    shown.get_by_label("learning rate").press("Enter")
    press(shown, "Step")
    assert texts(shown, ".bench-status") == ["Step 1: E stays at 0.242520."]


def test_the_chosen_weight_is_marked_and_read_aloud_with_its_gradient(shown):
    weight(shown, 7).click()
    assert texts(shown, ".bench-chosen text")[0].startswith("w7 = ")
    assert weight(shown, 7).get_attribute("aria-valuetext") == "0.5000"
    press(shown, "Backward")
    assert weight(shown, 7).get_attribute("aria-valuetext") == "0.5000, gradient −0.0425"


def test_what_hardly_changes_neither_falls_nor_rises(shown):
    shown.evaluate("() => { values.learning_rate = 1000; heard['change:learning_rate'](); }")
    press(shown, "100 steps", "Step")
    assert texts(shown, ".bench-status") == ["Step 101: E stays at 0.000100."]


def test_numbers_set_in_python_are_shown(shown):
    shown.evaluate(
        "() => { values.weights = [0, 0, 0, 0, 0, 0, 0, 0]; heard['change:weights'](); }"
    )
    assert texts(shown, ".bench-error .bench-value") == [
        f"{BackpropBench(weights=[0] * 8).error:.6f}"
    ]


def touch(page, *events):
    """Touch the screen: (kind of event, a place for each finger on it)."""
    screen = page.context.new_cdp_session(page)
    for kind, *places in events:
        points = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(places)]
        screen.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def middle(part):
    box = part.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_finger_drags_a_weight(shown):
    """Notices: a browser that takes the finger's way for scrolling, and ends the drag."""
    x, y = middle(weight(shown, 5))
    moves = [("touchMove", (x + way, y)) for way in range(10, 130, 10)]
    touch(shown, ("touchStart", (x, y)), *moves, ("touchEnd",))
    assert value(shown, "weights")[4] == pytest.approx(0.40 + 1.20)


def test_a_second_finger_leaves_the_first_ones_weight_alone(shown):
    (x, y), other = middle(weight(shown, 1)), middle(weight(shown, 7))
    moves = [("touchMove", (x + way, y), other) for way in (10, 20, 30)]
    touch(shown, ("touchStart", (x, y)), ("touchStart", (x, y), other), *moves, ("touchEnd",))
    assert value(shown, "weights") == pytest.approx([0.45, *BackpropBench().weights[1:]])


def test_a_click_leaves_a_large_weight_as_it_is(shown):
    """Large steps lead beyond what can be dragged; choosing such a weight must not bring it back."""
    shown.evaluate("() => { values.weights[4] = -71.76; heard['change:weights'](); }")
    x, y = middle(weight(shown, 5))
    shown.mouse.move(x, y)
    shown.mouse.down()
    shown.mouse.move(x + 1, y)
    shown.mouse.up()
    assert value(shown, "weights")[4] == pytest.approx(-71.75)


@pytest.mark.parametrize("name", ["inputs", "targets"])
def test_inputs_and_targets_set_in_python_are_shown(shown, name):
    shown.evaluate(f"() => {{ values.{name} = [0.3, 0.6]; heard['change:{name}'](); }}")
    expected = BackpropBench(**{name: [0.3, 0.6]}).error
    assert texts(shown, ".bench-error .bench-value") == [f"{expected:.6f}"]


def test_on_a_phone_the_network_can_be_read_and_scrolled(page, shown):
    page.set_viewport_size({"width": 360, "height": 760})
    assert shown.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    assert weight(shown, 1).bounding_box()["height"] >= 25
    scroller = shown.locator(".bench-scroll")
    scroller.evaluate("place => place.scrollTo(1000, 0)")
    end = scroller.bounding_box()
    assert 100 < middle(shown.locator(".bench-error"))[0] < end["x"] + end["width"]


def test_keys_are_kept_from_jupyter_and_a_removed_bench_leaves_nothing_behind(shown):
    weight(shown, 1).press("ArrowUp")
    assert shown.locator("[data-lm-suppress-shortcuts]").count() == 1
    shown.evaluate("() => close()")
    weight(shown, 2).press("a")
    assert shown.locator("[data-lm-suppress-shortcuts]").count() == 1, "no new one"
    assert shown.evaluate("() => Object.keys(heard)") == []


@pytest.mark.parametrize("width", [1000, 500])
def test_all_of_it_is_in_view_and_within_its_width(page, shown, width):
    page.set_viewport_size({"width": width, "height": 760})
    press(shown, "Step", "Backward")
    weight(shown, 1).focus()
    shown.screenshot(path=PICTURES / f"bench-{width}.png")
    assert shown.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    bottom = shown.locator(".bench-product").bounding_box()
    assert bottom["y"] + bottom["height"] <= 760
