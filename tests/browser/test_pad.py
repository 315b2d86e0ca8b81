"""The pad's JavaScript: its pure functions, and the pad itself with a kernel that the test plays."""

import base64
import math
import random

import pytest
import torch
import torch.nn.functional as F
from browsing import PICTURES, bars, draw, ink, load_module, next_frame, seen, sees_verdict
from helpers import HERE

from course.checkpoints import get_trained
from course.widgets.pad import DigitPad, prepare, recognise
from model import Net

FILES = HERE / "course" / "widgets" / "pad"


@pytest.fixture
def pad_js(page):
    return load_module(page, FILES / "pad.js")


# --- Pure functions ----------------------------------------------------------------------------------------


def test_ink_is_averaged_by_hand(pad_js):
    """Notices: rows and columns swapped, a colour taken for the opacity, truncation in place of rounding."""
    opacity = [
        [255, 255, 0, 0],
        [255, 255, 0, 100],
        [10, 20, 0, 0],
        [30, 42, 0, 0],
    ]
    rgba = [value for row in opacity for alpha in row for value in (200, 150, 99, alpha)]
    ink = pad_js.evaluate("(pad, rgba) => [...pad.averageInk(rgba, 4, 2)]", rgba)
    assert ink == [255, 25, 26, 0]


def test_ink_of_a_whole_pad_is_averaged_as_pytorch_does(pad_js):
    """Notices: other sizes than the kernel expects, and sums that overflow or lose precision."""
    opacity = torch.randint(0, 256, (280, 280), dtype=torch.uint8)
    rgba = torch.zeros(280, 280, 4, dtype=torch.uint8)
    rgba[:, :, 3] = opacity
    ink = pad_js.evaluate(
        """(pad, encoded) => [...pad.averageInk(Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0)))]""",
        base64.b64encode(rgba.numpy().tobytes()).decode(),
    )
    expected = (
        F.avg_pool2d(opacity[None].double(), 2) + 0.5
    ).floor()  # JavaScript rounds halves up
    assert ink == expected.flatten().tolist()


def probabilities(digit, best):
    return [best if place == digit else (1 - best) / 9 for place in range(10)]


def test_verdicts(pad_js):
    """Notices: "a 8", a limit that moved, and a digit that is one off."""
    for digit, best, sentence in [
        (3, 0.95, "This is a 3."),
        (8, 0.95, "This is an 8."),
        (0, 0.7, "This is a 0."),
        (0, 0.69, "Not sure: a 0?"),
        (8, 0.3, "Not sure: an 8?"),
        (9, 0.0, "Not sure: a 0?"),  # nine equal probabilities: the first of them
    ]:
        assert (
            pad_js.evaluate("(pad, p) => pad.verdictOn(p)", probabilities(digit, best)) == sentence
        )


def test_without_a_guess_there_is_no_verdict(pad_js):
    """Notices: "Not sure: a 0?" on an empty pad, and "This is a -1." for a network whose weights are NaN."""
    assert pad_js.evaluate("pad => [pad.verdictOn(Array(10).fill(0)), pad.verdictOn([NaN])]") == [
        "",
        "",
    ]


PLAY = """(pad, steps) => {
  const freeze = (part) => {
    if (part instanceof Object) Object.values(part).forEach(freeze);
    return Object.freeze(part);
  };
  let history = pad.EMPTY;
  return steps.map(([name, ...rest]) => (history = freeze(pad[name](freeze(history), ...rest))).strokes);
}"""


def stroke(width, *points):
    return {"width": width, "points": [list(point) for point in points]}


def test_undo_by_hand(pad_js):
    """Notices: Undo that removes one point instead of one stroke, and a Clear that cannot be undone."""
    steps = [
        ["undoLast"],  # nothing to undo, and no error
        ["beginStroke", 24, [1, 2]],
        ["extendStroke", [3, 4]],
        ["beginStroke", 12, [5, 6]],
        ["clearAll"],
        ["clearAll"],  # the pad is empty already: no step for Undo
        ["undoLast"],
        ["undoLast"],
        ["undoLast"],
        ["undoLast"],
    ]
    one, two = stroke(24, (1, 2), (3, 4)), stroke(12, (5, 6))
    assert pad_js.evaluate(PLAY, steps) == [
        [],
        [stroke(24, (1, 2))],
        [one],
        [one, two],
        [],
        [],
        [one, two],
        [one],
        [],
        [],
    ]


def test_undo_brings_back_what_was_there_before_each_change(pad_js):
    """Notices: a history that shares points with an earlier one. Python copies each state instead."""
    chance = random.Random(0)
    now, before, steps, expected = [], [], [], []
    for _ in range(300):
        name = chance.choice(
            ["beginStroke", "extendStroke", "extendStroke", "undoLast", "undoLast", "clearAll"]
        )
        point = [chance.randrange(280), chance.randrange(280)]
        if name == "beginStroke":
            steps.append([name, 18, point])
            before.append(now)
            now = [*now, stroke(18, point)]
        elif name == "extendStroke" and now:
            steps.append([name, point])
            now = [*now[:-1], stroke(18, *now[-1]["points"], point)]
        elif name == "undoLast":
            steps.append([name])
            now = before.pop() if before else now
        elif name == "clearAll":
            steps.append([name])
            if now:
                before.append(now)
            now = []
        else:
            continue
        expected.append(now)
    assert pad_js.evaluate(PLAY, steps) == expected


def test_the_pen_stays_on_the_pad(pad_js):
    """Notices: a wrong direction, steps of another length, and an edge without a limit."""
    move = "(pad, [spot, key, isSmall]) => pad.movePen(spot, key, isSmall)"
    for spot, key, is_small, expected in [
        ([140, 70], "ArrowLeft", False, [130, 70]),
        ([140, 70], "ArrowRight", True, [142, 70]),
        ([140, 70], "ArrowUp", True, [140, 68]),
        ([140, 70], "ArrowDown", False, [140, 80]),
        ([4, 70], "ArrowLeft", False, [0, 70]),
        ([279, 70], "ArrowRight", True, [280, 70]),
        ([140, 0], "ArrowUp", False, [140, 0]),
        ([140, 275], "ArrowDown", False, [140, 280]),
    ]:
        assert pad_js.evaluate(move, [spot, key, is_small]) == expected, (spot, key)


def test_there_are_five_pen_widths(pad_js):
    """Notices: a width outside the list, which would draw nothing."""
    change = "(pad, [width, by]) => pad.changeWidth(width, by)"
    widths = [pad_js.evaluate(change, pair) for pair in [(2, 1), (2, -1), (4, 1), (0, -1), (0, 1)]]
    assert widths == [3, 1, 4, 0, 1]


def test_the_mouse_draws_where_it_is_on_a_pad_of_any_size(pad_js):
    """Notices: an offset that is forgotten or scaled, and a scale that is upside down."""
    place = "(pad, [clientX, clientY, box]) => pad.toPad({ clientX, clientY }, box)"
    half = {"left": 100, "top": 50, "width": 140, "height": 140}
    assert pad_js.evaluate(place, [100, 50, half]) == [0, 0]
    assert pad_js.evaluate(place, [135, 190, half]) == [70, 280]


# --- The pad, with the test in the place of the kernel -----------------------------------------------------

SHOW = """(pad, css) => {
  document.head.appendChild(document.createElement("style")).textContent = css;
  window.sent = [];
  window.isDead = false;
  const model = {
    send(content, _, buffers) {
      if (isDead) throw Error("Cannot send");
      sent.push({ ...content, ink: [...new Uint8Array(buffers[0])] });
    },
    on: (_, hear) => { window.hear = hear; },
    off: () => { window.hear = null; },
  };
  window.close = pad.default.render({ model, el: document.body });
}"""
ANSWER = """([question, probabilities]) => hear({ ...question, probabilities },
  [new DataView(new Uint8Array(28 * 28).fill(255).buffer)])"""


@pytest.fixture
def shown(page, pad_js):
    """The page with the pad on it."""
    pad_js.evaluate(SHOW, DigitPad._css)
    return page


def questions(page):
    """Return what the pad has asked the kernel so far."""
    next_frame(page)
    return page.evaluate("() => sent")


def answer(page, question, digit, best=0.9):
    page.evaluate(
        ANSWER, [{name: question[name] for name in ("from", "version")}, probabilities(digit, best)]
    )


def test_a_dot_reaches_the_kernel(shown):
    """Notices: ink in the wrong place or of the wrong size, and a pad that does not draw a mere click."""
    draw(shown, [(0.25, 0.5)])
    (question,) = questions(shown)
    ink = torch.tensor(question["ink"]).view(question["size"], question["size"]) / 255
    assert ink.sum() == pytest.approx(math.pi * 6**2, rel=0.03), (
        "the pen is 24 of 280 wide, so 12 of 140"
    )
    places = torch.arange(140) + 0.5
    assert (ink.sum(dim=0) * places).sum() / ink.sum() == pytest.approx(35, abs=1)
    assert (ink.sum(dim=1) * places).sum() / ink.sum() == pytest.approx(70, abs=1)


def test_one_question_at_a_time_and_the_next_about_the_latest_drawing(shown):
    """Notices: a busy kernel that is asked at every movement, and a last change that is never asked about."""
    draw(shown, [(0.2, 0.2), (0.8, 0.2)])
    (first, *more) = questions(shown)
    draw(shown, [(0.2, 0.8), (0.8, 0.8)])
    assert len(questions(shown)) == 1, "no second question before the answer to the first"
    answer(shown, first, digit=7)
    sees_verdict(shown, "This is a 7.")
    first, second = questions(shown)
    assert sum(second["ink"]) > sum(first["ink"]) and second["version"] > first["version"]
    answer(shown, second, digit=2, best=0.5)
    sees_verdict(shown, "Not sure: a 2?")
    assert bars(shown)[2] == 50 and shown.locator(".course-best").inner_text().split() == [
        "2",
        "50",
        "%",
    ]
    assert len(questions(shown)) == 2, "the drawing has not changed since"


def test_answers_to_other_questions_are_ignored(shown):
    """Notices: an answer that arrives after Clear, or one meant for another view of the same widget."""
    draw(shown, [(0.5, 0.5)])
    (question,) = questions(shown)
    answer(shown, question | {"from": -1}, digit=4)
    assert shown.locator(".digit-pad-verdict").inner_text() == "Draw a large digit."
    shown.get_by_role("button", name="Clear").click()
    next_frame(shown)
    answer(shown, question, digit=4)
    assert shown.locator(".digit-pad-verdict").inner_text() == "Draw a large digit."
    assert bars(shown) == [0] * 10 and shown.locator(".course-best").count() == 0


def test_a_busy_and_a_restarted_kernel_are_reported(shown):
    """Notices: a pad that goes silent, without a word about why."""
    draw(shown, [(0.5, 0.5)])
    sees_verdict(
        shown, "No answer yet: the kernel is busy. (If it was restarted, run this cell again.)"
    )
    (question,) = questions(shown)
    answer(shown, question, digit=1)
    sees_verdict(shown, "This is a 1.")
    shown.evaluate("() => { isDead = true; }")
    draw(shown, [(0.2, 0.2)])
    sees_verdict(shown, "The kernel was restarted: run this cell again.")
    assert bars(shown) == [0] * 10


SMALL = {
    3: [(0, 0.1), (0.5, 0), (0.9, 0.2), (0.4, 0.45), (1, 0.75), (0.5, 1), (0, 0.9)],
    7: [(0, 0), (1, 0), (0.4, 1)],
}


@pytest.mark.parametrize("digit", SMALL)
def test_a_small_drawing_with_the_thickest_pen_is_read(shown, digit):
    """Notices holes that a thick pen fills; what the learner sees stays as drawn."""
    for _ in range(2):
        shown.get_by_role("button", name="Thicker").click()
    draw(shown, [(0.4 + 0.16 * x, 0.4 + 0.22 * y) for x, y in SMALL[digit]])
    answer(shown, questions(shown)[0], digit=0)  # that was about its first dot
    question = questions(shown)[-1]
    ink = torch.tensor(question["ink"], dtype=torch.uint8).view(question["size"], question["size"])
    guess = recognise(get_trained(Net).eval(), prepare(ink))
    assert guess.argmax() == digit and guess[digit] > 0.7


def test_only_a_small_drawing_is_thinned(pad_js):
    thinned = "(pad, strokes) => pad.thinned(strokes).map(({ width }) => width)"
    assert pad_js.evaluate(thinned, [stroke(24, (20, 20), (20, 220)), stroke(12, (30, 30))]) == [
        24,
        12,
    ]
    assert pad_js.evaluate(thinned, [stroke(36, (20, 20), (20, 100)), stroke(6, (30, 30))]) == [
        12,
        6,
    ]
    assert pad_js.evaluate(thinned, [stroke(24, (20, 20), (22, 23))]) == [24], "a dot"


def test_undo_says_that_it_brings_back_what_was_cleared(shown):
    draw(shown, [(0.2, 0.2), (0.8, 0.2)])
    undo = shown.locator("button").first
    next_frame(shown)
    assert undo.inner_text() == "Undo"
    shown.get_by_role("button", name="Clear").click()
    next_frame(shown)
    assert undo.inner_text() == "Undo clear"
    draw(shown, [(0.5, 0.5)])
    next_frame(shown)
    assert undo.inner_text() == "Undo"


def test_in_a_narrow_window_the_bars_stand_beside_the_pad(shown):
    shown.set_viewport_size({"width": 500, "height": 700})
    shown.screenshot(path=PICTURES / "pad-500.png")
    pad = shown.locator(".digit-pad-canvas").bounding_box()
    bars = shown.locator(".digit-pad-answer").bounding_box()
    assert bars["x"] > pad["x"] + pad["width"] and bars["y"] < pad["y"] + 20
    assert shown.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_fast_clicks_on_a_width_do_not_go_too_far(shown):
    """Notices: a pen without width. Ten clicks in one go come before the button is disabled."""
    shown.evaluate("""() => {
        const [, , thinner] = document.querySelectorAll("button");
        for (let click = 0; click < 10; click++) thinner.click();
    }""")
    draw(shown, [(0.5, 0.5)])
    (question,) = questions(shown)
    assert sum(question["ink"]) / 255 == pytest.approx(math.pi * 3**2, rel=0.05), "12 of 280 wide"
    assert shown.get_by_role("button", name="Thinner").is_disabled()


def test_a_pad_that_is_removed_leaves_nothing_behind(shown):
    """Notices: a key handler or a message handler that stays on the page."""
    shown.evaluate("() => close()")
    shown.locator(".digit-pad-canvas").press("a")
    assert shown.locator("[data-lm-suppress-shortcuts]").count() == 0
    assert shown.evaluate("() => hear === null")


# --- The pad's own drawing, keys and buttons ------------------------------------------------------------


def colour(page, x, y):
    """Return the colour of the pad at a place, in the pad's units: from 0 to 280."""
    next_frame(page)
    code = "(pad, [x, y]) => [...pad.getContext('2d').getImageData(2 * x, 2 * y, 1, 1).data].slice(0, 3)"
    return page.locator(".digit-pad-canvas").evaluate(code, [x, y])


WHITE, BLACK = [255] * 3, [0] * 3
CIRCLE = """pad => {
  const { data } = pad.getContext("2d").getImageData(0, 0, pad.width, pad.height);
  const places = [...Array(data.length / 4).keys()].filter((n) => data[4 * n] > 200 && data[4 * n + 2] < 50);
  if (!places.length) return null;
  const middle = (all) => (Math.min(...all) + Math.max(...all) + 1) / 4;
  const [columns, rows] = [places.map((n) => n % pad.width), places.map((n) => Math.floor(n / pad.width))];
  return [middle(columns), middle(rows), places.length];
}"""


def circle(page):
    """Return the middle of the orange circle and its number of pixels; None if there is no circle."""
    next_frame(page)
    return page.locator(".digit-pad-canvas").evaluate(CIRCLE)


def press(page, *keys):
    for key in keys:
        page.locator(".digit-pad-canvas").press(key)


def test_a_stroke_is_a_line_with_round_ends(shown):
    draw(shown, [(0.25, 0.5), (0.75, 0.5)])
    assert colour(shown, 140, 140) == colour(shown, 140, 150) == WHITE, "24 wide"
    assert colour(shown, 140, 155) == BLACK
    assert colour(shown, 62, 140) == colour(shown, 218, 140) == WHITE, (
        "the ends at 70 and 210 are round"
    )


def test_the_keys_move_a_pen_that_draws_only_while_it_is_down(shown):
    """Notices: a circle in the wrong place, small steps that are large ones, and a lifted pen that draws."""
    press(shown, "ArrowDown")
    *place, up = circle(shown)
    assert place == [140, 80]
    press(shown, "Shift+ArrowDown", "Space")
    *place, down = circle(shown)
    assert place == [140, 82] and down > 1.5 * up, "a thicker circle while the pen is down"
    press(shown, *["ArrowLeft"] * 6, "Space", *["ArrowDown"] * 6)
    assert colour(shown, 110, 82) == WHITE
    assert colour(shown, 80, 120) == BLACK
    draw(shown, [(0.9, 0.9)])
    assert circle(shown) is None, "the mouse needs none"


def test_a_held_space_bar_lowers_the_pen_once(shown):
    shown.locator(".digit-pad-canvas").focus()
    for _ in range(6):
        shown.keyboard.down("Space")  # from the second time on, as a key that repeats
    shown.keyboard.up("Space")
    press(shown, *["ArrowLeft"] * 6)
    assert colour(shown, 110, 70) == WHITE
    press(shown, "Backspace")
    assert ink(shown) == 0, "it was a single stroke"


def test_a_network_of_nans_is_said_to_be_one(shown):
    """Jupyter sends `nan` as a word."""
    draw(shown, [(0.5, 0.5)])
    (question,) = questions(shown)
    shown.evaluate(ANSWER, [{name: question[name] for name in ("from", "version")}, ["nan"] * 10])
    sees_verdict(shown, "The network's answers are not numbers")
    assert bars(shown) == [0] * 10


def test_keys_undo_and_clear(shown):
    """Notices: Backspace that clears everything, Delete that removes one stroke, and a dead Ctrl+Z."""
    draw(shown, [(0.2, 0.2), (0.8, 0.2)])
    one = ink(shown)
    draw(shown, [(0.2, 0.8), (0.8, 0.8)])
    two = ink(shown)
    draw(shown, [(0.2, 0.5), (0.8, 0.5)])
    for key, expected in [
        ("Backspace", two),
        ("Control+z", one),
        ("Delete", 0),
        ("Backspace", one),
    ]:
        press(shown, key)
        shown.evaluate("() => document.activeElement.blur()")  # its circle would hide ink
        assert ink(shown) == expected, key


def test_the_keyboards_focus_can_be_seen_after_the_mouse_has_drawn(shown):
    draw(shown, [(0.5, 0.5)])
    assert shown.locator(".digit-pad-pointing").count() == 1
    shown.evaluate("() => document.activeElement.blur()")
    assert shown.locator(".digit-pad-pointing").count() == 0


def test_a_pad_that_is_left_lifts_its_pen(shown):
    press(shown, "Space", "ArrowDown")
    shown.evaluate("() => document.activeElement.blur()")
    before = ink(shown)
    assert circle(shown) is None
    press(shown, *["ArrowDown"] * 5)
    shown.evaluate("() => document.activeElement.blur()")
    assert ink(shown) == before


def test_undo_in_the_middle_of_a_stroke_ends_it(shown):
    """Notices: a mouse that goes on drawing, at the end of the stroke before."""
    draw(shown, [(0.2, 0.2), (0.8, 0.2)])
    before = ink(shown)
    box = shown.locator(".digit-pad-canvas").bounding_box()
    shown.mouse.move(box["x"] + 50, box["y"] + 150)
    shown.mouse.down()
    press(shown, "Backspace")
    shown.mouse.move(box["x"] + 200, box["y"] + 200)
    shown.evaluate("() => document.activeElement.blur()")
    assert ink(shown) == before


POINT = """(pad, events) => {
  pad.setPointerCapture = () => {}; // it accepts only the pointers of this machine
  const box = pad.getBoundingClientRect();
  const toEvent = (type, pointerId, [x, y]) => new PointerEvent(type, { pointerId,
    clientX: box.left + (x * box.width) / 280, clientY: box.top + (y * box.height) / 280 });
  for (const [type, pointerId, ...places] of events) {
    const all = places.map((place) => toEvent(type, pointerId, place));
    pad.dispatchEvent(Object.assign(all.at(-1), { getCoalescedEvents: () => (all.length > 1 ? all : []) }));
  }
}"""


def point(page, *events):
    """Send pointer events: (type, number of the pointer, place), or several places in one event."""
    page.locator(".digit-pad-canvas").evaluate(POINT, [list(event) for event in events])


def test_only_the_finger_that_began_a_stroke_draws(shown):
    """Notices: a palm on the screen that draws, ends the stroke or jumps to and fro with it."""
    point(
        shown,
        ("pointerdown", 1, (40, 40)),
        ("pointerdown", 2, (240, 240)),
        ("pointermove", 2, (140, 240)),
        ("pointerup", 2, (140, 240)),
        ("pointermove", 1, (200, 40)),
        ("pointerup", 1, (200, 40)),
        ("pointermove", 1, (200, 140)),
    )
    assert colour(shown, 40, 40) == colour(shown, 120, 40) == colour(shown, 200, 40) == WHITE
    for place in [(240, 240), (140, 240), (140, 140), (200, 140)]:
        assert colour(shown, *place) == BLACK, place


def test_a_fast_stroke_keeps_its_corners(shown):
    """Notices: the places lost that a browser reports together, in one event."""
    point(shown, ("pointerdown", 1, (40, 40)), ("pointermove", 1, (200, 40), (200, 200), (40, 200)))
    assert colour(shown, 200, 120) == colour(shown, 120, 200) == WHITE


def test_the_right_button_does_not_draw(shown):
    shown.locator(".digit-pad-canvas").click(button="right")
    assert ink(shown) == 0


def test_buttons_can_be_pressed_only_when_they_change_something(shown):
    def enabled():
        next_frame(shown)
        return [button.is_enabled() for button in shown.locator(".digit-pad-tools button").all()]

    assert enabled() == [False, False, True, True]
    draw(shown, [(0.5, 0.5)])
    assert enabled() == [True, True, True, True]
    shown.get_by_role("button", name="Clear").click()
    assert enabled() == [True, False, True, True]
    for _ in range(2):
        shown.get_by_role("button", name="Thicker").click()
    assert enabled() == [True, False, True, False]


def test_the_answer_is_shown_as_bars_and_picture(shown):
    """Notices: bars of the wrong length, and a picture that is inverted, turned, or never cleared."""
    draw(shown, [(0.5, 0.5)])
    (question,) = questions(shown)
    picture = [place % 256 for place in range(28 * 28)]
    shown.evaluate(
        "([content, picture]) => hear(content, [new DataView(Uint8Array.from(picture).buffer)])",
        [question | {"probabilities": probabilities(7, 0.82)}, picture],
    )
    assert seen(shown) == picture
    tracks = shown.locator(".course-track").all()
    parts = [
        track.evaluate("track => 100 * track.firstElementChild.offsetWidth / track.offsetWidth")
        for track in tracks
    ]
    assert parts == pytest.approx([82 if digit == 7 else 2 for digit in range(10)], abs=1.5)
    shown.get_by_role("button", name="Clear").click()
    next_frame(shown)
    assert seen(shown) == [0] * 28 * 28


def test_an_answer_in_time_is_not_followed_by_a_complaint(shown):
    """Notices: "the kernel is busy" two seconds after it has answered. Here, the test plays the clock."""
    shown.evaluate("""() => {
        window.late = new Map();
        let count = 0;
        window.setTimeout = (act) => { late.set(++count, act); return count; };
        window.clearTimeout = (number) => { late.delete(number); };
    }""")
    draw(shown, [(0.5, 0.5)])
    (question,) = questions(shown)
    answer(shown, question, digit=1)
    shown.evaluate("() => late.forEach((act) => act())")
    assert shown.locator(".digit-pad-verdict").inner_text() == "This is a 1."


def test_jupyter_keeps_the_keys_that_are_its_own(shown):
    """The pad uses Ctrl+Z, but saving and running the next cell are Jupyter's."""
    for key, is_ours in [
        ("a", True),
        ("Control+s", False),
        ("Control+z", True),
        ("Shift+Enter", False),
    ]:
        press(shown, key)
        assert shown.locator("[data-lm-suppress-shortcuts]").count() == is_ours, key
