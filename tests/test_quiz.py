"""The quiz asks about everything that the lessons teach, and becomes a page for each lesson."""

import re
from collections import Counter

import pytest
from helpers import ROOT, each_lesson, read

from website.quiz import quiz_page, read_quiz


@pytest.fixture(scope="module")
def questions():
    return read_quiz((ROOT / "docs" / "quiz.md").read_text(encoding="utf-8"))


def objectives(lesson):
    """What a lesson teaches, as the list at its start says it."""
    found = re.findall("^- (.+)[;.]$", read(lesson).cells[0].source, re.MULTILINE)
    return [objective[0].upper() + objective[1:] for objective in found]


@each_lesson
def test_each_objective_is_asked_three_times(lesson, questions):
    own = [question for question in questions if f"S{question.lesson}" == lesson]
    asked = Counter(question.objective for question in own)
    assert list(asked) == objectives(lesson), "word for word, in the order of the lesson"
    assert all(count >= 3 for count in asked.values())


def test_the_lists_of_objectives_are_found():
    assert [len(objectives(lesson)) for lesson in ["S5", "S6"]] == [5, 7]


def test_the_place_of_the_right_answer_gives_nothing_away(questions):
    places = Counter()
    for question in questions:
        places[[answer.is_right for answer in question.answers].index(True)] += 1
        assert len({answer.text for answer in question.answers}) == len(question.answers)
    assert max(places.values()) < len(questions) / 2


# --- The form ------------------------------------------------------------------------------------

ANSWERS = """- [ ] One
  - Because.
- [x] Two < 3 and `a < b` *now*
  - Because of this,
    and that.
- [ ] Three
  - Because.
"""
SMALL = f"# Quiz\n\n## Lesson 7\n\n### Draw\n\n#### 1. How?\n\n{ANSWERS}"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("#### 1.", "#### 2.", "lesson 7, question 1 has another number: '2. How\\?'"),
        ("#### 1. ", "#### ", "lesson 7, question 1 has another number: 'How\\?'"),
        ("Three", "**Three**", "'\\*\\*Three\\*\\*' may have no markup but `code` and"),
        ("Three", "[Three](x)", "may have no markup but `code` and \\*emphasis\\*"),
        ("[x]", "[ ]", "lesson 7, question 1 needs one right answer"),
        ("[ ] One", "[x] One", "lesson 7, question 1 needs one right answer"),
        ("- [ ] Three\n  - Because.\n", "", "lesson 7, question 1 needs at least three answers"),
        ("  - Because.\n- [x]", "- [x]", "'- \\[ \\] One' is no answer with its reason: write"),
        ("- [ ] Three", "- Three", "'- Three' is no answer with its reason"),
        ("    and that", "and that", "'and that.' is no answer with its reason"),
    ],
)
def test_a_mistake_in_the_form_is_named(old, new, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_quiz(SMALL.replace(old, new, 1))


def test_numbers_start_over_with_each_lesson():
    two = SMALL + SMALL.partition("\n\n")[2].replace("Lesson 7", "Lesson 8")
    questions = read_quiz(two)
    assert [(each.lesson, each.number, each.text) for each in questions] == [
        (7, 1, "How?"),
        (8, 1, "How?"),
    ]


PAGE_OF_ANSWERS = """<details class="answer answer-wrong"><summary>One</summary>

**Not quite.** Because.

</details>

<details class="answer answer-right"><summary>Two &lt; 3 and <code>a &lt; b</code> \
<em>now</em></summary>

**Right.** Because of this, and that.

</details>

<details class="answer answer-wrong"><summary>Three</summary>

**Not quite.** Because.

</details>
"""


def test_a_page_opens_each_answer_with_its_reason_and_has_each_objective_once():
    more = f"\n#### 2. Why?\n\n{ANSWERS}\n### Erase\n\n#### 3. When?\n\n{ANSWERS}"
    page = quiz_page(read_quiz(SMALL + more))
    assert page.startswith("# Quiz for lesson 7\n\n")
    headings = ["## Draw\n\n### 1. How?", "### 2. Why?", "## Erase\n\n### 3. When?"]
    expected = "\n".join(f"{heading}\n\n{PAGE_OF_ANSWERS}" for heading in headings)
    assert page.endswith(f"\n\n{expected}")
