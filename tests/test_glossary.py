"""The glossary explains the lessons' terms; a lesson links each once, where it introduces it."""

import re

from helpers import LESSONS, ROOT, each_lesson, read

ENTRIES = re.findall("^- .*", (ROOT / "GLOSSARY.md").read_text(encoding="utf-8"), re.MULTILINE)
ANCHORS = [re.match(r'- <a id="([\w-]+)"></a>', entry)[1] for entry in ENTRIES]


def linked(lesson):
    """The anchors of the glossary that a lesson links to, as often as it does."""
    text = "\n".join(cell.source for cell in read(lesson).cells if cell.cell_type == "markdown")
    return re.findall(r"\]\(GLOSSARY\.md#([\w-]+)\)", text)


def test_entries_are_one_sentence_each_in_alphabetical_order():
    for entry in ENTRIES:
        assert entry.endswith(".") and entry.count(". ") == 0, entry
    names = [re.search(r"\*\*(.+?)\*\*", entry)[1].lower() for entry in ENTRIES]
    assert names == sorted(names)
    assert len(set(ANCHORS)) == len(ANCHORS)


@each_lesson
def test_links_lead_to_entries_and_no_term_is_linked_twice(lesson):
    links = linked(lesson)
    assert set(links) <= set(ANCHORS)
    assert sorted(links) == sorted(set(links))


def test_every_entry_is_linked_from_a_lesson_or_another_entry():
    found = {anchor for lesson in LESSONS for anchor in linked(lesson)}
    for anchor, entry in zip(ANCHORS, ENTRIES):
        found |= set(re.findall(r"\]\(#([\w-]+)\)", entry)) - {anchor}
    assert set(ANCHORS) - found == set()
