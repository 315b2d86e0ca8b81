"""The course's website, as `make site` built it, is opened, read and used; no other host is asked."""

import base64
import functools
import html.parser
import http.server
import json
import re
import threading
import time
import urllib.parse

import pytest
import torch
from browsing import PICTURES, bars, draw, seen, sees_verdict
from helpers import HERE
from torch import nn

import utils
from course.checkpoints import get_trained
from course.widgets.pad import prepare, recognise, variations
from model import Net, NetFC, NetGAP, NetMicro, NetMini
from website.networks import export

SITE = HERE / "site"
PAGES = ["index.html", "S5.html", "S6.html", "glossary.html", "benchmarks.html"]
THREE = [
    (0.3, 0.25),
    (0.5, 0.15),
    (0.65, 0.25),
    (0.6, 0.4),
    (0.45, 0.47),
    (0.65, 0.55),
    (0.7, 0.7),
    (0.5, 0.82),
    (0.3, 0.75),
]
SEVEN = [(0.25, 0.2), (0.75, 0.2), (0.45, 0.85)]
each_page = pytest.mark.parametrize("name", PAGES)

if not (SITE / "index.html").is_file():
    pytest.skip("there is no website yet: run `make site` first", allow_module_level=True)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    handler = functools.partial(Quiet, directory=SITE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def visit(browser, address):
    """Opens a page of the website. At the end nothing may have gone wrong, and no other host been asked."""
    contexts, complaints = [], []

    def open_page(
        name, width=1400, theme="light", expected=(), without=None, on_load=None, **options
    ):
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=theme,
            reduced_motion="reduce",
            **options,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        if without:
            page.route(
                without, lambda route: route.fulfill(body="", content_type="text/javascript")
            )

        def complain(text):
            if not any(part in text for part in expected):
                complaints.append(text)

        if on_load:
            page.on("requestfinished", on_load)
        page.on(
            "console", lambda message: complain(message.text) if message.type == "error" else None
        )
        page.on("pageerror", lambda error: complain(str(error)))
        page.on(
            "request", lambda asked: None if is_own(asked.url, address) else complain(asked.url)
        )
        page.goto(address + name, wait_until="networkidle")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def is_own(url, address):
    return url.startswith((address, "data:", f"blob:{address}"))


# --- The pages, without a browser ---


class Reader(html.parser.HTMLParser):
    """Collects a page's anchors, the addresses it leads to or loads, and its pictures."""

    def __init__(self):
        super().__init__()
        self.anchors, self.addresses, self.pictures = set(), [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        self.addresses += [values[name] for name in ("href", "src") if values.get(name)]
        if tag == "img":
            self.pictures.append(values)


@functools.cache
def read_page(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


@pytest.mark.parametrize("name", [*PAGES, "search.html"])
def test_links_lead_somewhere(name):
    assert read_page(SITE / name).addresses
    for link in read_page(SITE / name).addresses:
        url = urllib.parse.urlsplit(link)
        if url.scheme or url.netloc:
            continue
        target = SITE / (urllib.parse.unquote(url.path) or name)
        assert target.exists(), link
        if url.fragment and target.suffix == ".html":
            assert urllib.parse.unquote(url.fragment) in read_page(target).anchors, link


@pytest.mark.parametrize("name", PAGES)
def test_pictures_say_what_they_show_and_come_one_after_the_other(name):
    for picture in read_page(SITE / name).pictures:
        assert len(picture["alt"].split()) >= 3, picture
        if picture["src"].endswith(".png"):
            assert picture["loading"] == "lazy" and int(picture["width"]) > 0, picture


def test_style_sheets_load_only_what_is_there():
    for path in SITE.rglob("*.css"):
        for link in re.findall(r"url\(['\"]?([^'\")]+)", path.read_text(encoding="utf-8")):
            if not link.startswith(("data:", "#")):
                assert (path.parent / urllib.parse.urlsplit(link).path).exists(), (
                    f"{link} in {path.name}"
                )


@pytest.mark.parametrize("lesson", ["S5", "S6"])
def test_a_lesson_can_be_opened_elsewhere_and_downloaded(lesson):
    links = [urllib.parse.unquote(link) for link in read_page(SITE / f"{lesson}.html").addresses]
    for place in [
        r"https://colab\.research\.google\.com/github/\S+/S?\.ipynb",
        r"https://kaggle\.com/kernels/welcome\?src=https://github\.com/\S+/S?\.ipynb",
        r"https://codespaces\.new/\S+",
        r"https://lightning\.ai/new\?repo_url=https://github\.com/\S+/S?\.ipynb",
    ]:
        assert any(re.fullmatch(place.replace("S?", lesson), link) for link in links), place
    assert (SITE / f"_static/lessons/{lesson}.ipynb").read_bytes() == (
        HERE / f"{lesson}.ipynb"
    ).read_bytes()


# --- The pages in a browser ---


def scroll_through(page):
    """Go down to the end of the page, so that all lazy pictures and widgets come near the window."""
    page.evaluate(
        """async () => {
          for (let y = 0; y < document.body.scrollHeight; y += 800) {
            window.scrollTo(0, y);
            await new Promise(resolve => setTimeout(resolve, 30));
          }
        }"""
    )
    page.wait_for_load_state("networkidle")


@each_page
@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), (800, "light"), (1400, "dark")])
def test_pages_look_right(visit, name, width, theme):
    page = visit(name, width, theme)
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"site-{name[:-5]}-{width}.png")
    scroll_through(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page is too wide"
    shown = page.evaluate(
        "[...document.images].filter(image => image.complete && !image.naturalWidth).length"
    )
    assert shown == 0, "a picture is missing"
    squashed = """[...document.images].filter(image => image.naturalWidth && image.width &&
      Math.abs(image.naturalWidth / image.naturalHeight / (image.width / image.height) - 1) > 0.03).length"""
    assert page.evaluate(squashed) == 0, "a picture has lost its proportions"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", background)[:3]))
    assert (brightness < 150) == (theme == "dark")


@each_page
def test_pages_fit_the_narrowest_phone(visit, name):
    """320 pixels are also what remains of a usual window that is enlarged four times."""
    page = visit(name, 320)
    scroll_through(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


@each_page
def test_pages_are_small(visit, name):
    loaded = []
    visit(name, on_load=lambda request: loaded.append(request.sizes()["responseBodySize"]))
    assert 600_000 < sum(loaded) < 1_500_000


def test_the_landing_page_can_be_read_without_javascript(visit):
    page = visit("index.html", java_script_enabled=False)
    assert page.locator("article h1").inner_text().startswith("Handwritten digits with PyTorch")
    assert page.locator(".live-pad img").is_visible()
    assert page.get_by_role("link", name="Start with lesson 5").is_visible()


def test_formulas_are_typeset(visit):
    page = visit("S6.html")
    formulas = page.locator(".katex-html")
    source = (HERE / "S6.ipynb").read_text(encoding="utf-8")
    assert formulas.count() >= len(re.findall(r"\$\$.+?\$\$", source)) >= 10
    assert page.locator(".katex-error").count() == 0
    assert page.evaluate("document.fonts.ready.then(() => document.fonts.check('16px KaTeX_Math'))")
    text = page.locator("article").inner_text()
    assert "$$" not in text and "dfrac" not in text


@pytest.mark.parametrize("width", [390, 1400])
def test_formulas_begin_inside_the_page_and_scroll_to_their_end(visit, width):
    page = visit("S6.html", width)
    hidden = page.evaluate(
        """[...document.querySelectorAll(".formula .katex-display")].filter(formula => {
          const [inner, outer] = [formula.querySelector(".katex-html"), formula.closest("div.formula")];
          const parts = [...inner.querySelectorAll("*")].map(part => part.getBoundingClientRect());
          const left = Math.min(...parts.map(part => part.left));
          const right = Math.max(...parts.map(part => part.right));
          const box = outer.getBoundingClientRect();
          return left < box.left - 1 || right > box.left + outer.scrollWidth + 1;
        }).length"""
    )
    assert hidden == 0


def test_search_finds_a_term(visit):
    page = visit("search.html?q=receptive+field")
    page.locator("#search-results li").first.wait_for()
    found = page.locator("#search-results li a").all_inner_texts()
    assert any("Lesson 5" in title for title in found)


def test_the_theme_can_be_switched(visit):
    page = visit("index.html", theme="light")
    colours = {}
    for choice in ["Light", "Dark"]:
        page.locator(".theme-switch-button:visible").click()
        page.locator(".theme-change-button:visible", has_text=choice).click()
        colours[choice] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colours["Light"] == "rgb(255, 255, 255)" != colours["Dark"]
    ink = "getComputedStyle(document.querySelector('.course-widget')).color"
    assert page.evaluate(ink) == page.evaluate("getComputedStyle(document.body).color")


def test_dark_pages_are_printed_in_the_light_theme(visit):
    page = visit("index.html", theme="dark")
    awake(page, "pad")
    page.evaluate(
        """window.addEventListener("beforeprint", () => {
          window.printed = getComputedStyle(document.body).backgroundColor;
        })"""
    )
    page.pdf()
    assert page.evaluate("window.printed") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.emulate_media(media="print")
    assert page.locator(".live-pad > .live-still").is_visible()
    assert not page.locator(".digit-pad").is_visible()


def test_widgets_that_sleep_are_printed_too(visit):
    page = visit("S5.html")
    page.emulate_media(media="print")
    assert (
        page.locator(".live-lens > img").is_visible()
        and page.locator(".live-film > img").is_visible()
    )
    assert not page.get_by_role("button", name="Wake").is_visible()


# --- The widgets ---

CONTRAST = """place => {
  const brightness = colour =>
    colour.match(/[\\d.]+/g).slice(0, 3).reduce((sum, part) => sum + Number(part) / 3, 0);
  let behind = place;
  while (/, 0\\)$|transparent/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
  const text = getComputedStyle(place.querySelector(".course-widget")).color;
  return Math.abs(brightness(text) - brightness(getComputedStyle(behind).backgroundColor));
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    ("name", "widgets"), [("S5.html", ["film"]), ("S6.html", ["bench", "pad"])]
)
def test_widgets_can_be_read_in_both_themes(visit, name, widgets, theme):
    page = visit(name, theme=theme)
    for widget in widgets:
        assert awake(page, widget).evaluate(CONTRAST) > 130, widget


@pytest.mark.parametrize("width", [390, 800])
def test_widgets_stay_inside_their_frame(visit, width):
    for name, widgets in {"S5.html": ["film"], "S6.html": ["bench", "pad"]}.items():
        page = visit(name, width)
        for widget in widgets:
            outside = awake(page, widget).evaluate(
                """place => [...place.querySelectorAll("*")].filter(part =>
                  !part.parentElement.closest(".bench-scroll") &&
                  part.getBoundingClientRect().right > place.getBoundingClientRect().right + 1).length"""
            )
            assert outside == 0, widget


def awake(page, widget):
    place = page.locator(f".live-{widget}")
    place.scroll_into_view_if_needed()
    page.locator(f".live-{widget}[data-state=awake]").wait_for()
    return place


@pytest.mark.parametrize(("points", "verdict"), [(THREE, "This is a 3."), (SEVEN, "This is a 7.")])
def test_the_pad_reads_a_digit(visit, points, verdict):
    page = visit("index.html")
    height = height_of(awake(page, "pad"))
    draw(page, points)
    sees_verdict(page, verdict)
    assert abs(sum(bars(page)) - 100) < 1
    assert height_of(page.locator(".live-pad")) == height, "the page must not move during a stroke"
    page.screenshot(path=PICTURES / f"site-pad-{verdict[-2]}.png")
    page.get_by_role("button", name="Clear").click()
    sees_verdict(page, "Draw a large digit.")


def test_each_network_answers_as_in_jupyter(visit):
    page = visit("index.html")
    place = awake(page, "pad")
    nine_or_five = [
        (0.6, 0.25),
        (0.35, 0.2),
        (0.3, 0.45),
        (0.6, 0.5),
        (0.65, 0.25),
        (0.6, 0.8),
        (0.4, 0.75),
    ]
    draw(page, nine_or_five)
    highest = []
    for Network in [NetGAP, NetFC, NetMini, Net]:
        place.locator("select").select_option(Network.__name__)
        page.wait_for_function("document.querySelector('.live-choice span').textContent === ''")
        deadline = time.monotonic() + 10
        while True:
            picture = torch.tensor(seen(page), dtype=torch.uint8).view(28, 28)
            expected = 100 * recognise(get_trained(Network).eval(), picture)
            if (expected - torch.tensor(bars(page))).abs().max() <= 0.06:
                break
            assert time.monotonic() < deadline, Network.__name__
        highest.append(round(expected.max().item(), 1))
    assert len(set(highest)) == 4, "the drawing is too clear to tell the networks apart"


def test_a_network_that_cannot_be_loaded(visit):
    page = visit("index.html", expected=["Failed to load resource", "503"])
    place = awake(page, "pad")
    before = place.locator("select").input_value()
    page.route("**/networks/Net.*", lambda route: route.fulfill(status=503))
    place.locator("select").select_option("Net")
    place.get_by_text("Net could not be loaded.").wait_for()
    assert place.locator("select").input_value() == before != "Net", (
        "the one that goes on answering"
    )
    draw(page, SEVEN)
    sees_verdict(page, "This is a 7.")
    page.unroute("**/networks/Net.*")
    place.locator("select").select_option("NetFC")
    place.locator("select").select_option("Net")
    page.wait_for_function("document.querySelector('.live-choice span').textContent === ''")


def test_a_widget_that_is_being_loaded_says_so(browser, address):
    """Notices: a button that looks as if nothing happened, or that stays and does nothing any more."""
    waiting = []
    with browser.new_context() as context:
        page = context.new_page()
        page.route("**/networks/Net.bin", lambda route: waiting.append(route))
        page.goto(address + "S5.html")
        place = page.locator(".live-lens")
        place.get_by_role("button", name="Wake").click()
        place.get_by_role("button", name="Loading …", disabled=True).wait_for()
        while not waiting:
            page.wait_for_timeout(20)
        waiting[0].abort()
        place.get_by_role("alert").get_by_text("This could not be loaded.").wait_for()
        assert place.get_by_role("button").count() == 0 and place.locator("img").is_visible()


@pytest.mark.parametrize("missing", ["networks/*", "worker.js", "engine.js"])
def test_a_widget_that_cannot_be_loaded_keeps_its_picture(browser, address, missing):
    with browser.new_context() as context:
        page = context.new_page()
        page.route(f"**/{missing}", lambda route: route.abort())
        page.goto(address)
        page.get_by_text("This could not be loaded.").wait_for()
        assert page.locator(".live-pad img").is_visible()


def test_the_bench_steps_to_the_numbers_of_the_lesson(visit):
    page = visit("S6.html")
    bench = awake(page, "bench")
    error = bench.locator(".bench-curve text")
    assert error.text_content() == "step 0: E = 0.242520"
    for rate, expected in [
        ("0.1", "0.1335"),
        ("2", "0.0052"),
    ]:  # what the lesson says below the bench
        bench.get_by_label("learning rate").fill(rate)
        bench.get_by_label("learning rate").press("Tab")
        bench.get_by_role("button", name="100 steps").click()
        assert f"{float(error.text_content().removeprefix('step 100: E = ')):.4f}" == expected
        assert expected in page.locator("article").inner_text()
        bench.get_by_role("button", name="Rewind").click()


def test_the_keyboard_stays_with_a_widget_that_it_has_woken(visit):
    page = visit("S5.html")
    page.locator(".live-lens").get_by_role("button").press("Enter")
    awake(page, "lens")
    assert page.evaluate("() => document.activeElement.closest('.lens') !== null")


def test_the_lens_explains_a_cell(visit):
    page = visit("S5.html")
    place = page.locator(".live-lens")
    place.get_by_role("button").dblclick()
    awake(page, "lens")
    page.wait_for_timeout(1000)
    assert place.locator(".lens").count() == 1, "the second click of a double click wakes nothing"
    assert (
        "= " in place.locator(".lens-sum").inner_text()
        and "filter" in place.locator(".lens-sum").inner_text()
    )
    for layer in range(1, place.locator("select option").count()):
        place.locator("select").select_option(str(layer))
        assert "cannot explain" not in place.locator(".lens-sum").inner_text()
    page.screenshot(path=PICTURES / "site-lens.png")
    answer = int(torch.tensor([float(text) for text in final_scores(place)]).argmax())
    assert answer == 7, "the first test digit"
    assert place.locator(".lens-map").bounding_box()["height"] >= 24, (
        "a row of numbers can be pointed at"
    )
    hidden = """place => [...place.querySelectorAll("input")].filter((input) => {
      input.value = input.max;
      return input.offsetParent && input.scrollWidth > input.clientWidth;
    }).length"""
    conv4 = place.locator("select option", has_text="conv4").get_attribute("value")
    place.locator("select").select_option(conv4)
    assert place.evaluate(hidden) == 0, "the number of the last map is cut off"
    place.locator("select").select_option("0")
    place.locator(".lens-map").hover(position={"x": 2, "y": 2})
    black = f"{-utils.MEAN / utils.STD:.3f}".replace("-", "−")
    assert f"normalised: {black}." in place.locator(".lens-sum").inner_text(), (
        "a corner of the digit"
    )


def final_scores(place):
    """The log-probabilities that the lens shows for the ten digits."""
    scores = []
    place.locator(".lens-map").focus()
    for _ in range(9):
        place.locator(".lens-map").press("ArrowLeft")
    for _ in range(10):
        scores.append(place.locator(".lens-sum b").first.inner_text().replace("−", "-"))
        place.locator(".lens-map").press("ArrowRight")
    return scores


def test_the_film_goes_from_the_first_epoch_to_the_last(visit):
    page = visit("S5.html")
    film = awake(page, "film")
    slider = film.locator("input")
    assert "before training" in film.locator(".film-slider span").inner_text()
    slider.focus()
    slider.press("End")
    assert "after epoch 20 of 20" in film.locator(".film-slider span").inner_text()
    best = film.locator(".course-best")
    assert (
        best.get_attribute("aria-label") == "digit 7"
        and float(best.get_attribute("aria-valuenow")) > 90
    )
    page.screenshot(path=PICTURES / "site-film.png")


@pytest.mark.parametrize("width", [390, 800, 1400])
@pytest.mark.parametrize(
    ("name", "widgets"),
    [("index.html", ["pad"]), ("S5.html", ["film", "lens"]), ("S6.html", ["bench", "pad"])],
)
def test_waking_moves_nothing_else(visit, name, widgets, width):
    page = visit(name, width, without="**/host.js*")
    heights = {widget: height_of(page.locator(f".live-{widget}")) for widget in widgets}
    page = visit(name, width)
    for widget in widgets:
        place = page.locator(f".live-{widget}")
        if place.get_by_role("button", name="Wake").count():
            place.get_by_role("button", name="Wake").click()
        awake(page, widget)
        page.wait_for_timeout(100)
        assert abs(height_of(place) - heights[widget]) <= 1, widget


def height_of(place):
    return place.evaluate("place => place.getBoundingClientRect().height")


# --- The engine ---


@pytest.fixture
def engine(visit):
    """The website's engine in a page, and a function that calls it with numbers."""
    page = visit("search.html")
    module = page.evaluate_handle("import('./_static/engine.js')")

    def call(code, *arguments):
        return page.evaluate(f"([e, ...all]) => ({code})(e, ...all)", [module, *arguments])

    return call


def digits(count):
    images, _ = utils.shipped_digits()
    return images[:, : count // 10].flatten(0, 1)


RUN = """async (e, name, folder, pictures) => {
  const network = await e.load(name, new URL(folder, location.href));
  return pictures.map(picture => Array.from(e.run(network, picture)));
}"""


@pytest.mark.parametrize("Network", [Net, NetGAP, NetFC, NetMini, NetMicro])
def test_networks_answer_as_in_pytorch(engine, Network):
    pictures = utils.Normalize()(digits(200))
    with torch.no_grad():
        expected = get_trained(Network).eval()(pictures)
    answers = torch.tensor(
        engine(RUN, Network.__name__, "_static/networks/", pictures.flatten(1).tolist())
    )
    torch.testing.assert_close(answers.exp(), expected.exp(), atol=1e-5, rtol=0)
    torch.testing.assert_close(answers, expected, atol=1e-5, rtol=1e-5)


def test_a_network_that_ends_in_scores_is_not_exported(tmp_path):
    with pytest.raises(ValueError, match="it must end in log-softmax"):
        export(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(1352, 10)), tmp_path)
    assert not list(tmp_path.iterdir())


class Strided(nn.Sequential):
    """A network unlike those of the course."""

    def __init__(self):
        layers = [
            nn.Conv2d(1, 4, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(4, affine=False),
            nn.ReLU(),
        ]
        layers += [
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(4, 6, 3, stride=2),
            nn.AvgPool2d(2, stride=1),
            nn.Flatten(),
        ]
        super().__init__(*layers, nn.Linear(6, 10, bias=False), nn.LogSoftmax(dim=1))


def test_a_network_of_ones_own_answers_as_in_pytorch(engine, tmp_path):
    torch.manual_seed(0)
    network = Strided()
    network(torch.randn(50, 1, 28, 28))  # gives batch norm its statistics
    export(network.eval(), tmp_path)
    with torch.no_grad():
        pictures = utils.Normalize()(digits(20))
        expected = network(pictures)
    answers = engine(
        """async (e, table, weights, pictures) => {
          const network = e.assemble(table, weights);
          return pictures.map(picture => Array.from(e.run(network, picture)));
        }""",
        json.loads((tmp_path / "Strided.json").read_text()),
        torch.frombuffer(
            bytearray((tmp_path / "Strided.bin").read_bytes()), dtype=torch.float32
        ).tolist(),
        pictures.flatten(1).tolist(),
    )
    torch.testing.assert_close(torch.tensor(answers), expected, atol=1e-5, rtol=1e-5)


def test_a_network_may_be_very_sure(engine):
    """Notices: exponentials that become infinite."""
    answers = engine("""e => {
      const layers = [{ offset: 0, shape: [1, 1, 2] }, { kind: "log-softmax", offset: 2, shape: [1, 1, 2] }];
      return Array.from(e.run(e.assemble({ size: 4, layers }, []), [1000, 0]));
    }""")
    assert answers == [0, -1000]


def drawings(count):
    """Random drawings as the pad sends them: from a dot to a scribble, in all sizes, with soft edges."""
    generator = torch.Generator().manual_seed(0)

    def between(low, high):
        return low + (high - low) * torch.rand((), generator=generator).item()

    rows, columns = torch.meshgrid(torch.arange(140.0), torch.arange(140.0), indexing="ij")
    for _ in range(count):
        drawing, reach, width = torch.zeros(140, 140), between(1, 60), between(2, 9)
        y, x = between(0, 139), between(0, 139)
        for _ in range(int(between(1, 30))):
            distance = ((rows - y) ** 2 + (columns - x) ** 2).sqrt()
            drawing = torch.maximum(drawing, 255 * (width - distance).clamp(0, 1))
            y, x = (min(max(place + between(-reach, reach), 0), 139) for place in (y, x))
        yield drawing.round().to(torch.uint8)


PREPARE = """(e, drawings) => drawings.map(drawing => {
  const picture = e.prepare(Uint8Array.from(atob(drawing), letter => letter.charCodeAt(0)), 140);
  return picture && Array.from(picture);
})"""


def test_drawings_become_the_same_pictures_as_in_python(engine):
    halfway, empty = torch.zeros(2, 140, 140, dtype=torch.uint8)
    halfway[50:90, 60:65] = 255  # 5 of 40 wide: it becomes 2.5 of 20, which Python rounds to 2
    all_drawings = [*drawings(100), halfway, empty]
    sent = [base64.b64encode(drawing.numpy().tobytes()).decode() for drawing in all_drawings]
    pictures = engine(PREPARE, sent)
    assert pictures.pop() is None
    for drawing, picture in zip(all_drawings, pictures):
        assert torch.equal(prepare(drawing), torch.tensor(picture, dtype=torch.uint8).view(28, 28))


def test_the_sixteen_views_are_the_same_as_in_python(engine):
    image = digits(10)[3]
    angles = variations(16)
    views = [
        dict(zip(angles, values))
        for values in zip(*(values.tolist() for values in angles.values()))
    ]
    seen = engine(
        "(e, picture, views) => views.map(view => Array.from(e.vary(picture, view)))",
        image.flatten().tolist(),
        views,
    )
    varied = utils.warp(image.expand(16, 1, 28, 28).double() / 255, **angles, smooth=True)
    expected = (varied - utils.MEAN) / utils.STD
    torch.testing.assert_close(
        torch.tensor(seen).view(16, 1, 28, 28).double(), expected, atol=1e-5, rtol=0
    )


def test_the_answer_is_that_of_the_pad_in_jupyter(engine):
    image = digits(10)[3]
    mean = engine(
        """async (e, picture) => {
          const network = await e.load("NetGAP", new URL("_static/networks/", location.href));
          const answers = network.views.map(view => e.answer(network, picture, view));
          return Array.from(answers[0], (_, digit) => answers.reduce((sum, one) => sum + one[digit], 0) / 16);
        }""",
        image.flatten().tolist(),
    )
    expected = recognise(get_trained(NetGAP).eval(), image)
    torch.testing.assert_close(torch.tensor(mean), expected, atol=1e-5, rtol=0)


def test_a_newer_drawing_ends_the_work_on_an_older_one(visit):
    code = """pixels => new Promise(resolve => {
      const worker = new Worker("_static/worker.js", { type: "module" });
      const replies = [];
      let timer;
      worker.onmessage = ({ data }) => {
        replies.push(data.id);
        clearTimeout(timer);
        timer = setTimeout(() => resolve(replies), 2000); // by then, no more will come
      };
      for (const id of [1, 2, 3]) {
        worker.postMessage({ id, task: "read", network: "Net", side: 140, drawing: Uint8Array.from(pixels) });
      }
    })"""
    replies = visit("search.html").evaluate(code, next(drawings(1)).flatten().tolist())
    assert replies.count(1) <= 1 and replies.count(2) <= 1, "a first impression at most"
    assert replies[-2:] == [3, 3], "a first impression, then the answer"
