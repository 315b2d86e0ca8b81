"""The glossary explains every term of the lessons, and each lesson links a term where it is first used."""

import re

import pytest
from test_notebooks import HERE, LESSONS, read

ENTRIES = [
    line for line in (HERE / "GLOSSARY.md").read_text(encoding="utf-8").splitlines() if line.startswith("- ")
]
ANCHORS = {  # by name; an entry may have two, such as filter and kernel
    name.lower(): re.search(r'<a id="([\w-]+)">', entry)[1]
    for entry in ENTRIES
    for name in re.findall(r"\*\*(.+?)\*\*", entry)
}
NAMES = "|".join(re.escape(name) for name in sorted(ANCHORS, key=len, reverse=True))
TERM = re.compile(rf"(?<![\w×-])({NAMES})(e?s)?(?![\w-])", re.IGNORECASE)
NOT_PROSE = re.compile(r"^#+ [^\n]*|`[^`]*`|\$\$[^$]*\$\$|\$[^$]*\$|!\[[^\]]*\]\([^)]*\)", re.MULTILINE)
LINK = re.compile(r"\[([^\]]*)\]\(([^)]*)\)")
each_lesson = pytest.mark.parametrize("lesson", LESSONS)


def blank(match):
    return " " * len(match[0])


def prose(lesson):
    """The running text after the opening cell, without headings, code and formulas."""
    cells = [cell.source for cell in read(lesson).cells[1:] if cell.cell_type == "markdown"]
    return NOT_PROSE.sub(blank, "\n\n".join(cells))


def first_uses(text):
    """For each term that occurs in the text: where it first does."""
    text = LINK.sub(lambda link: link[0] if "GLOSSARY" in link[2] else blank(link), text)
    text = re.sub(r"\]\([^)]*\)", blank, text)  # what remains of links is their text
    found = {}
    for match in TERM.finditer(text):
        found.setdefault(ANCHORS[match[1].lower()], match)
    return found


@each_lesson
def test_terms_are_linked_where_they_are_first_used(lesson):
    text = prose(lesson)
    links = [(link.span(), link[2]) for link in LINK.finditer(text)]
    unlinked = [
        match[0]
        for anchor, match in first_uses(text).items()
        if not any(a <= match.start() < b and to == f"GLOSSARY.md#{anchor}" for (a, b), to in links)
    ]
    assert not unlinked
    assert len(first_uses(text)) > 25, "a lesson without terms would pass, too"


@each_lesson
def test_terms_in_bold_are_in_the_glossary(lesson):
    bold = re.findall(r"\*\*(.+?)\*\*", prose(lesson).replace("\n", " "))
    words = [LINK.sub(r"\1", text) for text in bold]
    terms = [text for text in words if not text.endswith((".", ":")) and len(text.split()) < 4]
    assert terms and [term for term in terms if not TERM.fullmatch(term)] == []


@each_lesson
def test_links_lead_to_entries(lesson):
    text = "".join(cell.source for cell in read(lesson).cells)
    assert set(re.findall(r"GLOSSARY\.md#([\w-]+)", text)) <= set(ANCHORS.values())


def test_each_entry_is_one_sentence_in_its_place():
    for entry in ENTRIES:
        assert entry.endswith(".") and entry.count(". ") == 0, entry
    names = [re.search(r"\*\*(.+?)\*\*", entry)[1].lower() for entry in ENTRIES]
    assert names == sorted(names)
