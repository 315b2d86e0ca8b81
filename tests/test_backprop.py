"""The pictures of lesson 6, part 1."""

from course.backprop import draw_network, plot_errors


def test_network_picture_names_each_weight(figures):
    draw_network([0.05, 0.1], [0.15, 0.2, 0.25, 0.3, 0.4, 0.45, 0.5, 0.55], [0.01, 0.99])
    texts = [text.get_text() for text in figures[0].axes[0].texts]
    weights = ["0.15", "0.20", "0.25", "0.30", "0.40", "0.45", "0.50", "0.55"]
    assert [t for t in texts if t.startswith("w")] == [f"w{n} = {w}" for n, w in enumerate(weights, 1)]


def test_error_graphs_have_a_panel_for_each_rate(figures):
    plot_errors({0.1: [0.3, 0.2], 2.0: [0.3, 0.1]})
    assert [ax.get_title() for ax in figures[0].axes][:2] == [
        "learning rate 0.1: E = 0.2000",
        "learning rate 2.0: E = 0.1000",
    ]
