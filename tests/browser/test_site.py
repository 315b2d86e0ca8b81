"""The website, as `make site` built it, is opened, read and used; no other host is asked."""

import functools
import html.parser
import re
import time
import urllib.parse

import pytest
import torch
from browsing import (
    CONTRAST,
    PICTURES,
    SITE,
    STROKES,
    answer_of,
    draw,
    next_frame,
    seen,
    settled_answer,
    wait_until,
)
from helpers import HERE, LESSONS, each_lesson

import utils
from course.checkpoints import get_trained
from course.widgets.pad import recognise
from model import Net, NetFC, NetGAP, NetMini
from website.quiz import read_quiz

PAGES = ["index.html", "play.html", "quiz5.html", "quiz6.html"]
PAGES += [f"{lesson}.html" for lesson in LESSONS]
PAGES += ["glossary.html", "benchmarks.html", "teaching.html"]
WIDGETS = {"index.html": ["pad"], "S5.html": ["film", "lens"], "S6.html": ["bench", "pad"]}
each_page = pytest.mark.parametrize("name", PAGES)
each_page_with_widgets = pytest.mark.parametrize("name", WIDGETS)

if not (SITE / "index.html").is_file():
    pytest.skip("there is no website yet: run `make site` first", allow_module_level=True)


# --- The pages, without a browser ----------------------------------------------------------------


class Reader(html.parser.HTMLParser):
    """Collects a page's anchors, the addresses it leads to or loads, and its pictures."""

    def __init__(self):
        super().__init__()
        self.anchors = set()
        self.addresses = []
        self.pictures = []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors |= {values.get("id"), values.get("name")}
        self.addresses += filter(None, [values.get("href"), values.get("src")])
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


@each_page
def test_pictures_say_what_they_show_and_come_one_after_the_other(name):
    for picture in read_page(SITE / name).pictures:
        assert len(picture["alt"].split()) >= 3, picture
        if picture["src"].endswith(".png"):
            assert picture["loading"] == "lazy" and int(picture["width"]) > 0, picture


def test_style_sheets_load_only_what_is_there():
    for path in SITE.rglob("*.css"):
        for link in re.findall(r"url\(['\"]?([^'\")]+)", path.read_text(encoding="utf-8")):
            place = path.parent / urllib.parse.urlsplit(link).path
            assert link.startswith(("data:", "#")) or place.exists(), f"{link} in {path.name}"


@each_lesson
def test_a_lesson_can_be_opened_elsewhere_and_downloaded(lesson):
    links = [urllib.parse.unquote(link) for link in read_page(SITE / f"{lesson}.html").addresses]
    for place in [
        rf"https://colab\.research\.google\.com/github/\S+/{lesson}\.ipynb",
        rf"https://kaggle\.com/kernels/welcome\?src=https://github\.com/\S+/{lesson}\.ipynb",
        r"https://codespaces\.new/\S+",
        rf"https://lightning\.ai/new\?repo_url=https://github\.com/\S+/{lesson}\.ipynb",
    ]:
        assert any(re.fullmatch(place, link) for link in links), place
    downloaded = SITE / "_static" / "lessons" / f"{lesson}.ipynb"
    assert downloaded.read_bytes() == (HERE / f"{lesson}.ipynb").read_bytes()


# --- The pages in a browser ----------------------------------------------------------------------

SCROLL = """async () => {
  for (let y = 0; y < document.body.scrollHeight; y += 800) {
    window.scrollTo(0, y);
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}"""
# Those that are folded away need not be there.
LOADED = "[...document.images].every((image) => image.complete || !image.checkVisibility())"
MISSING = "[...document.images].filter(image => image.complete && !image.naturalWidth).length"
SQUASHED = """[...document.images].filter((image) => {
  if (getComputedStyle(image).objectFit === "contain") return false; // it keeps its proportions
  const ratio = image.naturalWidth / image.naturalHeight / (image.width / image.height);
  return image.naturalWidth && image.width && Math.abs(ratio - 1) > 0.03;
}).length"""
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@each_page
@pytest.mark.parametrize(("widths", "theme"), [((390, 320), "dark"), ((1400, 800), "light")])
def test_pages_look_right(visit, name, widths, theme):
    """Also while its window changes. 320 pixels remain of a usual one, enlarged four times."""
    page = visit(name, widths[0], theme)
    for width in widths:
        page.set_viewport_size({"width": width, "height": 900})
        page.screenshot(path=PICTURES / f"site-{name[:-5]}-{width}.png")
        page.evaluate(SCROLL)  # all lazy pictures and widgets come near the window
        wait_until(page, lambda: page.evaluate(LOADED))
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "too wide"
        assert page.evaluate(MISSING) == 0, "a picture is missing"
        assert page.evaluate(SQUASHED) == 0, "a picture has lost its proportions"
    brightness = sum(map(int, re.findall(r"\d+", page.evaluate(BACKGROUND))[:3]))
    assert (brightness < 150) == (theme == "dark")


def test_the_landing_page_can_be_read_without_javascript(visit):
    page = visit("index.html", java_script_enabled=False)
    assert page.locator("article h1").inner_text().startswith("Handwritten digits with PyTorch")
    assert page.locator(".live-pad img").is_visible()
    assert page.get_by_role("link", name="Start with lesson 5").is_visible()


def test_formulas_are_typeset(visit):
    page = visit("S6.html")
    source = (HERE / "S6.ipynb").read_text(encoding="utf-8")
    count = page.locator(".katex-html").count()
    assert count >= len(re.findall(r"\$\$.+?\$\$", source)) >= 10
    assert page.locator(".katex-error").count() == 0
    page.wait_for_function("document.fonts.check('16px KaTeX_Math')")
    text = page.locator("article").inner_text()
    assert "$$" not in text and "dfrac" not in text


HIDDEN = """[...document.querySelectorAll(".formula .katex-display")].filter(formula => {
  const outer = formula.closest("div.formula");
  const parts = [...formula.querySelectorAll(".katex-html *")];
  const left = Math.min(...parts.map(part => part.getBoundingClientRect().left));
  const right = Math.max(...parts.map(part => part.getBoundingClientRect().right));
  const start = outer.getBoundingClientRect().left;
  return left < start - 1 || right > start + outer.scrollWidth + 1;
}).length"""


def test_formulas_begin_inside_the_page_and_scroll_to_their_end(visit):
    page = visit("S6.html")
    for width in [1400, 390]:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(HIDDEN) == 0


def test_search_finds_a_term(visit):
    page = visit("search.html?q=receptive+field")
    page.locator("#search-results li", has_text="Lesson 5").first.wait_for()


def test_the_theme_can_be_switched(visit):
    page = visit("index.html", theme="light", alone=True)
    colours = []
    for choice in ["Light", "Dark"]:
        page.locator(".theme-switch-button:visible").click()
        page.locator(".theme-change-button:visible", has_text=choice).click()
        colours.append(page.evaluate(BACKGROUND))
    assert colours[0] == "rgb(255, 255, 255)" != colours[1]
    text = "getComputedStyle(document.querySelector('.course-widget')).color"
    assert page.evaluate(text) == page.evaluate("getComputedStyle(document.body).color")


def test_dark_pages_are_printed_in_the_light_theme(visit):
    page = visit("index.html", theme="dark", alone=True)
    awake(page, "pad")
    page.evaluate(f"addEventListener('beforeprint', () => {{ window.printed = {BACKGROUND}; }})")
    page.pdf()
    assert page.evaluate("window.printed") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.emulate_media(media="print")
    assert page.locator(".live-pad > .live-still").is_visible()
    assert not page.locator(".digit-pad").is_visible()


def test_widgets_that_sleep_are_printed_too(visit):
    page = visit("S5.html")
    page.emulate_media(media="print")
    assert page.locator(".live-lens > img").is_visible()
    assert page.locator(".live-film > img").is_visible()


# --- The quiz ------------------------------------------------------------------------------------

VERDICTS = {True: "Right.", False: "Not quite."}


@pytest.mark.parametrize("lesson", [5, 6])
def test_an_answer_says_at_once_whether_it_is_right(visit, lesson):
    page = visit(f"quiz{lesson}.html")
    quiz = read_quiz((HERE / "docs" / "quiz.md").read_text(encoding="utf-8"))
    questions = [question for question in quiz if question.lesson == lesson]
    assert page.get_by_role("heading", level=3).count() == len(questions)
    answers = [answer for question in questions for answer in question.answers]
    shown = "all => all.map((answer) => [answer.open, (answer.open = true), answer.innerText])"
    opened = page.locator("article details").evaluate_all(shown)
    for (was_open, _, text), answer in zip(opened, answers, strict=True):
        assert not was_open
        assert VERDICTS[answer.is_right] in text and VERDICTS[not answer.is_right] not in text


def test_the_quiz_needs_no_scripts(visit):
    page = visit("quiz5.html", java_script_enabled=False)
    for answer in page.locator("article details").all()[:4]:
        verdict = answer.get_by_text(re.compile(r"^(Right|Not quite)\.$"))
        assert not verdict.is_visible()
        answer.locator("summary").click()
        assert verdict.is_visible()


def test_the_quiz_works_by_keyboard(visit):
    page = visit("quiz5.html")
    summaries = page.locator("article summary")
    summaries.nth(0).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.get_by_text("Right.", exact=True).first.is_visible()
    assert summaries.nth(1).evaluate("summary => summary === document.activeElement")
    page.keyboard.press("Space")
    assert not page.get_by_text("Right.", exact=True).first.is_visible()
    page.screenshot(path=PICTURES / "site-quiz.png")


# --- The widgets ---------------------------------------------------------------------------------


def awake(page, widget):
    """Wait until a widget has started."""
    place = page.locator(f".live-{widget}")
    place.scroll_into_view_if_needed()
    page.locator(f".live-{widget}[data-state=awake]").wait_for()
    return place


def height_of(place):
    return place.evaluate("place => place.getBoundingClientRect().height")


OUTSIDE = """place => [...place.querySelectorAll("*")].filter(part =>
  part.getBoundingClientRect().right > place.getBoundingClientRect().right + 1).length"""


CUT_OFF = """place => [...place.querySelectorAll("input")].filter((input) => {
  input.value = input.max;
  return input.offsetParent && input.scrollWidth > input.clientWidth;
}).length"""


@each_page_with_widgets
def test_widgets_can_be_read_stay_in_their_frame_and_move_nothing_else(visit, name):
    asleep = visit(name, alone=True, without="**/host.js*")
    page = visit(name)
    for width, theme in [(1400, "dark"), (800, "light"), (390, "dark")]:
        for each in (asleep, page):
            each.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)
        page.locator(f"html[data-theme={theme}]").wait_for()
        for widget in WIDGETS[name]:
            place = awake(page, widget)
            next_frame(page)
            height = height_of(asleep.locator(f".live-{widget}"))
            assert abs(height_of(place) - height) <= 1, widget
            assert place.locator(".course-widget").evaluate(CONTRAST) > 140, widget
            assert place.evaluate(OUTSIDE) == 0, widget


FIVE_OR_NINE = [(0.6, 0.25), (0.35, 0.2), (0.3, 0.45), (0.6, 0.5), (0.65, 0.25), (0.6, 0.8)]
FIVE_OR_NINE += [(0.4, 0.75)]


@pytest.mark.parametrize("digit", [3, 7])
def test_the_pad_reads_a_digit(visit, digit):
    page = visit("index.html")
    height = height_of(awake(page, "pad"))
    draw(page, STROKES[digit])
    shares = settled_answer(page, f"This is a {digit}.")
    assert shares[digit] > 70 and sum(shares) == pytest.approx(100, abs=1)
    assert height_of(page.locator(".live-pad")) == height, "the page must not move"
    page.screenshot(path=PICTURES / f"site-pad-{digit}.png")
    page.get_by_role("button", name="Clear").click()
    settled_answer(page, "Draw a large digit.")


def test_each_network_answers_as_in_jupyter(visit):
    page = visit("index.html")
    place = awake(page, "pad")
    draw(page, FIVE_OR_NINE)
    highest = set()
    for Network in [NetGAP, NetFC, NetMini, Net]:
        place.locator("select").select_option(Network.__name__)
        place.locator("[role=status]:text-is('')").wait_for(state="attached")
        picture = torch.tensor(seen(page), dtype=torch.uint8).view(28, 28)
        expected = 100 * recognise(get_trained(Network).eval(), picture)
        wait_for_answer(page, expected, Network.__name__)
        highest.add(round(expected.max().item(), 1))
    assert len(highest) == 4, "the drawing is too clear to tell the networks apart"


def wait_for_answer(page, expected, name, patience=10):
    deadline = time.monotonic() + patience
    while (expected - torch.tensor(answer_of(page)[1])).abs().max() > 0.06:
        assert time.monotonic() < deadline, name
        page.wait_for_timeout(50)


DIGIT_IN_LENS = """place => {
  const context = place.querySelector(".lens-stack canvas").getContext("2d");
  return [...context.getImageData(0, 0, 28, 28).data].filter((_, n) => n % 4 === 0);
}"""


@pytest.mark.parametrize(
    ("name", "widget", "opener"),
    [("index.html", "pad", "Look inside"), ("S5.html", "lens", "Draw a digit for it")],
)
def test_the_lens_shows_what_is_drawn_on_the_pad(visit, name, widget, opener):
    """Notices: the digit before, or another network than the chosen one."""
    page = visit(name)
    place = awake(page, widget)
    button = place.get_by_role("button", name=opener)
    button.click()
    page.locator(".digit-pad-canvas").scroll_into_view_if_needed()
    draw(page, STROKES[1])
    settled_answer(page, "This is a 1.")
    draw(page, [(0.2, 0.8), (0.8, 0.8)])
    wait_until(page, lambda: place.evaluate(DIGIT_IN_LENS) == seen(page))
    place.locator(".live-choice select").select_option("NetFC")
    place.locator(".lens option", has_text="conv5").wait_for(state="attached")
    assert place.evaluate(DIGIT_IN_LENS) == seen(page)
    assert place.evaluate(OUTSIDE) == 0
    page.screenshot(path=PICTURES / f"site-{widget}-opened.png")
    button.click()
    assert place.locator(".lens").is_visible() == (widget == "lens")
    assert place.locator(".digit-pad").is_visible() == (widget == "pad")


def test_a_network_that_cannot_be_loaded(visit):
    page = visit("index.html", expected=["Failed to load resource", "503"])
    place = awake(page, "pad")
    page.route("**/networks/Net.*", lambda route: route.fulfill(status=503))
    place.locator("select").select_option("Net")
    place.get_by_text("Net could not be loaded.").wait_for()
    assert place.locator("select").input_value() == "NetGAP", "the one that goes on answering"
    draw(page, STROKES[7])
    settled_answer(page, "This is a 7.")
    page.unroute("**/networks/Net.*")
    place.locator("select").select_option("NetFC")
    place.locator("select").select_option("Net")
    place.locator("[role=status]:text-is('')").first.wait_for(state="attached")
    assert place.locator("select").input_value() == "Net"


def sign_in(route):
    route.fulfill(body="<title>Sign in</title>", content_type="text/html")


@pytest.mark.parametrize("answer", [lambda route: route.abort(), sign_in], ids=["none", "another"])
@pytest.mark.parametrize("missing", ["networks/*", "worker.js", "engine.js"])
def test_a_widget_that_cannot_be_loaded_keeps_its_picture(page, address, missing, answer):
    page.route(f"**/{missing}", answer)
    page.goto(address)
    page.get_by_text("This could not be loaded.").wait_for()
    assert page.locator(".live-pad img").is_visible()


@each_page
def test_a_page_is_small_and_runs_its_own_scripts_only(visit, name):
    """Whatever text a page is made to show: a script in it stays a text."""
    page = visit(name, expected=["Content Security Policy"])
    sizes = "performance.getEntries().map(entry => entry.encodedBodySize ?? 0)"
    assert 600_000 < sum(page.evaluate(sizes)) < 1_500_000
    page.evaluate("""() => {
      const script = document.createElement("script");
      script.textContent = "isHacked = true";
      document.body.append(script);
      document.body.insertAdjacentHTML("beforeend", "<img src='data:,' onerror='isHacked = true'>");
    }""")
    page.wait_for_timeout(200)
    assert page.evaluate("() => globalThis.isHacked") is None


@each_page_with_widgets
def test_opened_as_a_file_a_page_says_what_it_needs(page, name):
    page.goto((SITE / name).as_uri())
    for widget in WIDGETS[name]:
        place = page.locator(f".live-{widget}")
        place.get_by_text("A browser starts this only from a web server.").wait_for()
        assert place.locator("img").is_visible() and place.get_by_role("button").count() == 0
    assert page.evaluate("() => document.styleSheets.length") > 2, "it looks as usual"


def test_the_bench_steps_to_the_numbers_of_the_lesson(visit):
    page = visit("S6.html")
    bench = awake(page, "bench")
    error = bench.locator(".bench-curve text")
    assert error.text_content() == "step 0: E = 0.242520"
    for rate, expected in {"0.1": "0.1335", "2": "0.0052"}.items():  # as the lesson says below it
        bench.get_by_label("learning rate").fill(rate)
        bench.get_by_label("learning rate").press("Tab")
        bench.get_by_role("button", name="100 steps").click()
        assert f"{float(error.text_content().removeprefix('step 100: E = ')):.4f}" == expected
        assert expected in page.locator("article").text_content()
        bench.get_by_role("button", name="Rewind").click()


def test_the_lens_explains_all_layers_of_the_trained_network(visit):
    page = visit("S5.html")
    place = awake(page, "lens")
    sentence = place.locator(".lens-sum")
    place.get_by_label("network").select_option("Net")
    place.locator("option", has_text="conv1").wait_for(state="attached")
    for number, option in enumerate(place.locator(".lens option").all_inner_texts()):
        place.locator(".lens select").select_option(str(number))
        assert "cannot explain" not in sentence.inner_text(), option
        assert place.evaluate(CUT_OFF) == 0, f"{option}: the number of the last map"
    page.screenshot(path=PICTURES / "site-lens.png")
    assert "for the digit 7" in place.locator(".lens-caption").inner_text(), "the first test digit"
    height = place.locator(".lens-map").bounding_box()["height"]
    assert height >= 24, "a row of numbers can be pointed at"
    place.locator(".lens select").select_option("0")
    place.locator(".lens-map").hover(position={"x": 2, "y": 2})  # a black corner
    black = f"{-utils.MEAN / utils.STD:.3f}".replace("-", "−")
    assert f"normalised: {black}." in sentence.inner_text()


def test_the_film_goes_from_the_first_epoch_to_the_last(visit):
    page = visit("S5.html")
    film = awake(page, "film")
    title = film.locator(".film-slider span")
    assert title.inner_text() == "before training"
    film.locator("input").press("End")
    assert title.inner_text() == "after epoch 20 of 20"
    best = film.locator(".course-best")
    assert best.get_attribute("aria-label") == "digit 7"
    assert float(best.get_attribute("aria-valuenow")) > 90
    page.screenshot(path=PICTURES / "site-film.png")
