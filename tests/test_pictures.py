"""The pictures of the measurements: what is read from the results, and where it is drawn."""

import json

import pytest

from benchmarks import pictures, report

ROW = {"network": "A", "recipe": "", "parameters": 5000, "epochs": 3, "accuracies": [99.3, 99.5]}
PUBLISHED = {"kind": "one run", "parameters": 9000, "accuracy": 99.0}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes made-up results, which are read in place of the measured ones."""
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    return lambda name, content: (tmp_path / f"{name}.json").write_text(json.dumps(content))


def texts(artists):
    return [artist.get_text() for artist in artists]


def test_the_measurements_are_those_of_the_table_and_the_smallest_network_comes_first(
    write, monkeypatch
):
    runs = [{"correct": 9930, "images": 10_000}, {"correct": 9950, "images": 10_000}]
    record = {"recipe": {"epochs": 3}, "runs": runs}
    write("accuracy-A", record | {"parameters": 5000})
    write("accuracy-B-short", record | {"parameters": 100})
    write("accuracy-C", record | {"parameters": 9000})
    monkeypatch.setattr(report, "TABLE", ["C", "A", "B-short"])
    write("published", [PUBLISHED, PUBLISHED | {"parameters": 70}])
    ours, published = pictures.get_measurements()
    small = ROW | {"network": "B", "recipe": "short", "parameters": 100}
    assert ours == [small, ROW, ROW | {"network": "C", "parameters": 9000}]
    assert published == [PUBLISHED | {"parameters": 70}, PUBLISHED]


def test_the_ablation_is_read_from_its_runs(write):
    runs = []
    for variant, parameters, correct in [("A", 5000, 9930), ("B", 5, 8000), ("A", 5000, 9950)]:
        run = {"variant": variant, "parameters": parameters}
        runs.append(run | {"correct": correct, "images": 10_000})
    write("ablation", {"recipe": {"epochs": 3}, "runs": runs})
    other = ROW | {"network": "B", "parameters": 5, "accuracies": [80.0]}
    assert pictures.get_ablation() == [ROW, other]


def test_without_the_repository_there_are_no_measurements(write, capsys, figures):
    ours, published = pictures.get_measurements()
    assert "They are part of the course's repository" in capsys.readouterr().out
    pictures.plot_seeds(ours)
    pictures.plot_accuracy_and_size(ours, published)
    pictures.plot_seeds(pictures.get_ablation())
    assert "ablation.json does not exist" in capsys.readouterr().out
    assert figures == []


def points(ax):
    """Where the dots stand, and where the diamonds or circles for the means do."""
    dots = [place for group in ax.collections for place in group.get_offsets().tolist()]
    return dots, [bar.lines[0].get_xydata()[0].tolist() for bar in ax.containers]


def test_every_seed_is_a_dot_and_every_mean_a_diamond(figures):
    """By hand: the deviation of 99.3 and 99.5 is 0.1 · √2."""
    short = ROW | {"network": "B", "recipe": "short", "accuracies": [99.4]}
    bad = ROW | {"network": "C", "accuracies": [25.0, 25.2]}
    pictures.plot_seeds([ROW, short, bad], digits="validation")
    (ax,) = figures[0].axes
    dots, means = points(ax)
    assert all(dot in dots for dot in [[99.3, 0], [99.5, 0], [99.4, 1]])
    assert means == [[pytest.approx(99.4), 0], [99.4, 1]]
    (whisker,) = ax.containers[0].lines[2][0].get_segments()
    assert whisker[:, 0] == pytest.approx([99.4 - 0.02**0.5, 99.4 + 0.02**0.5])
    assert texts(ax.texts) == ["99.40 ± 0.14 %", "99.40 %", "◀ 25.10 ± 0.14 %"]
    assert ax.get_xlim()[0] > 97, "what is far below does not stretch the axis"
    assert texts(ax.get_yticklabels())[:2] == [
        "A\n5,000 parameters, 3 epochs",
        "B, short recipe\n5,000 parameters, 3 epochs",
    ]
    assert ax.get_xlabel() == "accuracy on validation digits after the last epoch (%)"
    bottom, top = ax.get_ylim()
    assert all(bottom < text.get_position()[1] < top for text in ax.texts)


def test_networks_stand_where_their_size_and_accuracy_are(figures):
    larger = ROW | {"network": "B", "parameters": 7000, "accuracies": [99.4]}
    best = {"kind": "best epoch", "parameters": 9000, "accuracy": 99.1}
    pictures.plot_accuracy_and_size([ROW, larger, ROW | {"recipe": "short"}], [PUBLISHED, best])
    (ax,) = figures[0].axes
    dots, means = points(ax)
    assert means == [[5000, pytest.approx(99.4)], [7000, 99.4]]
    assert [9000, 99.1] in dots and [9000, 99.0] in dots
    assert texts(ax.get_legend().texts) == ["published, best epoch", "published, one run"]
    assert texts(ax.texts) == ["A\n99.40 %", "B\n99.40 %"]
    assert ax.get_xscale() == "log"


@pytest.mark.parametrize(("neighbour", "side"), [(7000, "right"), (10_000, "left")])
def test_a_name_makes_room_for_a_neighbour_on_its_right(figures, neighbour, side):
    """Text that ends on the right of its place stands on the left of the dot."""
    pictures.plot_accuracy_and_size([ROW], [PUBLISHED | {"parameters": neighbour}])
    (name,) = figures[0].axes[0].texts
    assert name.get_ha() == side
    assert (name.xyann[0] < 0) == (side == "right")


def test_the_courses_own_measurements_are_all_inside_the_axes(figures):
    ours, published = pictures.get_measurements()
    pictures.plot_accuracy_and_size(ours, published)
    left, right = figures[0].axes[0].get_xlim()
    assert ours and published
    assert all(left < row["parameters"] < right for row in [*ours, *published])
