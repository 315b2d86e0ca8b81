"""The playground: it learns, also when training breaks, tabs hide and addresses lie."""

import gzip
import re

import pytest
from browsing import PATIENCE, SITE, wait_until
from helpers import HERE

import utils
from model import NetMicro

BROKEN = "play.html?net=NetMicro&uncleared=1&rate=10&seed=1"

if not (SITE / "play.html").is_file():
    pytest.skip("there is no website yet: run `make site` first", allow_module_level=True)


def status(page):
    return page.locator(".play-status").inner_text()


def steps(page):
    """How many steps of training the page has counted."""
    found = re.match(r"Step ([\d,]+) ", status(page))
    return int(found[1].replace(",", "")) if found else 0


def steps_at_rest(page):
    """The steps, if there is no other within a second, in which a busy page would tell of some."""
    before = steps(page)
    page.wait_for_timeout(1000)
    return before if steps(page) == before else 0


def unseen(page):
    """The accuracy on unseen digits that the page shows, in per cent."""
    found = re.match(r"[\d.]+", page.locator(".play-unseen").inner_text())
    return float(found[0]) if found else 0.0


def button(page):
    return page.locator(".play-start").inner_text()


# --- Learning -------------------------------------------------------------------------------------


def test_a_network_learns_until_it_is_paused_and_starts_over(visit):
    page = visit("play.html?net=NetMicro")
    start = page.locator(".play-start")
    start.click()
    wait_until(page, lambda: unseen(page) > 50)
    start.click()
    assert wait_until(page, lambda: steps_at_rest(page)) > 10
    page.locator(".play-over").click()
    page.locator(".play-step").click()
    wait_until(page, lambda: steps(page) == 1)
    assert unseen(page) < 50


def test_the_network_that_was_trained_can_be_used_in_python(visit, tmp_path):
    page = visit("play.html?net=NetMicro")
    page.locator(".play-step").click()
    wait_until(page, lambda: steps(page) == 1)
    with page.expect_download() as download:
        page.locator(".play-save").click()
    download.value.save_as(tmp_path / "mine.safetensors")
    network = utils.load_weights(tmp_path / "mine.safetensors", NetMicro())
    assert network.block1[1].num_batches_tracked == 1


# --- When the loss is no number any more ---------------------------------------------------------


@pytest.fixture
def broken(visit):
    """The page after a training that broke."""
    page = visit(BROKEN)
    page.locator(".play-start").click()
    page.get_by_text("the loss stopped being a number").wait_for(timeout=PATIENCE)
    return page


def test_training_stops_and_one_sentence_says_why(broken):
    text = status(broken)
    assert re.match(r"At step \d+, .* Clear the gradients, then start over\.$", text)
    assert button(broken) == "Start"
    broken.wait_for_timeout(600)
    assert status(broken) == text, "it has stopped"
    place = re.search(r"\d+", text)[0]
    curve = broken.locator(".play-loss").get_attribute("aria-label")
    assert curve.endswith(f"no number any more at step {place}")


def test_start_over_works_after_the_mistake_is_corrected(broken):
    broken.get_by_label("gradients are not cleared").uncheck()
    broken.get_by_label("learning rate").select_option("0.03")
    broken.locator(".play-over").click()
    broken.locator(".play-start").click()
    wait_until(broken, lambda: steps(broken) > 20)
    assert button(broken) == "Pause"


# --- The tab and the keyboard --------------------------------------------------------------------

HIDE = """isHidden => {
  Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_hidden_tab_pauses_and_goes_on_when_it_is_seen_again(visit):
    page = visit("play.html?net=NetMicro")
    page.locator(".play-start").click()
    wait_until(page, lambda: steps(page) > 5)
    page.evaluate(HIDE, True)
    hidden = wait_until(page, lambda: steps_at_rest(page))
    page.evaluate(HIDE, False)
    wait_until(page, lambda: steps(page) > hidden)


def test_a_tab_that_was_paused_stays_so(visit):
    page = visit("play.html?net=NetMicro")
    page.evaluate(HIDE, True)
    page.evaluate(HIDE, False)
    page.wait_for_timeout(300)
    assert button(page) == "Start"


def test_space_starts_and_pauses_wherever_the_keyboard_is(visit):
    """On the page, and once only on a button, which the browser presses itself."""
    page = visit("play.html?net=NetMicro")
    page.keyboard.press("Space")
    assert button(page) == "Pause"
    page.keyboard.press("Space")
    assert button(page) == "Start"
    page.locator(".play-start").press("Space")
    assert button(page) == "Pause"
    page.get_by_label("vary the digits").press("Space")
    assert button(page) == "Pause"
    assert page.get_by_label("vary the digits").is_checked()


def test_tab_leads_through_the_controls_in_reading_order(visit):
    page = visit("play.html")
    page.locator(".play-start").focus()
    order = []
    for _ in range(8):
        page.keyboard.press("Tab")
        code = "() => document.activeElement.name || document.activeElement.textContent"
        order.append(page.evaluate(code))
    assert order == [
        *["One step", "Start over", "net", "rate", "fall", "batch", "digits", "augment"]
    ]


# --- What an address can ask for -----------------------------------------------------------------


def test_what_an_address_says_is_shown_as_text_and_the_page_goes_on(visit):
    page = visit("play.html?%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E=1")
    notice = page.locator(".play-notice")
    assert notice.inner_text().startswith("The address names “<img src=x")
    assert notice.locator("*").count() == 0
    page.locator(".play-step").click()
    wait_until(page, lambda: steps(page) == 1)


PARSE = """async query => (await import("./settings.js")).parse(query)"""


@pytest.fixture
def read_address(blank, address):
    """What website/static/settings.js reads in the last part of an address."""
    blank.goto(address + "_static/favicon.svg")  # a page at the same address, without scripts
    return lambda query: blank.evaluate(PARSE, query)


WRONG = ["__proto__=1", "digits=1e3", "digits=7e9", "digits=99"]
WRONG += ["rate=", "rate=-3", "rate=alert(1)", "net=Nobody", "fall=2"]


@pytest.mark.parametrize("part", WRONG)
def test_a_setting_that_cannot_be_is_refused_and_the_usual_one_taken(read_address, part):
    read = read_address(part)
    (complaint,) = read["complaints"]
    assert complaint.startswith("The address ") and part.split("=")[0] in complaint
    assert read["settings"] == read_address("")["settings"]


def test_a_long_address_gets_a_short_answer(read_address):
    many = "&".join(f"setting{n}={n}" for n in range(500))
    assert len(" ".join(read_address(many)["complaints"])) < 300


def test_the_address_holds_the_settings_that_were_changed(visit):
    page = visit("play.html?digits=300&rate=nonsense")
    page.get_by_label("batch size").select_option("64")
    assert page.url.endswith("play.html?batch=64&digits=300")


# --- What a visitor has to load ------------------------------------------------------------------


def test_its_scripts_and_its_digits_are_small():
    static = SITE / "_static"
    names = [path.name for path in (HERE / "website" / "static").glob("*.js")]
    names += ["look.js", "layers.js", "kernels.wasm", "widgets/pad.js", "widgets/lens.js"]
    compressed = [len(gzip.compress((static / name).read_bytes())) for name in names]
    assert sum(compressed) <= 60_000
    assert (static / "digits.bin.gz").stat().st_size <= 1_500_000
