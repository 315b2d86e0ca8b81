"""What the browser tests share: where screenshots go, and what a person does and sees on the pad."""

from helpers import HERE

PICTURES = HERE / "runs" / "browser"  # where the screenshots go
IMPORT = """async source => import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })))"""


def load_module(page, path):
    """Load a JavaScript module as anywidget does: on its own, without its neighbours."""
    from course.widgets.look import Widget
    return page.evaluate_handle(IMPORT, Widget.script(path))


def draw(page, points):
    """Draw one stroke on the pad with the mouse, through points given as fractions of the pad."""
    box = page.locator(".digit-pad-canvas").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=3)
    page.mouse.up()


def bars(page):
    """Return the ten percentages that the pad shows."""
    meters = page.locator(".digit-pad [role=meter]").all()
    return [float(meter.get_attribute("aria-valuenow")) for meter in meters]


def sees_verdict(page, text):
    """Wait until the pad says this."""
    page.locator(".digit-pad-verdict", has_text=text).wait_for()


SEEN = """() => {
  const [canvas] = document.querySelectorAll(".digit-pad-seen canvas");
  return [...canvas.getContext("2d").getImageData(0, 0, 28, 28).data].filter((_, n) => n % 4 === 0);
}"""


def seen(page):
    """Return the 28×28 pixels that the pad shows as the network's picture."""
    return page.evaluate(SEEN)


def ink(page):
    """Return how many pixels of the pad are white."""
    next_frame(page)
    return page.locator(".digit-pad-canvas").evaluate("""pad => {
        const { data } = pad.getContext("2d").getImageData(0, 0, pad.width, pad.height);
        let white = 0;
        for (let place = 0; place < data.length; place += 4) white += data[place + 2] > 128;
        return white;
    }""")


def next_frame(page):
    """Wait until the pad has drawn what happened to it."""
    page.evaluate("() => new Promise(requestAnimationFrame)")
