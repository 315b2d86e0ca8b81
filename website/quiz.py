"""Read docs/quiz.md, and turn it into a page for each lesson.

An answer on a page opens when a visitor chooses it. Browsers do this without a script, by keyboard,
too, and screen readers know it.
"""

import html
import re
from dataclasses import dataclass

INTRODUCTION = """\
Choose an answer, and it says whether it is right, and why. Wrong answers are worth opening, too:
each is a mistake that people make. Nothing is counted, and nothing is sent anywhere."""
ANSWER = re.compile(r"- \[([ x])\] (.+)\n  - (.+(?:\n    .+)*)\n")


@dataclass
class Question:
    """A question about one of the things that a lesson teaches."""

    lesson: int
    objective: str
    number: int
    text: str
    answers: list


@dataclass
class Answer:
    text: str
    is_right: bool
    reason: str


# --- Reading -------------------------------------------------------------------------------------


def read_quiz(text):
    """The questions of all lessons, in order."""
    questions = []
    for lesson, part in sections(text, r"## Lesson (\d+)"):
        before = len(questions)
        for objective, block in sections(part, "### (.+)"):
            for heading, answers in sections(block, "#### (.+)"):
                number, _, question = heading.partition(". ")
                expected = len(questions) - before + 1
                place = f"lesson {lesson}, question {expected}"
                if number != str(expected):
                    raise ValueError(f"{place} has another number: {heading!r}")
                answers = read_answers(answers, place)
                questions.append(Question(int(lesson), objective, int(number), question, answers))
    return questions


def sections(text, heading):
    """Pairs of what a heading says and the text below it, up to the next such heading."""
    _, *parts = re.split(f"^{heading}$", text, flags=re.MULTILINE)
    return list(zip(parts[::2], parts[1::2]))


def read_answers(text, place):
    """The answers to a question, each with its reason."""
    rest = ANSWER.sub("", text).strip()
    if rest:
        raise ValueError(
            f"{place}: {rest.splitlines()[0]!r} is no answer with its reason: "
            "write '- [ ] answer', with an x if it is right, and below it '  - reason'"
        )
    answers = []
    for mark, answer, reason in ANSWER.findall(text):
        if "**" in answer or "](" in answer:
            raise ValueError(f"{place}: {answer!r} may have no markup but `code` and *emphasis*")
        answers.append(Answer(answer, mark == "x", " ".join(reason.split())))
    if len(answers) < 3:
        raise ValueError(f"{place} needs at least three answers")
    if sum(answer.is_right for answer in answers) != 1:
        raise ValueError(f"{place} needs one right answer: mark it with an x")
    return answers


# --- Writing -------------------------------------------------------------------------------------


def quiz_page(questions):
    """The Markdown of the page with the questions of one lesson."""
    lines = [f"# Quiz for lesson {questions[0].lesson}", INTRODUCTION]
    objective = None
    for question in questions:
        if question.objective != objective:
            objective = question.objective
            lines.append(f"## {objective}")
        lines.append(f"### {question.number}. {question.text}")
        for answer in question.answers:
            lines += answer_lines(answer)
    return "\n\n".join(lines) + "\n"


def answer_lines(answer):
    kind, verdict = ("right", "Right.") if answer.is_right else ("wrong", "Not quite.")
    return [
        f'<details class="answer answer-{kind}"><summary>{as_html(answer.text)}</summary>',
        f"**{verdict}** {answer.reason}",
        "</details>",
    ]


def as_html(text):
    """A line of Markdown without links as HTML: only code and emphasis have marks."""
    text = re.sub(r"`(.+?)`", r"<code>\1</code>", html.escape(text, quote=False))
    return re.sub(r"\*(.+?)\*", r"<em>\1</em>", text)
