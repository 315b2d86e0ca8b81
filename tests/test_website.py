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
from helpers import LESSONS, ROOT, code_cells, each_lesson, read, same
from torch import nn

import model
from benchmarks import report
from course import exercises
from course.checkpoints import get_trained
from course.widgets.bench import BackpropBench
from course.widgets.look import Widget
from model import NetGAP, NetMini
from tools import publish
from website import build
from website.drawing import draw_blocks
from website.networks import describe, export
from website.quiz import read_quiz

REPOSITORY = "https://github.com/some-one/mnist-course"


def read_json(*path):
    return json.loads(ROOT.joinpath(*path).read_text(encoding="utf-8"))


# --- Exported networks -------------------------------------------------------------------------


class Other(nn.Module):
    """A network of one's own: what a function makes of a convolution's maps, then their means."""

    def __init__(self, function):
        super().__init__()
        self.convolution = nn.Conv2d(1, 10, 3)
        self.function = function

    def forward(self, x):
        maps = self.function(self.convolution(x))
        return F.log_softmax(F.avg_pool2d(maps, 26).flatten(1), dim=1)


def sequence(*layers):
    return nn.Sequential(*layers, nn.Flatten(), nn.LogSoftmax(dim=1))


@pytest.mark.parametrize("name", ["Net", "NetGAP", "NetFC", "NetMini"])
def test_all_weights_are_exported(name, tmp_path):
    network = get_trained(getattr(model, name))
    export(network, tmp_path)
    weights = np.fromfile(tmp_path / f"{name}.bin", dtype="<f4")
    state = network.state_dict()
    expected = [state[key].flatten() for key in state if "num_batches" not in key]
    assert np.array_equal(np.sort(weights), torch.cat(expected).sort().values)
    table = read_json(tmp_path / f"{name}.json")
    assert table["sha256"] == hashlib.sha256(weights.tobytes()).hexdigest()
    results = sum(math.prod(layer["shape"]) for layer in table["layers"])
    assert table["size"] == len(weights) + results, "results come after the weights"
    assert table["layers"][-1]["shape"] == [1, 1, 10]
    assert len(table["views"]) == 16
    assert set(table["views"][0]) == {"angle", "shift", "scale"}


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


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("sigmoid", torch.sigmoid),
        ("add", lambda maps: maps + 1),
        ("leaky_relu", F.leaky_relu),
        ("mean", lambda maps: maps.mean(dim=(2, 3), keepdim=True).expand(-1, -1, 26, 26)),
    ],
)
def test_a_layer_that_the_engine_does_not_know_is_refused(name, function):
    with pytest.raises(ValueError, match=f"cannot be exported: the engine does not know .*{name}"):
        describe(Other(function))


FIRST = nn.Conv2d(1, 10, 3)


@pytest.mark.parametrize(
    "network",
    [
        sequence(nn.Conv2d(1, 10, 3, dilation=2), nn.AvgPool2d(24)),
        sequence(FIRST, nn.AvgPool2d(2, padding=1), nn.AvgPool2d(14)),
        sequence(FIRST, nn.MaxPool2d(3, ceil_mode=True), nn.AvgPool2d(9)),
        sequence(FIRST, nn.BatchNorm2d(10, track_running_stats=False), nn.AvgPool2d(26)),
        sequence(nn.Conv2d(1, 10, 3, padding=1, padding_mode="reflect"), nn.AvgPool2d(28)),
        Other(lambda maps: [F.relu(maps), maps][1]),
        nn.Sequential(nn.Flatten(), nn.Linear(784, 10)),
    ],
    ids=["dilation", "padding", "ceil_mode", "no statistics", "reflection", "branch", "no end"],
)
def test_a_network_that_the_table_would_not_describe_is_refused(network):
    with pytest.raises(ValueError, match="cannot be exported"):
        describe(network)


def test_exporting_leaves_the_network_as_it_is():
    network = NetGAP().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    describe(network)
    assert network.training
    assert same(dict(network.state_dict()), before)


def test_a_network_is_drawn_in_proportion():
    table, _ = describe(NetMini())
    drawing = draw_blocks(table["layers"], "NetMini")
    assert 'aria-label="NetMini, from left to right: image: 1 × 28 × 28, convolution' in drawing
    names = re.findall("<title>(.*?)</title>", drawing)
    assert len(names) == 10, "the image, six convolutions, two poolings and a linear layer"
    assert names[:2] == ["image: 1 × 28 × 28", "convolution: 10 × 26 × 26"]
    assert names[3] == "max-pooling: 10 × 12 × 12"
    assert names[-2:] == ["average pooling: 12", "linear layer: 10"]
    place = r'x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" rx="2" fill="(.*?)"'
    blocks = re.findall(place, drawing)
    x, y, width, height = np.array([block[:4] for block in blocks], dtype=float).T
    assert height[:4] == pytest.approx([84, 78, 72, 36])
    assert height[-1] == 6, "none too flat"
    assert y + height / 2 == pytest.approx([42] * 10, abs=0.11), "in one row"
    assert width[1] == width[9] == pytest.approx(3 + 2.2 * 10**0.5, abs=0.1), "ten maps or numbers"
    assert width[0] == pytest.approx(5.2)
    assert x[1:] - (x + width)[:-1] == pytest.approx([4] * 9, abs=0.11), "with gaps"
    whole = float(re.search(r'viewBox="0 0 ([\d.]+) 84"', drawing)[1])
    assert whole == pytest.approx(x[-1] + width[-1], abs=0.11), "nothing is cut off"
    colours = {name.split(":")[0]: block[4] for name, block in zip(names, blocks)}
    assert colours["max-pooling"] == colours["average pooling"]
    assert len(set(colours.values())) == 4


# --- Links -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("GLOSSARY.md#relu", "glossary.md#relu"),
        ("S6.ipynb", "S6.ipynb"),
        ("S6.ipynb#Draw-your-own-digit", "S6.ipynb#draw-your-own-digit"),
        ("benchmarks/README.md#speed", "benchmarks.md#speed"),
        ("#Draw-your-own-digit", "#draw-your-own-digit"),
        ("docs/teaching.md", "teaching.md"),
        ("docs/quiz.md#lesson-5", "quiz5.md"),
        ("docs/quiz.md", f"{REPOSITORY}/blob/main/docs/quiz.md"),
        ("Test_Images/lens.png", "Test_Images/lens.png"),
        ("website/badges/colab.svg", "website/badges/colab.svg"),
        ("solutions/S5.ipynb", f"{REPOSITORY}/blob/main/solutions/S5.ipynb"),
        ("solutions", f"{REPOSITORY}/tree/main/solutions"),
        ("model.py#L10", f"{REPOSITORY}/blob/main/model.py#L10"),
        ("https://example.org/A#B", "https://example.org/A#B"),
        ("https://some-one.github.io/mnist-course/play.html", "play.md"),
    ],
)
def test_links_lead_to_the_website_or_to_the_repository(monkeypatch, link, target):
    monkeypatch.setattr(build, "current", lambda: "some-one/mnist-course")
    text = build.relink(f"see [this]({link}) and [that]({link}).", "S5.ipynb")
    assert text == f"see [this]({target}) and [that]({target})."


def test_links_of_a_page_in_a_folder(monkeypatch):
    monkeypatch.setattr(build, "current", lambda: "some-one/mnist-course")
    text = build.relink("[recipes](../train.py), [results](results)", "benchmarks/README.md")
    results = f"{REPOSITORY}/tree/main/benchmarks/results"
    assert text == f"[recipes]({REPOSITORY}/blob/main/train.py), [results]({results})"


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


PLACE = r'<div id="(\w+)" class="live live-\w+" data-widget="(\w+)"(?: data-network="(\w+)")?>'
PICTURE = r'<img src="(_static/stills/\S+\.png)" alt="[^"]{20,}">'


def test_a_widget_gets_its_address_picture_and_network(copy):
    """None starts with `Net`, of 2.4 MB: a visitor may choose it."""
    found = []
    for lesson in LESSONS:
        for cell in code_cells(nbformat.read(copy / f"{lesson}.ipynb", as_version=4)):
            for output in cell.outputs:
                html = output.get("data", {}).get("text/html", "")
                match = re.match(PLACE + PICTURE + "</div>", html)
                if match:
                    anchor, widget, network, picture = match.groups()
                    assert anchor == widget
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
    listed = read_json(folder / "index.json")
    assert [row["name"] for row in listed] == report.NETWORKS
    texts = [row["text"] for row in listed]
    assert texts[0] == "Net: 593,200 parameters, 2.4 MB"
    assert "NetMini: 5,797 parameters, 24 kB" in texts
    for name in report.NETWORKS:
        exported = np.fromfile(folder / f"{name}.bin", dtype="<f4")
        first = next(get_trained(getattr(model, name)).parameters()).detach().flatten()
        assert np.array_equal(exported[: len(first)], first), "trained weights"


@each_lesson
def test_outputs_that_are_hidden_in_jupyter_are_folded_on_the_page(copy, lesson):
    hidden = set()
    for cell in code_cells(read(lesson)):
        if cell.metadata.get("jupyter", {}).get("outputs_hidden"):
            hidden.add(cell.id)
    folded = set()
    for cell in code_cells(nbformat.read(copy / f"{lesson}.ipynb", as_version=4)):
        if "hide-output" in cell.metadata.get("tags", []):
            folded.add(cell.id)
    assert len(hidden) > 4 or lesson not in ["S5", "S6"]
    assert folded == hidden


def test_exercises_with_numbers_can_be_answered_on_the_page(copy):
    """Their cells keep the code, and get a place for the answers instead of an output."""
    found = []
    for lesson in ["S5", "S6"]:
        for cell in code_cells(nbformat.read(copy / f"{lesson}.ipynb", as_version=4)):
            for output in cell.outputs:
                html = output.get("data", {}).get("text/html", "")
                match = re.fullmatch('<div class="answers" data-check="(.*)"></div>', html)
                if match:
                    assert f"{match[1]}(" in cell.source
                    found.append(match[1])
    assert found == list(exercises.NUMBERS)
    numbers = read_json(copy / "_static" / "answers.json")
    assert list(numbers) == found
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
    lines = nbformat.read(copy / f"{lesson}.ipynb", as_version=4).cells[0].source.splitlines()
    link = f'<a href="_static/lessons/{lesson}.ipynb" download>Download this notebook</a>'
    assert lines.count(link) == 1
    badge, _, after, *_ = lines[lines.index(link) - 1 :]
    assert badge.startswith("[![Open in")
    assert after == ""


@each_lesson
def test_a_page_has_one_title_and_its_sections_keep_their_ranks(copy, lesson):
    def headings(path):
        cells = nbformat.read(path, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        return re.findall(r"^(#+) (.+)$", text, re.MULTILINE)

    before = headings(ROOT / f"{lesson}.ipynb")
    after = headings(copy / f"{lesson}.ipynb")
    assert [text for _, text in before] == [text for _, text in after]
    assert [marks for marks, _ in after].count("#") == 1
    ranks = {text: len(marks) for marks, text in after}
    expected = {
        "S5": {"2. The data": 2, "Softmax": 3},
        "S6": {"Setup": 2, "Touch it": 3, "Exercises": 3},
    }
    assert ranks | expected.get(lesson, {}) == ranks


def test_pages_keep_their_anchors_and_show_the_results(copy):
    glossary = (copy / "glossary.md").read_text(encoding="utf-8")
    assert "[]{#relu}" in glossary and "<a id" not in glossary
    text = (copy / "benchmarks.md").read_text(encoding="utf-8")
    before, after = text.split("## How the recipes were found")
    assert all(line in before and line not in after for line in report.accuracy_table()[2:])


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
    film = read_json("website", "film.json")
    outputs = [output for cell in code_cells(read("S5")) for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs)
    accuracies = re.findall(r"Epoch +\d+: training ([\d.]+) %.*? test ([\d.]+) %", printed)
    curves = zip(film["curves"]["train_acc"], film["curves"]["test_acc"])
    assert [(f"{training:.2f}", f"{test:.2f}") for training, test in curves] == accuracies
    assert len(film["answers"]) == len(accuracies) + 1
