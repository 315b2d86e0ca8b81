"""The website as a visitor meets it: the landing page, phones, the search, and small comforts."""

import re

import pytest
from browsing import SITE, answer_of, draw, ink, wake_widgets

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}

if not (SITE / "index.html").is_file():
    pytest.skip("there is no website yet: run `make site` first", allow_module_level=True)


def sees_verdict(page, text):
    page.locator(".digit-pad-verdict", has_text=text).wait_for()


# --- The landing page ----------------------------------------------------------------------------


def test_a_digit_draws_itself_until_the_pad_is_touched(visit):
    """Notices: black squares, a digit that goes on drawing under the visitor's hand."""
    page = visit("index.html", reduced_motion="no-preference")
    sees_verdict(page, "This is a 3.")
    before = ink(page)
    draw(page, [(0.5, 0.2), (0.5, 0.8)])
    sees_verdict(page, "This is a 1.")
    page.wait_for_timeout(3_000)  # longer than a finished digit rests
    assert answer_of(page)[0] == "This is a 1." and 0 < ink(page) < before, "a 1 alone"
    page.get_by_role("button", name="Clear").click()
    sees_verdict(page, "Draw a large digit.")


def test_who_wants_less_motion_sees_a_finished_digit(visit):
    page = visit("index.html")
    sees_verdict(page, "This is a 3.")
    assert answer_of(page)[1][3] > 70
    before = ink(page)
    page.wait_for_timeout(300)
    assert ink(page) == before


def test_each_thing_to_touch_is_one_click_away(visit):
    for name, widget in [("The lens", "lens"), ("The bench", "bench"), ("The film", "film")]:
        page = visit("index.html")
        page.locator("a", has_text=name).first.click()
        page.locator(f".live-{widget}[data-state=awake]").wait_for()
        page.wait_for_function(
            "id => Math.abs(document.getElementById(id).getBoundingClientRect().top) < 300",
            arg=widget,
        )


# --- Phones --------------------------------------------------------------------------------------


def test_a_choice_in_a_drawer_closes_it_and_leads_there(visit):
    page = visit("S5.html", **PHONE)
    page.get_by_role("button", name="Contents of this page").click()
    page.locator("dialog[open] a", has_text="The loss").click()
    page.locator("dialog[open]").wait_for(state="detached")
    page.wait_for_function(
        "Math.abs(document.querySelector('#the-loss').getBoundingClientRect().top) < 200"
    )


def test_on_a_phone_code_is_wrapped_and_the_next_lesson_is_in_view(visit):
    page = visit("S5.html", **PHONE)
    too_wide = "all => all.filter((part) => part.scrollWidth > part.clientWidth + 1).length"
    assert page.locator(".cell_input pre").evaluate_all(too_wide) == 0
    size = "part => parseFloat(getComputedStyle(part).fontSize)"
    assert page.locator(".cell_input pre").first.evaluate(size) >= 13
    box = page.locator(".right-next").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390


SMALL = """() => [...document.querySelectorAll("article button, .bd-header-article button")]
  .filter((button) => button.offsetParent && button.getBoundingClientRect().height < 36)
  .map((button) => button.outerHTML)"""


@pytest.mark.parametrize("name", ["index.html", "S6.html"])
def test_buttons_are_large_enough_for_a_finger(visit, name):
    page = visit(name, **PHONE)
    wake_widgets(page)
    assert page.evaluate(SMALL) == []


# --- Search, terms, code, a wrong address --------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "words", "place"),
    [
        ("99.4", "99.4", r"S\d\.html#"),
        ("1×1", "1×1", r"glossary\.html#transition"),
        ("1x1", "1×1", r"glossary\.html#transition"),
        ("receptive fields", "receptive field", r"glossary\.html#receptive-field"),
        ("zyzzyva", "No passages", None),
    ],
)
def test_the_search_leads_to_passages(visit, query, words, place):
    page = visit(f"search.html?q={query}")
    results = page.locator("#search-results")
    results.get_by_text("passage").first.wait_for()
    assert words in results.inner_text().lower() or words in results.inner_text()
    links = [link.get_attribute("href") for link in results.locator("li a").all()]
    assert any(re.match(place, link) for link in links) if place else links == []


def test_a_result_leads_to_its_words(visit):
    page = visit("search.html?q=leans to the left")
    page.locator("#search-results li a").first.click()
    page.wait_for_url("**/S5.html#**")
    page.wait_for_function("scrollY > 500")


def test_a_term_is_explained_where_it_stands(visit):
    page = visit("S5.html")
    link = page.locator("a[data-term]", has_text="accuracy").first
    shown = "link => getComputedStyle(link, '::after').content"
    assert link.evaluate(shown) == "none"
    link.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert "Accuracy is the percentage of digits" in link.evaluate(shown)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_code_is_copied_as_it_is(visit):
    page = visit("S5.html", permissions=["clipboard-read", "clipboard-write"])
    page.locator(".cell_input button.copybtn").nth(1).focus()
    page.keyboard.press("Enter")
    page.locator("button.copybtn.success").wait_for()
    text = page.evaluate("navigator.clipboard.readText()")
    assert text.startswith("import copy\nimport inspect") and ">>>" not in text


def test_a_wide_formula_can_be_scrolled_by_keyboard(visit):
    page = visit("S6.html", viewport={"width": 390, "height": 844})
    wide = "all => all.map((part) => [part.scrollWidth > part.clientWidth, part.tabIndex === 0])"
    page.locator("div.formula[tabindex]").first.wait_for(state="attached")
    states = page.locator("div.formula").evaluate_all(wide)
    assert any(is_wide for is_wide, _ in states)
    assert all(is_wide == is_reached for is_wide, is_reached in states)


def test_a_wrong_address_has_a_page_and_pages_have_previews(visit):
    page = visit("404.html")
    assert page.get_by_role("heading", name="There is no such page").is_visible()
    assert page.locator("article a[href='S5.html']").is_visible()
    for name in ["index.html", "S5.html", "S6.html", "play.html"]:
        text = (SITE / name).read_text(encoding="utf-8")
        (described,) = re.findall('<meta name="description" content="([^"]+)">', text)
        (preview,) = re.findall(
            '<meta property="og:image" content="https://[^"]+?/(_static[^"]+)">', text
        )
        assert 50 < len(described) < 200 and (SITE / preview).is_file()
