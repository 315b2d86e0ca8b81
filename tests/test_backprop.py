"""The pictures of lesson 6, part 1."""

from course.backprop import draw_network, plot_errors


def test_network_picture_names_each_weight(figures):
    draw_network([0.05, 0.1], [0.15, 0.2, 0.25, 0.3, 0.4, 0.45, 0.5, 0.55], [0.01, 0.99])
    texts = [text.get_text() for text in figures[0].axes[0].texts]
    weights = ["0.15", "0.20", "0.25", "0.30", "0.40", "0.45", "0.50", "0.55"]
    assert [t for t in texts if t.startswith("w")] == [
        f"w{n} = {w}" for n, w in enumerate(weights, 1)
    ]


def test_error_graphs_have_a_panel_for_each_rate(figures):
    plot_errors({0.1: [0.3, 0.2], 2.0: [0.3, 0.05, 0.1]})
    assert [ax.get_title() for ax in figures[0].axes][:2] == [
        "learning rate 0.1: E = 0.2000",
        "learning rate 2.0: E = 0.1000",
    ], "the last error, even if one before was smaller"
    plot_errors(dict.fromkeys([0.1, 0.5, 2.0], [0.3, 0.2]))
    left = figures[1].axes[0]
    assert len(figures[1].axes) == 3 and (left.get_xlabel(), left.get_ylabel()) == (
        "step",
        "error E",
    )


NODES = {"i1": (0, 0), "i2": (0, -1), "h1": (1, 0), "h2": (1, -1), "o1": (2, 0), "o2": (2, -1)}


def test_each_weight_stands_on_its_connection(figures):
    """w1 leads from i1 to h1, w2 from i2 to h1, and so on."""
    draw_network([0.05, 0.1], [n / 10 for n in range(1, 9)], [0.01, 0.99])
    (ax,) = figures[0].axes
    names = ["i1 h1", "i2 h1", "i1 h2", "i2 h2", "h1 o1", "h2 o1", "h1 o2", "h2 o2"]
    ways = [[NODES[name] for name in pair.split()] for pair in names]
    assert [[tuple(point) for point in line.get_xydata().tolist()] for line in ax.lines] == ways
    labels = [text for text in ax.texts if text.get_text().startswith("w")]
    for label, ((x1, y1), (x2, y2)) in zip(labels, ways):
        x, y = label.get_position()
        assert x1 < x < x2 and abs((y - y1) - (x - x1) / (x2 - x1) * (y2 - y1)) < 1e-9
    places = [text.get_position() for text in labels]
    assert len(set(places)) == 8, "no two labels meet"
    circles = {tuple(dots.get_offsets()[0].tolist()) for dots in ax.collections}
    assert circles == set(NODES.values())
    texts = {text.get_text().split("\n")[0]: text.get_position() for text in ax.texts}
    assert {name: texts[name] for name in NODES} == NODES
    assert (
        texts["target t1 = 0.01"][1] == 0 and texts["target t2 = 0.99"][1] == -1 and not ax.axison
    )
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert all(left < x < right and bottom < y < top for x, y in texts.values()), (
        "nothing is cut off"
    )
    assert "i1\n0.05" in [text.get_text() for text in ax.texts]


def test_error_graphs_show_the_errors_and_empty_panels_are_hidden(figures):
    curves = {0.1: [0.3, 0.2], 0.2: [0.3, 0.15], 0.5: [0.3, 0.1], 2.0: [0.3, 0.05]}
    plot_errors(curves)
    axes = figures[0].axes
    assert [list(ax.lines[0].get_ydata()) for ax in axes[:4]] == list(curves.values())
    assert [ax.axison for ax in axes] == [True] * 4 + [False] * 2
    assert len({ax.get_ylim() for ax in axes[:4]}) == 1, (
        "one scale for all, or they could not be compared"
    )
