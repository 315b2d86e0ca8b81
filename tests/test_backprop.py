"""The pictures of lesson 6, part 1."""

import pytest

from course.backprop import draw_network, plot_errors

NODES = {"i1": (0, 0), "i2": (0, -1), "h1": (1, 0), "h2": (1, -1), "o1": (2, 0), "o2": (2, -1)}
WAYS = ["i1 h1", "i2 h1", "i1 h2", "i2 h2", "h1 o1", "h2 o1", "h1 o2", "h2 o2"]  # of w1 ... w8


@pytest.fixture
def network(figures):
    """The axes with the network whose weights are 0.1 ... 0.8."""
    draw_network([0.05, 0.1], [n / 10 for n in range(1, 9)], [0.01, 0.99])
    (ax,) = figures[0].axes
    return ax


def test_each_weight_stands_on_its_connection(network):
    ways = [[NODES[name] for name in way.split()] for way in WAYS]
    assert [
        [tuple(point) for point in line.get_xydata().tolist()] for line in network.lines
    ] == ways
    labels = [text for text in network.texts if text.get_text().startswith("w")]
    assert [text.get_text() for text in labels] == [f"w{n} = 0.{n}0" for n in range(1, 9)]
    for label, ((x1, y1), (x2, y2)) in zip(labels, ways):
        x, y = label.get_position()
        assert x1 < x < x2
        assert y == pytest.approx(y1 + (x - x1) * (y2 - y1))
    assert len({text.get_position() for text in labels}) == 8, "no two labels meet"


def test_nodes_and_targets_stand_where_they_belong_and_nothing_is_cut_off(network):
    circles = {tuple(dots.get_offsets()[0].tolist()) for dots in network.collections}
    assert circles == set(NODES.values())
    places = {text.get_text(): text.get_position() for text in network.texts}
    names = {text.split("\n")[0]: place for text, place in places.items()}
    assert {name: names[name] for name in NODES} == NODES
    assert places["i1\n0.05"] == NODES["i1"] and places["i2\n0.10"] == NODES["i2"]
    assert places["target t1 = 0.01"][1] == 0 and places["target t2 = 0.99"][1] == -1
    left, right = network.get_xlim()
    bottom, top = network.get_ylim()
    assert all(left < x < right and bottom < y < top for x, y in places.values())
    assert not network.axison


def test_error_graphs_show_the_errors_and_empty_panels_are_hidden(figures):
    curves = {0.1: [0.3, 0.2], 0.2: [0.3, 0.15], 0.5: [0.3, 0.1], 2.0: [0.3, 0.05, 0.1]}
    plot_errors(curves)
    axes = figures[0].axes
    assert [list(ax.lines[0].get_ydata()) for ax in axes[:4]] == list(curves.values())
    assert axes[0].get_title() == "learning rate 0.1: E = 0.2000"
    assert axes[3].get_title() == "learning rate 2.0: E = 0.1000", "the last error, not the lowest"
    assert (axes[3].get_xlabel(), axes[3].get_ylabel()) == ("step", "error E")
    assert [ax.axison for ax in axes] == [True] * 4 + [False] * 2
    assert len({ax.get_ylim() for ax in axes[:4]}) == 1, "one scale, or they cannot be compared"


def test_three_error_graphs_need_one_row(figures):
    plot_errors(dict.fromkeys([0.1, 0.5, 2.0], [0.3, 0.2]))
    assert len(figures[0].axes) == 3
