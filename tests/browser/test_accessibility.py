"""axe-core looks for what keeps people out, on every page, with its widgets awake.

Each page is opened once; then its theme and its width change. Only colours depend on the theme.
"""

import pytest
from browsing import SITE, wake_widgets
from helpers import HERE

AXE = HERE / ".venv-site" / "node_modules" / "axe-core" / "axe.min.js"
PAGES = sorted(path.name for path in SITE.glob("*.html"))
COLOURS = ["color-contrast", "link-in-text-block"]
VISITS = [(1400, "light", None), (1400, "dark", COLOURS), (390, "dark", None)]
IMPACTS = ["serious", "critical"]

if not AXE.is_file() or not PAGES:
    pytest.skip("there is no website yet: run `make site` first", allow_module_level=True)

# Transitions end at once, so that no colour is read halfway.
HURRY = """() => document.head.append(Object.assign(document.createElement("style"), {
  textContent: "* { transition: none !important; animation: none !important; }",
}))"""
# Lessons have thousands of coloured words and pieces of formulas: one of each kind is enough.
THIN = """() => {
  const seen = new Set();
  for (const part of document.querySelectorAll("pre span"))
    if (seen.has(part.className)) part.replaceWith(...part.childNodes);
    else seen.add(part.className);
  for (const formula of [...document.querySelectorAll(".katex")].slice(5)) formula.remove();
}"""
LOOK = """async ([impacts, rules]) => {
  const options = { resultTypes: ["violations"], ...(rules && { runOnly: rules }) };
  const { violations } = await axe.run(document, options);
  const serious = violations.filter(({ impact }) => impacts.includes(impact));
  return serious.flatMap(({ id, nodes }) => nodes.map(({ target }) => `${id}: ${target}`));
}"""


@pytest.mark.parametrize("name", PAGES)
def test_nothing_on_a_page_keeps_people_out(page, address, name):
    page.goto(address + name)
    wake_widgets(page)
    page.evaluate(HURRY)
    page.evaluate(THIN)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = {}
    for width, theme, rules in VISITS:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)
        page.locator(f"html[data-theme={theme}]").wait_for()
        page.wait_for_timeout(500)  # until the theme lets the keyboard reach what scrolls
        found[width, theme] = page.evaluate(LOOK, [IMPACTS, rules])
    assert not any(found.values()), found
