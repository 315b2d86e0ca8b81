"""The website's copy of the course: exported networks, links, widgets, alt texts.

What a visitor's browser does with it is tested in tests/browser/test_site.py.
"""

import json
import re

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import HERE, code_cells, each_lesson, read
from torch import nn

from benchmarks import report
from course.widgets.bench import BackpropBench
from course.checkpoints import get_trained
from course.widgets.look import Widget
from model import Net, NetFC, NetGAP, NetMini
from website import build
from website.drawing import draw_network
from website.networks import describe, export


class Other(nn.Module):
    """A network of one's own: some layers, then what `forward` does with them."""

    def __init__(self, forward, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.compute = forward

    def forward(self, x):
        return F.log_softmax(self.compute(x, *self.layers).flatten(1), dim=1)


def mean_of_maps(x, convolution):
    return F.avg_pool2d(convolution(x), 26)


@pytest.mark.parametrize("Network", [Net, NetGAP, NetFC, NetMini])
def test_all_weights_are_exported(Network, tmp_path):
    network = get_trained(Network)
    export(network, tmp_path)
    table = json.loads((tmp_path / f"{Network.__name__}.json").read_text())
    weights = np.fromfile(tmp_path / f"{Network.__name__}.bin", dtype="<f4")
    expected = [
        tensor for name, tensor in network.state_dict().items() if "num_batches" not in name
    ]
    expected = np.concatenate([tensor.numpy().ravel() for tensor in expected])
    assert np.array_equal(np.sort(weights), np.sort(expected))
    assert table["layers"][0]["offset"] == len(weights), (
        "the results of the layers come after the weights"
    )
    last = table["layers"][-1]
    assert last["shape"] == [1, 1, 10] and table["size"] == last["offset"] + 10
    assert len(table["views"]) == 16 and set(table["views"][0]) == {"angle", "shift", "scale"}


def test_a_changed_network_is_only_exported_again():
    layers = [
        nn.Conv2d(1, 4, 5, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(4, eps=0.5, affine=False),
    ]
    layers += [nn.MaxPool2d(3, stride=2), nn.AvgPool2d(2, stride=1), nn.Conv2d(4, 6, 1, groups=2)]
    layers += [nn.Linear(6 * 5 * 5, 10, bias=False)]
    table, _ = describe(
        Other(lambda x, a, b, c, d, e, f: f(e(d(c(F.relu(b(a(x)))))).flatten(1)), *layers)
    )
    kinds = [layer["kind"] for layer in table["layers"][1:]]
    assert kinds[:5] == ["convolution", "batch norm", "ReLU", "max-pooling", "average pooling"]
    assert kinds[5:] == ["convolution", "linear layer", "log-softmax"]


@pytest.mark.parametrize(
    ("forward", "layers", "unknown"),
    [
        (
            lambda x, a: mean_of_maps(x, lambda x: torch.sigmoid(a(x))),
            [nn.Conv2d(1, 10, 3)],
            "sigmoid",
        ),
        (lambda x, a: mean_of_maps(x, lambda x: a(x) + 1), [nn.Conv2d(1, 10, 3)], "add"),
        (
            lambda x, a: mean_of_maps(x, lambda x: F.leaky_relu(a(x))),
            [nn.Conv2d(1, 10, 3)],
            "leaky_relu",
        ),
        (lambda x, a: a(x).mean(dim=(2, 3)), [nn.Conv2d(1, 10, 3)], "mean"),
    ],
)
def test_a_layer_that_the_engine_does_not_know_is_refused(forward, layers, unknown):
    with pytest.raises(
        ValueError, match=f"Other cannot be exported: the engine does not know .*{unknown}"
    ):
        describe(Other(forward, *layers))


@pytest.mark.parametrize(
    ("forward", "layers"),
    [
        (lambda x, a: F.avg_pool2d(a(x), 24), [nn.Conv2d(1, 10, 3, dilation=2)]),
        (
            lambda x, a, p: F.avg_pool2d(p(a(x)), 14),
            [nn.Conv2d(1, 10, 3), nn.AvgPool2d(2, padding=1)],
        ),
        (
            lambda x, a, p: F.avg_pool2d(p(a(x)), 9),
            [nn.Conv2d(1, 10, 3), nn.MaxPool2d(3, ceil_mode=True)],
        ),
        (
            lambda x, a: F.avg_pool2d(a(x), 28),
            [nn.Conv2d(1, 10, 3, padding=1, padding_mode="reflect")],
        ),
        (lambda x, a: [F.relu(a(x)), mean_of_maps(x, a)][1], [nn.Conv2d(1, 10, 3)]),
        (
            lambda x, a, b: mean_of_maps(x, lambda x: b(a(x))),
            [nn.Conv2d(1, 10, 3), nn.BatchNorm2d(10, track_running_stats=False)],
        ),
    ],
)
def test_a_network_that_the_table_would_not_describe_is_refused(forward, layers):
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="Other cannot be exported"):
        describe(Other(forward, *layers))


def test_exporting_leaves_the_network_as_it_is():
    network = NetGAP().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    describe(network)
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("GLOSSARY.md#relu", "glossary.md#relu"),
        ("S6.ipynb", "S6.ipynb"),
        ("benchmarks/README.md#speed", "benchmarks.md#speed"),
        ("#Draw-your-own-digit", "#draw-your-own-digit"),
        ("Test_Images/lens.png", "Test_Images/lens.png"),
        ("website/badges/colab.svg", "website/badges/colab.svg"),
        (
            "solutions/S5.ipynb",
            "https://github.com/OWNER/mnist-course/blob/main/solutions/S5.ipynb",
        ),
        ("solutions", "https://github.com/OWNER/mnist-course/tree/main/solutions"),
        ("https://example.org/A#B", "https://example.org/A#B"),
    ],
)
def test_links_lead_to_the_website_or_to_the_repository(monkeypatch, link, target):
    monkeypatch.setattr(build, "current", lambda: "OWNER/mnist-course")
    assert build.relink(f"see [this]({link}).", "S5.ipynb") == f"see [this]({target})."


def test_links_of_a_page_in_a_folder(monkeypatch):
    monkeypatch.setattr(build, "current", lambda: "OWNER/mnist-course")
    text = build.relink(
        "[recipes](../course/recipes.py), [results](results)", "benchmarks/README.md"
    )
    where = "https://github.com/OWNER/mnist-course"
    assert (
        text
        == f"[recipes]({where}/blob/main/course/recipes.py), [results]({where}/tree/main/benchmarks/results)"
    )


@each_lesson
def test_each_picture_says_what_it_shows(lesson):
    for cell in code_cells(read(lesson)):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt.split()) >= 5, f"{cell.id} needs an alt text"
            assert not re.search('[<>"&]', alt)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
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


def test_the_copy_is_complete_and_the_lessons_stay_as_they_are(copy):
    for lesson, widgets in {"S5": ["film", "lens"], "S6": ["bench", "pad"]}.items():
        original, changed = HERE / f"{lesson}.ipynb", copy / f"{lesson}.ipynb"
        assert (copy / "_static" / "lessons" / original.name).read_bytes() == original.read_bytes()
        notebook = nbformat.read(changed, as_version=4)
        html = [
            output.data["text/html"]
            for cell in code_cells(notebook)
            for output in cell.outputs
            if "live" in output.get("data", {}).get("text/html", "")
        ]
        assert [re.search('data-widget="(.*?)"', place)[1] for place in html] == widgets
        for place in html:
            picture = re.search(r'<img src="(_static/stills/\S+\.png)" alt="[^"]{20,}">', place)[1]
            assert (copy / picture).read_bytes().startswith(b"\x89PNG")
    for widget, folder in {
        "pad": "pad",
        "bench": "bench",
        "lens": "lens",
        "film": "film",
    }.items():
        script = copy / "_static" / "widgets" / f"{widget}.js"
        source = HERE / "course" / "widgets" / folder / f"{widget}.js"
        assert script.read_text(encoding="utf-8") == Widget.script(source)
    assert (
        json.loads((copy / "_static" / "widgets" / "bench.json").read_text())
        == BackpropBench().state()
    )
    film = (copy / "_static" / "widgets" / "film.json").read_bytes()
    assert film == (HERE / "website" / "film.json").read_bytes()
    styles = (copy / "_static" / "widgets.css").read_text(encoding="utf-8")
    for name in [
        "look.css",
        "pad/pad.css",
        "bench/bench.css",
        "lens/lens.css",
        "film/film.css",
    ]:
        assert (HERE / "course" / "widgets" / name).read_text(encoding="utf-8") in styles


def test_a_widget_gets_its_network_and_a_large_one_waits(copy):
    """Only `Net`, of 2.4 MB, is not loaded before a visitor asks for it."""
    text = "".join(
        (copy / f"{lesson}.ipynb").read_text(encoding="utf-8") for lesson in ["S5", "S6"]
    )
    text = text.replace('\\"', '"')
    found = {}
    for widget, inside, rest in re.findall(
        r'<div class="live live-(\w+)"(.*?)</div>(.{,99})', text
    ):
        network = re.search('data-network="(.*?)"', inside)
        buttons = re.findall("<button>(.*?)</button>", inside)
        found[widget] = network and network[1], buttons, "On this page" in rest
    assert found == {
        "film": (None, [], False),
        "lens": ("Net", ["Wake it up (2.4 MB)"], True),
        "bench": (None, [], False),
        "pad": ("NetGAP", [], True),
    }


def test_the_networks_on_the_page_are_the_trained_ones(copy):
    listed = json.loads((copy / "_static" / "networks" / "index.json").read_text())
    assert [row["name"] for row in listed] == report.NETWORKS
    texts = [row["text"] for row in listed]
    assert (
        texts[0] == "Net: 593,200 parameters, 2.4 MB"
        and "NetMini: 5,797 parameters, 24 kB" in texts
    )
    for row in listed:
        exported = np.fromfile(copy / "_static" / "networks" / f"{row['name']}.bin", dtype="<f4")
        trained = torch.load(HERE / "checkpoints" / f"{row['name']}.pt", weights_only=True)
        assert np.array_equal(exported[:9], next(iter(trained.values())).flatten()[:9].numpy())


@each_lesson
def test_a_lesson_can_be_downloaded_beside_its_badges(copy, lesson):
    lines = nbformat.read(copy / f"{lesson}.ipynb", as_version=4).cells[0].source.splitlines()
    link = f'<a href="_static/lessons/{lesson}.ipynb" download>Download this notebook</a>'
    assert lines.count(link) == 1
    assert (
        lines[lines.index(link) - 1].startswith("[![Open in") and not lines[lines.index(link) + 1]
    )


def test_pages_keep_their_anchors_and_show_the_results(copy):
    glossary = (copy / "glossary.md").read_text(encoding="utf-8")
    assert "[]{#relu}" in glossary and "<a id" not in glossary
    before, after = (
        (copy / "benchmarks.md").read_text(encoding="utf-8").split("## How the recipes were found")
    )
    assert all(line in before and line not in after for line in report.accuracy_table()[2:])


def test_the_landing_page_shows_measured_figures(copy):
    text = (copy / "index.md").read_text(encoding="utf-8")
    assert "{{" not in text
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    figures = re.findall(r"<br>([\d,]+) parameters<br>([\d.]+ ± [\d.]+ %)", text)
    assert len(figures) == 3
    for parameters, accuracy in figures:
        assert re.search(rf"\| {parameters} \|.*{re.escape(accuracy)}", readme)
    seeds = [len(report.read(f"accuracy-{name}")["runs"]) for name in ["Net", "NetGAP"]]
    assert f"of {seeds[0]} to {seeds[1]}\nruns" in text
    plain = report.mean_and_spread(report.accuracies(report.read("accuracy-Net-plain")))
    assert f"is trained with simpler ones, and reaches {plain}." in text


def test_the_film_is_that_of_the_saved_lesson():
    film = json.loads((HERE / "website" / "film.json").read_text(encoding="utf-8"))
    printed = "".join(
        output.get("text", "") for cell in code_cells(read("S5")) for output in cell.outputs
    )
    accuracies = re.findall(r"Epoch +\d+: training ([\d.]+) %.*? test ([\d.]+) %", printed)
    curves = zip(film["curves"]["train_acc"], film["curves"]["test_acc"])
    assert [(f"{training:.2f}", f"{test:.2f}") for training, test in curves] == accuracies
    assert len(film["answers"]) == len(accuracies) + 1


def test_a_network_is_drawn_in_proportion():
    table, _ = describe(NetMini())
    drawing = draw_network(table["layers"], "NetMini")
    blocks = [
        (float(w), float(h)) for w, h in re.findall(r'width="([\d.]+)" height="([\d.]+)"', drawing)
    ]
    names = re.findall("<title>(.*?)</title>", drawing)
    assert len(blocks) == len(names) == 10, (
        "the image, six convolutions, two poolings and a linear layer"
    )
    assert names[0] == "image: 1 × 28 × 28" and names[1] == "convolution: 10 × 26 × 26"
    assert names[3] == "max-pooling: 10 × 12 × 12" and names[-1] == "linear layer: 10"
    heights = [height for _, height in blocks]
    assert heights[:4] == pytest.approx([84, 78, 72, 36]) and heights == sorted(
        heights, reverse=True
    )
    assert blocks[1][0] > blocks[0][0] and blocks[9][0] == blocks[1][0], "ten maps, ten numbers"
    starts = [float(x) for x in re.findall(r'x="([\d.]+)" y=', drawing)]
    gaps = [b - a - width for a, b, (width, _) in zip(starts, starts[1:], blocks)]
    assert gaps == pytest.approx([4] * 9, abs=0.11)
    assert float(re.search(r'viewBox="0 0 ([\d.]+) 84"', drawing)[1]) == pytest.approx(
        starts[-1] + blocks[-1][0], abs=0.11
    ), "nothing is cut off"
    tops = [float(y) for y in re.findall(r' y="([\d.]+)"', drawing)]
    middles = [top + height / 2 for top, height in zip(tops, heights)]
    assert middles == pytest.approx([42] * 10, abs=0.11) and heights[-1] == 6, (
        "in one row, none too flat"
    )
    colours = dict(zip([name.split(":")[0] for name in names], re.findall('fill="(.*?)"', drawing)))
    assert colours["max-pooling"] == colours["average pooling"] and len(set(colours.values())) == 4
    assert 'aria-label="NetMini, from left to right: image: 1 × 28 × 28, convolution' in drawing


@each_lesson
def test_a_page_has_one_title_and_its_sections_keep_their_ranks(copy, lesson):
    def headings(path):
        cells = [
            cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"
        ]
        return re.findall(r"^(#+) (.+)$", "\n".join(cell.source for cell in cells), re.MULTILINE)

    before, after = headings(HERE / f"{lesson}.ipynb"), headings(copy / f"{lesson}.ipynb")
    assert [text for _, text in before] == [text for _, text in after]
    assert [marks for marks, _ in after].count("#") == 1
    ranks = {
        "S5": {"2. The data": 2, "Softmax": 3},
        "S6": {"Setup": 2, "Touch it": 3, "Exercises": 3},
    }[lesson]
    assert {text: len(marks) for marks, text in after if text in ranks} == ranks
