"""What the browser tests share: widgets on an empty page, and what a person does and sees there."""

import base64
import functools
import http.server
import math
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from helpers import HERE
from torch import optim

import utils
from course.widgets.film import TrainingFilm
from model import NetMini

PATIENCE = 120_000  # milliseconds: a busy machine must not fail a test
PICTURES = HERE / "runs" / "browser"  # where the screenshots go
WIDGETS = HERE / "course" / "widgets"
SITE = HERE / "site"  # which `make site` builds
WIDE = {"width": 1300, "height": 1000}
STAGE = Path(__file__).with_name("stage.js").read_text(encoding="utf-8")
LOAD = """text => import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })))"""


@functools.cache
def seven():
    """A real digit, as the networks expect it."""
    images, _ = utils.shipped_digits()
    return utils.Normalize()(images[7, :1])[0]


def open_page(browser):
    """An empty page on which nothing moves by itself: no test reads what is halfway."""
    page = browser.new_page(viewport=WIDE, reduced_motion="reduce")
    page.set_default_timeout(PATIENCE)
    return page


def load(page, text):
    """Load a JavaScript module as anywidget does: from its text, without its neighbours."""
    return page.evaluate_handle(LOAD, text)


def show(page, widget):
    """Show a widget without a kernel, alone; see stage.js for what the page knows then."""
    page.mouse.move(0, 0)  # away from it
    page.set_viewport_size(WIDE)
    parts = [widget._esm, widget._css, widget.state()]
    load(page, STAGE).evaluate("(module, parts) => module.show(...parts)", parts)


def change(page, **values):
    """Change the widget's values, as Python does."""
    page.evaluate("values => stage.change(values)", values)


def saved(page, name):
    """Return a value as Python knows it."""
    return page.evaluate("name => stage.saved[name]", name)


def encoded(data):
    """Bytes or a tensor, as they reach the page."""
    data = data if isinstance(data, bytes) else data.numpy().tobytes()
    return {"base64": base64.b64encode(data).decode()}


def wait_until(page, reached):
    """Wait until a function without arguments returns something true; return that.

    Unlike Playwright's `wait_for_function`, this works under the website's security policy.
    """
    deadline = time.monotonic() + PATIENCE / 1000
    while not (result := reached()):
        assert time.monotonic() < deadline, page.locator("[role=status]").all_inner_texts()
        page.wait_for_timeout(50)
    return result


def texts(page, selector):
    return [text.strip() for text in page.locator(selector).all_text_contents()]


def middle(part):
    box = part.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def fits(page):
    """Whether nothing on the page is wider than the window."""
    return page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


# How much brighter a widget's text is than what is behind it, or darker: from 0 to 255.
CONTRAST = """widget => {
  const brightness = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).reduce(
    (sum, part) => sum + Number(part) / 3, 0);
  const backgroundOf = (part) => getComputedStyle(part).backgroundColor;
  let behind = widget;
  while (/, 0\\)$|transparent/.test(backgroundOf(behind))) behind = behind.parentElement;
  return Math.abs(brightness(getComputedStyle(widget).color) - brightness(backgroundOf(behind)));
}"""


def short_film(image=None):
    """A film of three epochs; after each, the network is sure of the digit that the epoch has."""
    network = NetMini()
    history = utils.History(network, optim.SGD(network.parameters(), lr=0.1), live=False)
    film = TrainingFilm(history, seven() if image is None else image)
    for epoch, _ in enumerate(film.record(range(3))):
        for name, value in zip(history.curves, [0.5, 60, 0.4, 70]):
            history.curves[name].append(value + 10 * epoch)
        network.classes.weight.data.zero_()
        network.classes.bias.data.zero_()
        network.classes.bias.data[epoch] = 10
    return film


# --- The pad -------------------------------------------------------------------------------------


def arc(x, y, radius, start, end, steps=14):
    angles = [math.radians(start + (end - start) * n / steps) for n in range(steps + 1)]
    return [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]


STROKES = {  # digits, as fractions of the pad
    1: [(0.5, 0.2), (0.5, 0.5), (0.5, 0.8)],
    3: [*arc(0.48, 0.33, 0.16, -150, 80), *arc(0.48, 0.66, 0.19, -80, 150)],
    7: [(0.28, 0.24), (0.7, 0.22), (0.62, 0.4), (0.52, 0.6), (0.44, 0.82)],
}


def draw(page, points):
    """Draw one stroke on the pad with the mouse, through points given as fractions of the pad."""
    box = page.locator(".digit-pad-canvas").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place)
    page.mouse.up()


ANSWER = """() => [
  document.querySelector(".digit-pad-verdict").textContent,
  [...document.querySelectorAll(".digit-pad [role=meter]")].map((row) => Number(row.ariaValueNow)),
]"""


def answer_of(page):
    """Return the pad's verdict and its ten percentages, both of the same moment."""
    return page.evaluate(ANSWER)


def settled_answer(page, verdict):
    """Wait until the pad says this; return the ten percentages that it shows then."""

    def shares_if_settled():
        text, shares = answer_of(page)
        return shares if text.startswith(verdict) else None

    return wait_until(page, shares_if_settled)


SEEN = """() => {
  const [canvas] = document.querySelectorAll(".digit-pad-seen canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, 28, 28);
  return [...data].filter((_, n) => n % 4 === 0);
}"""


def seen(page):
    """Return the 28×28 pixels that the pad shows as the network's picture."""
    return page.evaluate(SEEN)


def next_frame(page):
    """Wait until the pad has drawn what happened to it."""
    page.evaluate("() => new Promise(requestAnimationFrame)")


INK = """pad => {
  const { data } = pad.getContext("2d").getImageData(0, 0, pad.width, pad.height);
  return data.filter((value, n) => n % 4 === 2 && value > 128).length;
}"""


def ink(page):
    """Return how many pixels of the pad are white."""
    next_frame(page)
    return page.locator(".digit-pad-canvas").evaluate(INK)


# --- The bench and the lens ----------------------------------------------------------------------


def press(page, *names):
    for name in names:
        page.get_by_role("button", name=name, exact=True).click()


def set_rate(page, text, key="Enter"):
    page.get_by_label("learning rate").fill(text)
    page.get_by_label("learning rate").press(key)


def weight(page, n):
    return page.get_by_role("slider", name=f"w{n}")


def choose_layer(page, name):
    """Choose the first layer whose entry in the list has this name; return its number."""
    option = page.locator("option", has_text=name).first.get_attribute("value")
    page.locator("select").select_option(option)
    return int(option)


# --- A website -----------------------------------------------------------------------------------


def wake_widgets(page):
    """Scroll to each widget of a page, and wait until all are there."""
    for place in page.locator(".live").all():
        place.scroll_into_view_if_needed()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.live')].every((place) => place.dataset.state)"
    )


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def served(folder):
    """A folder at an address of this machine."""
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
