"""Exercises whose answers are numbers, on the website: the same verdicts as in the notebook."""

import shutil

import pytest
from browsing import WIDGETS, served
from helpers import HERE

from course import exercises
from website.build import export_numbers

PAGE = """<!doctype html><div class="answers" data-check="check_parameters"></div>
<script type="module" src="answers.js"></script>"""


@pytest.fixture(scope="module")
def site(blank, tmp_path_factory):
    """A page with one exercise, beside its script."""
    folder = tmp_path_factory.mktemp("answers")
    shutil.copy(HERE / "website" / "static" / "answers.js", folder)
    shutil.copy(WIDGETS / "look.js", folder)
    export_numbers(folder / "answers.json")
    (folder / "index.html").write_text(PAGE)
    with served(folder) as address:
        blank.goto(address)
        yield blank


def test_an_answer_gets_the_hint_of_the_notebook(site):
    status = site.get_by_role("status")
    site.get_by_label("conv2").fill("18,496")
    site.get_by_label("fc1").fill("409700")
    site.get_by_label("fc1").press("Enter")
    hint = "this is conv2 with 3×3 kernels, but a 5×5 kernel has 25 weights."
    assert status.inner_text() == f"✗ conv2 is not 18,496: {hint}"
    site.get_by_label("conv2").fill("51264")
    site.get_by_role("button", name="Check").click()
    assert status.inner_text() == "✓ Right!"


ANSWERS = [0, 2, 4, 7, 12, 14, 22, 26, 28, 32, 4096, 18496, 51264, 409600, 409700]
ANSWERS += [0.07, 0.074, 0.072157, 0.0738608, -0.0424553, 0.0424553, -0.042, -0.0738608]
VERDICTS = """async ([check, given]) => {
  const module = await import("./answers.js");
  const numbers = (await (await fetch("answers.json")).json())[check];
  return given.map((texts) => module.check(texts, numbers));
}"""


@pytest.mark.parametrize("check", exercises.NUMBERS)
def test_every_number_gets_the_verdict_of_python(site, check, capsys):
    right = {name: number.right for name, number in exercises.NUMBERS[check].items()}
    given = [right, *(right | {name: answer} for name in right for answer in ANSWERS)]
    for answers in given:
        getattr(exercises, check)(**answers)
    expected = capsys.readouterr().out.splitlines()
    texts = [{name: f"{answer:.10g}" for name, answer in answers.items()} for answers in given]
    shown = site.evaluate(VERDICTS, [check, texts])
    assert shown == expected
    assert any("Right" in line for line in shown) and any("is not" in line for line in shown)


TEXTS = {
    "51,264": "✓ Right!",
    "51 264": "✓ Right!",
    "": "✗ conv2 is still open.",
    "0,051": '✗ conv2 should be a number, not "0,051".',
    "alert(1)": '✗ conv2 should be a number, not "alert(1)".',
    "−5": "✗ conv2 is not −5: each of its filters has a kernel for every map of conv1, ",
}


def test_texts_become_numbers(site):
    given = [{"conv2": text, "fc1": "409700"} for text in TEXTS]
    for shown, verdict in zip(site.evaluate(VERDICTS, ["check_parameters", given]), TEXTS.values()):
        assert shown.startswith(verdict)
