"""The website's copy of the course: exported networks, links, widgets, alt texts.

What a visitor's browser does with it is tested in tests/browser/test_site.py.
"""

import hashlib
import json
import math
import re
import sys

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import LESSONS, ROOT, code_cells, each_lesson, printed, read, same
from torch import nn

import model
from benchmarks import report
from course import exercises
from course.checkpoints import get_trained
from course.widgets.bench import BackpropBench
from course.widgets.look import Widget
from tools import publish
from website import build
from website.drawing import draw_blocks
from website.networks import describe, export
from website.quiz import read_quiz


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


# --- Exported networks -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Net", "NetGAP", "NetFC", "NetMini"])
def test_all_weights_are_exported(name, tmp_path):
    network = get_trained(getattr(model, name)).train()
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    export(network, tmp_path)
    assert network.training
    assert same(dict(network.state_dict()), state), "the network stays as it is"
    weights = np.fromfile(tmp_path / f"{name}.bin", dtype="<f4")
    expected = [state[key].flatten() for key in state if "num_batches" not in key]
    assert np.array_equal(np.sort(weights), torch.cat(expected).sort().values)
    table = read_json(tmp_path / f"{name}.json")
    assert table["sha256"] == hashlib.sha256(weights.tobytes()).hexdigest()
    results = sum(math.prod(layer["shape"]) for layer in table["layers"])
    assert table["size"] == len(weights) + results, "results come after the weights"
    assert table["layers"][-1]["shape"] == [1, 1, 10]
    assert len(table["views"]) == 16
    assert set(table["views"][0]) == {"angle", "shift", "scale"}


def sequence(*layers):
    return nn.Sequential(*layers, nn.Flatten(), nn.LogSoftmax(dim=1))


class Other(nn.Module):
    """A network of one's own: what a function makes of a convolution's maps, then their means."""

    def __init__(self, function):
        super().__init__()
        self.convolution = nn.Conv2d(1, 10, 3)
        self.function = function

    def forward(self, x):
        maps = self.function(self.convolution(x))
        return F.log_softmax(F.avg_pool2d(maps, 26).flatten(1), dim=1)


def test_a_changed_network_is_only_exported_again():
    network = sequence(
        nn.Conv2d(1, 4, 5, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(4, eps=0.5, affine=False),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.AvgPool2d(2, stride=1),
        nn.Conv2d(4, 6, 1, groups=2),
        nn.Flatten(),
        nn.Linear(6 * 5 * 5, 10, bias=False),
    )
    table, _ = describe(network)
    kinds = [layer["kind"] for layer in table["layers"][1:]]
    assert kinds[:5] == ["convolution", "batch norm", "ReLU", "max-pooling", "average pooling"]
    assert kinds[5:] == ["convolution", "linear layer", "log-softmax"]


FIRST = nn.Conv2d(1, 10, 3)
UNKNOWN = "the engine does not know .*"
REFUSED = {
    "sigmoid": (Other(torch.sigmoid), f"{UNKNOWN}sigmoid"),
    "add": (Other(lambda maps: maps + 1), f"{UNKNOWN}add"),
    "leaky ReLU": (Other(F.leaky_relu), f"{UNKNOWN}leaky_relu"),
    "mean": (Other(lambda maps: maps.mean((2, 3), True).expand(-1, -1, 26, 26)), f"{UNKNOWN}mean"),
    "branch": (Other(lambda maps: [F.relu(maps), maps][1]), "not a plain sequence"),
    "no end": (nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), "must end in log-softmax"),
    "dilation": (sequence(nn.Conv2d(1, 10, 3, dilation=2), nn.AvgPool2d(24)), "has an option"),
    "padding": (sequence(FIRST, nn.AvgPool2d(2, padding=1), nn.AvgPool2d(14)), "has an option"),
    "ceil mode": (sequence(FIRST, nn.MaxPool2d(3, ceil_mode=True), nn.AvgPool2d(9)), "an option"),
    "reflection": (
        sequence(nn.Conv2d(1, 10, 3, padding=1, padding_mode="reflect"), nn.AvgPool2d(28)),
        "",
    ),
    "no statistics": (
        sequence(FIRST, nn.BatchNorm2d(10, track_running_stats=False), nn.AvgPool2d(26)),
        "",
    ),
}


@pytest.mark.parametrize(("network", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_network_that_the_table_would_not_describe_is_refused(network, reason):
    with pytest.raises(ValueError, match=f"cannot be exported: .*{reason}"):
        describe(network)


def test_a_network_is_drawn_in_proportion():
    """The image, six convolutions, two poolings and a linear layer."""
    table, _ = describe(model.NetMini())
    drawing = draw_blocks(table["layers"], "NetMini")
    assert 'aria-label="NetMini, from left to right: image: 1 × 28 × 28, convolution' in drawing
    names = re.findall("<title>(.*?)</title>", drawing)
    assert names[1] == "convolution: 10 × 26 × 26" and names[3] == "max-pooling: 10 × 12 × 12"
    assert names[8:] == ["average pooling: 12", "linear layer: 10"]
    place = r'x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"'
    blocks = np.array(re.findall(place, drawing), dtype=float)
    x, y, width, height = blocks.T
    assert height[:4] == pytest.approx([84, 78, 72, 36])
    assert height[-1] == 6, "none too flat"
    assert y + height / 2 == pytest.approx([42] * 10, abs=0.11), "in one row"
    assert width[[1, 9]] == pytest.approx([3 + 2.2 * 10**0.5] * 2, abs=0.1), "ten maps or numbers"
    assert x[1:] - (x + width)[:-1] == pytest.approx([4] * 9, abs=0.11), "with gaps"
    whole = float(re.search(r'viewBox="0 0 ([\d.]+) 84"', drawing)[1])
    assert whole == pytest.approx(x[-1] + width[-1], abs=0.11), "nothing is cut off"


# --- Links -------------------------------------------------------------------------------------

BLOB = "https://github.com/some-one/mnist-course/blob/main"
TREE = "https://github.com/some-one/mnist-course/tree/main"


@pytest.mark.parametrize(
    ("page", "link", "target"),
    [
        ("S5.ipynb", "GLOSSARY.md#relu", "glossary.md#relu"),
        ("S5.ipynb", "S6.ipynb", "S6.ipynb"),
        ("S5.ipynb", "S6.ipynb#Draw-your-own-digit", "S6.ipynb#draw-your-own-digit"),
        ("S5.ipynb", "#Draw-your-own-digit", "#draw-your-own-digit"),
        ("S5.ipynb", "docs/quiz.md#lesson-5", "quiz5.md"),
        ("S5.ipynb", "docs/quiz.md", f"{BLOB}/docs/quiz.md"),
        ("S5.ipynb", "Test_Images/lens.png", "Test_Images/lens.png"),
        ("S5.ipynb", "website/badges/colab.svg", "website/badges/colab.svg"),
        ("S5.ipynb", "solutions", f"{TREE}/solutions"),
        ("S5.ipynb", "model.py#L10", f"{BLOB}/model.py#L10"),
        ("S5.ipynb", "https://example.org/A#B", "https://example.org/A#B"),
        ("S5.ipynb", "https://some-one.github.io/mnist-course/play.html", "play.md"),
        ("benchmarks/README.md", "../docs/teaching.md", "teaching.md"),
        ("benchmarks/README.md", "results", f"{TREE}/benchmarks/results"),
    ],
)
def test_links_lead_to_the_website_or_to_the_repository(monkeypatch, page, link, target):
    monkeypatch.setattr(build, "current", lambda: "some-one/mnist-course")
    text = build.relink(f"see [this]({link}) and [that]({link}).", page)
    assert text == f"see [this]({target}) and [that]({target})."


# --- The copy ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the course, in place of an earlier one."""
    folder = tmp_path_factory.mktemp("website") / "copy"
    (folder / "_static" / "networks").mkdir(parents=True)
    (folder / "S4.ipynb").write_text("of an earlier copy")
    build.build(folder)
    assert not (folder / "S4.ipynb").exists()
    return folder


def read_copy(copy, lesson):
    return nbformat.read(copy / f"{lesson}.ipynb", as_version=4)


def html_in(copy, lesson):
    """The HTML that the outputs of a lesson's page consist of, each with its cell."""
    for cell in code_cells(read_copy(copy, lesson)):
        for output in cell.outputs:
            yield cell, output.get("data", {}).get("text/html", "")


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit, match="holds something else"):
        build.build(tmp_path)
    assert (tmp_path / "mine.txt").exists()


def test_visitors_get_no_links_to_the_placeholder(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "current", lambda: publish.PLACEHOLDER)
    monkeypatch.setattr(sys, "argv", ["build", str(tmp_path / "copy"), "--deploy"])
    with pytest.raises(SystemExit, match="which nobody can have: run `make publish"):
        build.main()
    assert not (tmp_path / "copy").exists()


def test_the_widgets_scripts_styles_and_values_are_copied(copy):
    static = copy / "_static"
    styles = (static / "widgets.css").read_text(encoding="utf-8")
    widgets = ROOT / "course" / "widgets"
    for name in ["pad", "bench", "lens", "film"]:
        script = (static / "widgets" / f"{name}.js").read_text(encoding="utf-8")
        assert script == Widget.script(widgets / name / f"{name}.js")
        assert (widgets / name / f"{name}.css").read_text(encoding="utf-8") in styles
    assert styles.startswith((widgets / "look.css").read_text(encoding="utf-8"))
    assert read_json(static / "widgets" / "bench.json") == BackpropBench().state()
    film = (static / "widgets" / "film.json").read_bytes()
    assert film == (ROOT / "website" / "film.json").read_bytes()


PLACE = r'<div id="(\w+)" class="live live-\1" data-widget="\1"(?: data-network="(\w+)")?>'
PICTURE = r'<img src="(_static/stills/\S+\.png)" alt="[^"]{20,}">'


def test_a_widget_gets_its_address_picture_and_network(copy):
    """None starts with `Net`, of 2.4 MB: a visitor may choose it."""
    found = []
    for lesson in LESSONS:
        for _, html in html_in(copy, lesson):
            match = re.match(PLACE + PICTURE + "</div>", html)
            if match:
                widget, network, picture = match.groups()
                assert (copy / picture).read_bytes().startswith(b"\x89PNG")
                found.append((lesson, widget, network, "On this page" in html))
    assert found == [
        ("S5", "film", None, False),
        ("S5", "lens", "NetGAP", True),
        ("S6", "bench", None, False),
        ("S6", "pad", "NetGAP", True),
    ]


def test_the_networks_on_the_page_are_listed_with_their_sizes(copy):
    folder = copy / "_static" / "networks"
    listed = {row["name"]: row["text"] for row in read_json(folder / "index.json")}
    assert list(listed) == report.NETWORKS
    assert listed["Net"] == "Net: 593,200 parameters, 2.4 MB"
    assert listed["NetMini"] == "NetMini: 5,797 parameters, 24 kB"
    for name in listed:
        exported = np.fromfile(folder / f"{name}.bin", dtype="<f4")
        first = next(get_trained(getattr(model, name)).parameters()).detach().flatten()
        assert np.array_equal(exported[: len(first)], first), "trained weights"


@each_lesson
def test_outputs_that_are_hidden_in_jupyter_are_folded_on_the_page(copy, lesson):
    cells = zip(code_cells(read(lesson)), code_cells(read_copy(copy, lesson)), strict=True)
    for before, after in cells:
        is_hidden = before.metadata.get("jupyter", {}).get("outputs_hidden", False)
        assert ("hide-output" in after.metadata.get("tags", [])) == is_hidden


def test_exercises_with_numbers_can_be_answered_on_the_page(copy):
    """Their cells keep the code, and get a place for the answers instead of an output."""
    found = []
    for lesson in ["S5", "S6"]:
        for cell, html in html_in(copy, lesson):
            match = re.fullmatch('<div class="answers" data-check="(.*)"></div>', html)
            if match:
                assert f"{match[1]}(" in cell.source
                found.append(match[1])
    assert sorted(found) == sorted(exercises.NUMBERS)
    numbers = read_json(copy / "_static" / "answers.json")
    assert numbers.keys() == set(found)
    middle = numbers["check_convolution"]["middle"]
    assert middle["cases"][0] == [exercises.NUMBERS["check_convolution"]["middle"].right, 0, None]
    assert middle["hint"].startswith("multiply the four numbers")


def test_lesson_6_offers_its_spreadsheet(copy):
    cells = code_cells(nbformat.read(copy / "S6.ipynb", as_version=4))
    (cell,) = [cell for cell in cells if "write_spreadsheet(" in cell.source]
    link = re.search('href="([^"]+)" download', cell.outputs[0].data["text/html"])[1]
    assert (copy / link).read_bytes().startswith(b"PK"), "a zip archive, as Excel writes it"


@each_lesson
def test_a_lesson_can_be_downloaded_as_it_is_beside_its_badges(copy, lesson):
    original = ROOT / f"{lesson}.ipynb"
    assert (copy / "_static" / "lessons" / original.name).read_bytes() == original.read_bytes()
    lines = read_copy(copy, lesson).cells[0].source.splitlines()
    link = f'<a href="_static/lessons/{lesson}.ipynb" download>Download this notebook</a>'
    assert lines.count(link) == 1
    badge, _, after, *_ = lines[lines.index(link) - 1 :]
    assert badge.startswith("[![Open in") and after == ""


@each_lesson
def test_a_page_has_one_title_and_its_sections_keep_their_ranks(copy, lesson):
    def headings(notebook):
        cells = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
        return re.findall(r"^(#+) (.+)$", "\n".join(cells), re.MULTILINE)

    after = headings(read_copy(copy, lesson))
    assert [text for _, text in after] == [text for _, text in headings(read(lesson))]
    assert [marks for marks, _ in after].count("#") == 1
    expected = {"S5": {"2. The data": 2, "Softmax": 3}, "S6": {"Setup": 2, "Touch it": 3}}
    assert expected.get(lesson, {}).items() <= {text: len(marks) for marks, text in after}.items()


def test_pages_keep_their_anchors_and_show_the_results(copy):
    glossary = (copy / "glossary.md").read_text(encoding="utf-8")
    assert "[]{#relu}" in glossary and "<a id" not in glossary
    text = (copy / "benchmarks.md").read_text(encoding="utf-8")
    assert all(line in text for line in report.accuracy_table()[2:])


@pytest.mark.parametrize("lesson", [5, 6])
def test_the_quiz_of_a_lesson_is_a_page(copy, lesson):
    lines = (copy / f"quiz{lesson}.md").read_text(encoding="utf-8").splitlines()
    quiz = read_quiz((ROOT / "docs" / "quiz.md").read_text(encoding="utf-8"))
    asked = [f"### {each.number}. {each.text}" for each in quiz if each.lesson == lesson]
    assert lines[0] == f"# Quiz for lesson {lesson}"
    assert [line for line in lines if line.startswith("### ")] == asked != []


def test_the_landing_page_shows_measured_figures(copy):
    text = (copy / "index.md").read_text(encoding="utf-8")
    assert "{{" not in text
    assert "\nLesson 5 <S5>\nLesson 6 <S6>\n" in text
    assert text.count("<svg ") == 3
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    figures = re.findall(r"<br>([\d,]+) parameters<br>([\d.]+ ± [\d.]+ %)", text)
    assert len(figures) == 3
    for parameters, accuracy in figures:
        assert re.search(rf"\| {parameters} \|.*{re.escape(accuracy)}", readme)
    seeds = [len(report.read(f"accuracy-{name}")["runs"]) for name in ["Net", "NetGAP"]]
    assert f"of {seeds[0]} to {seeds[1]}\nruns" in text
    plain = report.mean_and_spread(report.accuracies(report.read("accuracy-Net-plain")))
    assert f"is trained with simpler ones, and reaches {plain}." in text


# --- The saved lessons -------------------------------------------------------------------------


@each_lesson
def test_each_picture_says_what_it_shows(lesson):
    for cell in code_cells(read(lesson)):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt.split()) >= 5, f"{cell.id} needs an alt text"
            assert not re.search('[<>"&]', alt)


def test_the_film_is_that_of_the_saved_lesson():
    film = read_json(ROOT / "website" / "film.json")
    pattern = r"Epoch +\d+: training ([\d.]+) %.*? test ([\d.]+) %"
    accuracies = re.findall(pattern, printed(read("S5")))
    curves = zip(film["curves"]["train_acc"], film["curves"]["test_acc"], strict=True)
    assert [(f"{training:.2f}", f"{test:.2f}") for training, test in curves] == accuracies
    whole_epochs = [epoch for epoch, step in film["times"] if step == 0]
    assert whole_epochs == list(range(len(accuracies) + 1))
