"""The pictures of lesson 6, part 1."""

import pytest

from course.backprop import draw_network, plot_errors, plot_landscape, print_table

NODES = {"i1": (0, 0), "i2": (0, -1), "h1": (1, 0), "h2": (1, -1), "o1": (2, 0), "o2": (2, -1)}
WAYS = ["i1 h1", "i2 h1", "i1 h2", "i2 h2", "h1 o1", "h2 o1", "h1 o2", "h2 o2"]  # of w1 ... w8
WAYS = [[NODES[name] for name in way.split()] for way in WAYS]


@pytest.fixture
def network(figures):
    """The axes with the network whose weights are 0.1 ... 0.8."""
    paths = [["w1", "w5"], ["w1", "w7"]]
    draw_network([0.05, 0.1], [n / 10 for n in range(1, 9)], [0.01, 0.99], paths)
    (ax,) = figures[0].axes
    return ax


def test_each_weight_stands_on_its_connection_and_paths_are_coloured(network):
    lines = [[tuple(point) for point in line.get_xydata().round()] for line in network.lines]
    assert lines == [*WAYS, WAYS[0], WAYS[4], WAYS[0], WAYS[6]]
    colours = [line.get_color() for line in network.lines[7:]]
    assert colours[1] == colours[2] and colours[3] == colours[4]
    assert len(set(colours)) == 3, "the connections are grey, and each path has a colour"
    labels = [text for text in network.texts if text.get_text().startswith("w")]
    assert [label.get_text() for label in labels] == [f"w{n} = 0.{n}0" for n in range(1, 9)]
    for label, ((x1, y1), (x2, y2)) in zip(labels, WAYS):
        x, y = label.get_position()
        assert x1 < x < x2
        assert y == pytest.approx(y1 + (x - x1) * (y2 - y1))
    assert len({text.get_position() for text in labels}) == 8, "no two labels meet"


def test_nodes_and_targets_stand_where_they_belong_and_nothing_is_cut_off(network):
    circles = {tuple(dots.get_offsets()[0].tolist()) for dots in network.collections}
    assert circles == set(NODES.values())
    places = {text.get_text(): text.get_position() for text in network.texts}
    names = {text.split("\n")[0]: place for text, place in places.items()}
    assert names.items() >= NODES.items()
    assert places["i1\n0.05"] == NODES["i1"] and places["i2\n0.10"] == NODES["i2"]
    assert places["target t1 = 0.01"][1] == 0 and places["target t2 = 0.99"][1] == -1
    left, right = network.get_xlim()
    bottom, top = network.get_ylim()
    assert all(left < x < right and bottom < y < top for x, y in places.values())


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


def test_a_table_has_a_column_for_each_heading(capsys):
    print_table(["step", "w1", "E"], [[0, 0.15, 0.2425], [10, -1.0, 0.00004]], decimals=3)
    print_table(["", "x"], [["a word", 1]])
    first, second, third, *others = capsys.readouterr().out.splitlines()
    assert [first, second, third] == [
        "step      w1      E",
        "   0   0.150  0.242",
        "  10  -1.000  0.000",
    ]
    assert others == ["        x", "a word  1"]


def test_the_landscape_shows_each_descent_where_it_went(figures):
    paths = {0.5: [(1.0, 2.0), (0.5, 1.0)], 2.0: [(1.0, 2.0), (-1.0, -2.0), (0.0, 0.0)]}
    asked = []

    def error(w5, w7):
        asked.append((w5, w7))
        return w5**2 + w7**2

    plot_landscape(error, paths)
    assert max(w5 for w5, _ in asked) == 1.5 and max(w7 for _, w7 in asked) == 2.5
    panels = [ax for ax in figures[0].axes if ax.get_title()]
    assert [ax.get_title() for ax in panels] == ["learning rate 0.5", "learning rate 2.0"]
    for ax, path in zip(panels, paths.values()):
        assert [tuple(point) for point in ax.lines[0].get_xydata()] == path
        (low, high), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        assert low <= -1.5 and high >= 1.5 and bottom <= -2.5 and top >= 2.5, "all of it is seen"
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("w5", "w7")
