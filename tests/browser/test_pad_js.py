"""The pad's JavaScript: its pure functions, and the pad with a kernel that the test plays."""

import math
import random

import pytest
import torch
import torch.nn.functional as F
from browsing import answer_of, draw, encoded, fits, load, seen, show

from course.checkpoints import get_trained
from course.widgets.pad import DigitPad, prepare, recognise
from model import Net, NetMini

# --- Pure functions ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pad_js(blank):
    return load(blank, DigitPad._esm)


def test_ink_is_averaged_as_pytorch_does(pad_js):
    """Notices: a colour for the opacity, rows for columns, truncation, sums that overflow."""
    rgba = torch.randint(0, 256, (280, 280, 4), dtype=torch.uint8)
    code = "(pad, text) => [...pad.averageInk(pad.fromBase64(text))]"
    averaged = pad_js.evaluate(code, encoded(rgba)["base64"])
    expected = F.avg_pool2d(rgba[None, :, :, 3].double(), 2) + 0.5  # JavaScript rounds halves up
    assert averaged == expected.floor().flatten().tolist()


def probabilities(digit, best):
    return [best if place == digit else (1 - best) / 9 for place in range(10)]


VERDICTS = {
    "This is a 3.": probabilities(3, 0.95),
    "This is an 8.": probabilities(8, 0.95),
    "This is a 0.": probabilities(0, 0.7),
    "Not sure: a 0?": probabilities(0, 0.69),
    "Not sure: an 8?": probabilities(8, 0.3),
    "Not sure: a 1?": [0.0, *[1 / 9] * 9],  # nine equal probabilities: the first of them
    "": [0.0] * 10,  # an empty pad, or a network whose weights are NaN
}


def test_verdicts(pad_js):
    code = "(pad, all) => all.map(pad.verdictOn)"
    assert pad_js.evaluate(code, list(VERDICTS.values())) == list(VERDICTS)
    assert pad_js.evaluate("pad => pad.verdictOn([NaN])") == ""


PLAY = """(pad, steps) => {
  const freeze = (part) => {
    if (part instanceof Object) Object.values(part).forEach(freeze);
    return Object.freeze(part);
  };
  let history = pad.EMPTY;
  return steps.map(([name, ...rest]) => {
    history = freeze(pad[name](freeze(history), ...rest));
    return history.strokes;
  });
}"""
CHANGES = ["beginStroke", "extendStroke", "extendStroke", "undoLast", "undoLast", "clearAll"]


def stroke(width, *points):
    return {"width": width, "points": [list(point) for point in points]}


def test_undo_brings_back_what_was_there_before_each_change(pad_js):
    """Notices: an Undo of one point, a Clear without Undo, an empty pad that can be cleared.

    Python copies each state instead of sharing points with an earlier one.
    """
    chance = random.Random(0)
    now = []
    before = []
    steps = []
    expected = []
    for name in chance.choices(CHANGES, k=300):
        point = [chance.randrange(280), chance.randrange(280)]
        if name == "extendStroke" and not now:
            continue
        arguments = {"beginStroke": [18, point], "extendStroke": [point]}.get(name, [])
        if name == "beginStroke":
            before.append(now)
            now = [*now, stroke(18, point)]
        elif name == "extendStroke":
            now = [*now[:-1], stroke(18, *now[-1]["points"], point)]
        elif name == "undoLast" and before:
            now = before.pop()
        elif name == "clearAll" and now:
            before.append(now)
            now = []
        steps.append([name, *arguments])
        expected.append(now)
    assert pad_js.evaluate(PLAY, steps) == expected


def test_the_pen_moves_and_stays_on_the_pad(pad_js):
    moves = [
        ([140, 70], "ArrowLeft", False, [130, 70]),
        ([140, 70], "ArrowRight", True, [142, 70]),
        ([140, 70], "ArrowUp", True, [140, 68]),
        ([140, 70], "ArrowDown", False, [140, 80]),
        ([4, 70], "ArrowLeft", False, [0, 70]),
        ([279, 70], "ArrowRight", True, [280, 70]),
    ]
    found = pad_js.evaluate("(pad, all) => all.map((move) => pad.movePen(...move))", moves)
    assert found == [expected for *_, expected in moves]


def test_only_a_small_drawing_is_thinned(pad_js):
    """A mouse of 1000 Hz sends 130,000 points in two minutes; a function takes fewer arguments."""
    large = [stroke(24, (20, 20), (20, 220)), stroke(12, (30, 30))]
    small = [stroke(36, (20, 20), (20, 100)), stroke(6, (30, 30))]
    dot = [stroke(24, (20, 20), (22, 23))]
    code = """(pad, all) => {
      const points = Array.from({ length: 130000 }, (_, n) => [n % 20, n % 41]);
      const long = [{ width: 36, points }];
      return [...all, long].map((strokes) => pad.thinned(strokes).map(({ width }) => width));
    }"""
    assert pad_js.evaluate(code, [large, small, dot]) == [[24, 12], [12, 6], [24], [6]]


# --- The pad, with the test in the place of the kernel -------------------------------------------

PAD = ".digit-pad-canvas"
ANSWER = """([question, probabilities, picture]) => {
  const bytes = new DataView(Uint8Array.from(picture).buffer);
  stage.tell("msg:custom", { ...question, probabilities }, [bytes]);
}"""
NOTHING = [0] * 10


@pytest.fixture(scope="module")
def timeless(blank):
    """A page on which time passes only when a test says so."""
    blank.clock.install(time=0)
    blank.clock.pause_at(1000)
    return blank


@pytest.fixture
def shown(timeless):
    show(timeless, DigitPad(NetMini()))
    return timeless


def next_frame(page):
    """Let the pad draw what happened to it."""
    page.clock.run_for(20)


def questions(page):
    """Return what the pad has asked the kernel so far."""
    next_frame(page)
    return page.evaluate("() => stage.sent")


def answer(page, question, shares, picture=(255,) * 784):
    page.evaluate(ANSWER, [question, shares, list(picture)])


def verdict(page):
    return answer_of(page)[0]


def press(page, *keys):
    for key in keys:
        page.locator(PAD).press(key)


def picture(page):
    """The pad as it is shown, without the focus: the keyboard's circle would hide ink."""
    page.evaluate("() => document.activeElement.blur()")
    next_frame(page)
    return page.locator(PAD).evaluate("pad => pad.toDataURL()")


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def drawn(question):
    return torch.tensor(question["ink"], dtype=torch.uint8).view(question["size"], question["size"])


@pytest.mark.parametrize("width", [1300, 200])
def test_a_dot_reaches_the_kernel(shown, width):
    """Notices: ink in the wrong place or of the wrong size, on a pad of any size."""
    shown.set_viewport_size({"width": width, "height": 800})
    draw(shown, [(0.25, 0.5)])
    (question,) = questions(shown)
    shares = drawn(question) / 255
    assert shares.sum() == pytest.approx(math.pi * 6**2, rel=0.03), "24 of 280 wide: 12 of 140"
    places = torch.arange(140) + 0.5
    assert (shares.sum(dim=0) * places).sum() / shares.sum() == pytest.approx(35, abs=1)
    assert (shares.sum(dim=1) * places).sum() / shares.sum() == pytest.approx(70, abs=1)


def test_one_question_at_a_time_and_the_next_about_the_latest_drawing(shown):
    """Notices: a busy kernel that is asked at every movement, a last change that is not asked."""
    draw(shown, [(0.2, 0.2), (0.8, 0.2)])
    (first,) = questions(shown)
    draw(shown, [(0.2, 0.8), (0.8, 0.8)])
    assert len(questions(shown)) == 1, "no second question before the answer to the first"
    answer(shown, first, probabilities(7, 0.9))
    assert verdict(shown) == "This is a 7."
    first, second = questions(shown)
    assert sum(second["ink"]) > sum(first["ink"]) and second["version"] > first["version"]
    answer(shown, second, probabilities(2, 0.5))
    assert verdict(shown) == "Not sure: a 2?"
    assert len(questions(shown)) == 2, "the drawing has not changed since"


def test_answers_to_other_questions_are_ignored(shown):
    """Notices: an answer that arrives after Clear, or one meant for another view of the widget."""
    draw(shown, [(0.5, 0.5)])
    (question,) = questions(shown)
    answer(shown, question | {"from": -1}, probabilities(4, 0.9))
    assert answer_of(shown) == ["Draw a large digit.", NOTHING]
    button(shown, "Clear").click()
    next_frame(shown)
    answer(shown, question, probabilities(4, 0.9))
    assert answer_of(shown) == ["Draw a large digit.", NOTHING]


def test_the_answer_is_shown_as_bars_and_picture(shown):
    """Notices: bars of the wrong length, and a picture that is turned, or never cleared."""
    draw(shown, [(0.5, 0.5)])
    (question,) = questions(shown)
    picture = [place % 256 for place in range(28 * 28)]
    answer(shown, question, probabilities(7, 0.82), picture)
    assert seen(shown) == picture
    width = "all => all.map((track) => track.firstElementChild.offsetWidth / track.offsetWidth)"
    shares = shown.locator(".course-track").evaluate_all(width)
    assert shares == pytest.approx(probabilities(7, 0.82), abs=0.015)
    assert shown.locator(".course-best").inner_text().split() == ["7", "82", "%"]
    button(shown, "Clear").click()
    next_frame(shown)
    assert seen(shown) == [0] * 28 * 28 and answer_of(shown)[1] == NOTHING


def test_a_busy_and_a_restarted_kernel_are_reported(shown):
    """Notices: a pad that goes silent, and one that complains after the answer."""
    draw(shown, [(0.5, 0.5)])
    (question,) = questions(shown)
    shown.clock.run_for(2000)
    busy = "No answer yet: the kernel is busy. (If it was restarted, run this cell again.)"
    assert verdict(shown) == busy
    answer(shown, question, probabilities(1, 0.9))
    shown.clock.run_for(5000)
    assert verdict(shown) == "This is a 1."
    shown.evaluate("() => { stage.isDead = true; }")
    draw(shown, [(0.2, 0.2)])
    next_frame(shown)
    assert answer_of(shown) == ["The kernel was restarted: run this cell again.", NOTHING]


def test_a_network_of_nans_is_said_to_be_one(shown):
    """Jupyter sends `nan` as a word."""
    draw(shown, [(0.5, 0.5)])
    answer(shown, questions(shown)[0], ["nan"] * 10)
    text, shares = answer_of(shown)
    assert text.startswith("The network's answers are not numbers") and shares == NOTHING


SMALL = {
    3: [(0, 0.1), (0.5, 0), (0.9, 0.2), (0.4, 0.45), (1, 0.75), (0.5, 1), (0, 0.9)],
    7: [(0, 0), (1, 0), (0.4, 1)],
}


@pytest.mark.parametrize("digit", SMALL)
def test_a_small_drawing_with_the_thickest_pen_is_read(shown, digit):
    """Notices holes that a thick pen fills."""
    button(shown, "Thicker").dblclick()
    draw(shown, [(0.4 + 0.16 * x, 0.4 + 0.22 * y) for x, y in SMALL[digit]])
    answer(shown, questions(shown)[0], probabilities(0, 0.9))  # that was about its first dot
    guess = recognise(get_trained(Net).eval(), prepare(drawn(questions(shown)[-1])))
    assert guess.argmax() == digit and guess[digit] > 0.7


def test_in_a_narrow_window_the_bars_stand_beside_the_pad(page):
    show(page, DigitPad(NetMini()))
    page.set_viewport_size({"width": 500, "height": 700})
    pad = page.locator(PAD).bounding_box()
    bars = page.locator(".digit-pad-answer").bounding_box()
    assert bars["x"] > pad["x"] + pad["width"] and bars["y"] < pad["y"] + 20
    assert fits(page)


def test_buttons_can_be_pressed_only_when_they_change_something(shown):
    def enabled():
        next_frame(shown)
        return [button.is_enabled() for button in shown.locator(".digit-pad-tools button").all()]

    undo = shown.locator(".digit-pad-tools button").first
    assert enabled() == [False, False, True, True]
    draw(shown, [(0.5, 0.5)])
    assert enabled() == [True, True, True, True] and undo.inner_text() == "Undo"
    button(shown, "Clear").click()
    assert enabled() == [True, False, True, True] and undo.inner_text() == "Undo clear"
    button(shown, "Thicker").dblclick()
    assert enabled() == [True, False, True, False]
    undo.click()
    assert enabled() == [True, True, True, False] and undo.inner_text() == "Undo"
    undo.click()
    assert enabled() == [False, False, True, False], "there was one dot"


def test_fast_clicks_on_a_width_do_not_go_too_far(shown):
    """Notices: a pen without width. Ten clicks in one go come before the button is disabled."""
    clicks = "button => { for (let click = 0; click < 10; click++) button.click(); }"
    button(shown, "Thinner").evaluate(clicks)
    draw(shown, [(0.5, 0.5)])
    (question,) = questions(shown)
    assert sum(question["ink"]) / 255 == pytest.approx(math.pi * 3**2, rel=0.05), "12 of 280 wide"
    assert button(shown, "Thinner").is_disabled()


# --- The pad's own drawing and its keys ----------------------------------------------------------

WHITE, BLACK = [255] * 3, [0] * 3
CIRCLE = """pad => {
  const { data } = pad.getContext("2d").getImageData(0, 0, pad.width, pad.height);
  const isOrange = (n) => data[4 * n] > 200 && data[4 * n + 2] < 50;
  const places = [...Array(data.length / 4).keys()].filter(isOrange);
  if (!places.length) return null;
  const middle = (all) => (Math.min(...all) + Math.max(...all) + 1) / 4;
  const columns = places.map((n) => n % pad.width);
  const rows = places.map((n) => Math.floor(n / pad.width));
  return [middle(columns), middle(rows), places.length];
}"""


def colour(page, x, y):
    """Return the colour of the pad at a place, in the pad's units: from 0 to 280."""
    next_frame(page)
    code = "(pad, [x, y]) => [...pad.getContext('2d').getImageData(2 * x, 2 * y, 1, 1).data]"
    return page.locator(PAD).evaluate(code, [x, y])[:3]


def circle(page):
    """Return the middle of the orange circle and its number of pixels; None without a circle."""
    next_frame(page)
    return page.locator(PAD).evaluate(CIRCLE)


def test_a_stroke_is_a_line_with_round_ends(shown):
    draw(shown, [(0.25, 0.5), (0.75, 0.5)])
    assert colour(shown, 140, 150) == WHITE and colour(shown, 140, 155) == BLACK, "24 wide"
    assert colour(shown, 62, 140) == colour(shown, 218, 140) == WHITE, "its ends are at 70 and 210"


def test_the_keys_move_a_pen_that_draws_only_while_it_is_down(shown):
    """Notices: a circle in the wrong place, small steps that are large, a lifted pen that draws."""
    press(shown, "ArrowDown")
    *place, up = circle(shown)
    assert place == [140, 80]
    press(shown, "Shift+ArrowDown", "Space")
    *place, down = circle(shown)
    assert place == [140, 82] and down > 1.5 * up, "a thicker circle while the pen is down"
    press(shown, *["ArrowLeft"] * 6, "Space", *["ArrowDown"] * 6)
    assert colour(shown, 110, 82) == WHITE and colour(shown, 80, 120) == BLACK
    draw(shown, [(0.9, 0.9)])
    assert circle(shown) is None, "the mouse needs none"


def test_a_held_space_bar_lowers_the_pen_once(shown):
    empty = picture(shown)
    shown.locator(PAD).focus()
    for _ in range(6):
        shown.keyboard.down("Space")  # from the second time on, as a key that repeats
    shown.keyboard.up("Space")
    press(shown, *["ArrowLeft"] * 6)
    assert colour(shown, 110, 70) == WHITE
    press(shown, "Backspace")
    assert picture(shown) == empty, "it was a single stroke"


def test_keys_undo_and_clear(shown):
    """Notices: Backspace that clears all, Delete that removes one stroke, a dead Ctrl+Z."""
    pictures = [picture(shown)]
    for height in (0.2, 0.8, 0.5):
        draw(shown, [(0.2, height), (0.8, height)])
        pictures.append(picture(shown))
    for key, strokes in [("Backspace", 2), ("Control+z", 1), ("Delete", 0), ("Backspace", 1)]:
        press(shown, key)
        assert picture(shown) == pictures[strokes], key


def test_the_keyboards_focus_can_be_seen_after_the_mouse_has_drawn(shown):
    outline = "pad => getComputedStyle(pad).outlineStyle"
    draw(shown, [(0.5, 0.5)])
    assert shown.locator(PAD).evaluate(outline) == "none"
    shown.keyboard.press("Tab")
    shown.keyboard.press("Shift+Tab")
    assert shown.locator(PAD).evaluate(outline) == "solid"


def test_a_pad_that_is_left_lifts_its_pen(shown):
    press(shown, "Space", "ArrowDown")
    before = picture(shown)
    assert circle(shown) is None
    press(shown, *["ArrowDown"] * 5)
    assert picture(shown) == before


def test_undo_in_the_middle_of_a_stroke_ends_it(shown):
    """Notices: a mouse that goes on drawing, at the end of the stroke before."""
    draw(shown, [(0.2, 0.2), (0.8, 0.2)])
    before = picture(shown)
    box = shown.locator(PAD).bounding_box()
    shown.mouse.move(box["x"] + 50, box["y"] + 150)
    shown.mouse.down()
    press(shown, "Backspace")
    shown.mouse.move(box["x"] + 200, box["y"] + 200)
    shown.mouse.up()
    assert picture(shown) == before


POINT = """(pad, events) => {
  pad.setPointerCapture = () => {}; // it accepts only the pointers of this machine
  const box = pad.getBoundingClientRect();
  const toEvent = (type, pointerId, [x, y]) => new PointerEvent(type, { pointerId,
    clientX: box.left + (x * box.width) / 280, clientY: box.top + (y * box.height) / 280 });
  for (const [type, pointerId, ...places] of events) {
    const all = places.map((place) => toEvent(type, pointerId, place));
    all.at(-1).getCoalescedEvents = () => (all.length > 1 ? all : []);
    pad.dispatchEvent(all.at(-1));
  }
}"""


def test_only_the_finger_that_began_a_stroke_draws(shown):
    """Notices: a palm on the screen that draws, ends the stroke or jumps to and fro with it."""
    events = [
        ("pointerdown", 1, (40, 40)),
        ("pointerdown", 2, (240, 240)),
        ("pointermove", 2, (140, 240)),
        ("pointerup", 2, (140, 240)),
        ("pointermove", 1, (200, 40)),
        ("pointerup", 1, (200, 40)),
        ("pointermove", 1, (200, 140)),
    ]
    shown.locator(PAD).evaluate(POINT, events)
    for place in [(40, 40), (120, 40), (200, 40)]:
        assert colour(shown, *place) == WHITE, place
    for place in [(240, 240), (140, 240), (140, 140), (200, 140)]:
        assert colour(shown, *place) == BLACK, place


def test_a_fast_stroke_keeps_its_corners(shown):
    """Notices: the places lost that a browser reports together, in one event."""
    moves = ("pointermove", 1, (200, 40), (200, 200), (40, 200))
    shown.locator(PAD).evaluate(POINT, [("pointerdown", 1, (40, 40)), moves])
    assert colour(shown, 200, 120) == colour(shown, 120, 200) == WHITE


def test_the_right_button_does_not_draw(shown):
    empty = picture(shown)
    shown.locator(PAD).click(button="right")
    assert picture(shown) == empty
