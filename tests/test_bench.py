"""The bench in Python; what happens in the browser is tested in tests/browser/test_bench_js.py."""

import pytest

from course.widgets.bench import BackpropBench


def test_it_knows_the_error_and_the_gradients_of_its_weights():
    """The numbers are those of lesson 6's table."""
    bench = BackpropBench()
    assert round(bench.error, 6) == 0.242520
    assert [round(slope, 9) for slope in bench.gradients] == [
        0.000188256, 0.000376511, 0.000224813, 0.000449627,
        0.072157073, 0.072690745, -0.042455250, -0.042769248,
    ]  # fmt: skip
    bench.weights = [0.15, 0.20, 0.25, 0.30, 0.80, 0.45, 0.50, 0.55]
    assert bench.error > 0.2426 and bench.start[4] == 0.40, "Rewind still leads to the start"


def test_its_page_and_the_website_start_with_the_lessons_variables():
    weights = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    bench = BackpropBench([0.9, 0.1], weights, [1, 0], learning_rate=0)
    assert bench.state() == {
        "inputs": [0.9, 0.1],
        "targets": [1.0, 0.0],
        "weights": weights,
        "start": weights,
        "learning_rate": 0.0,
        "past": [],
        "has_gradients": False,
    }


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("weights", [0.1] * 7, "weights must be 8 numbers"),
        ("inputs", [0.1], "inputs must be 2 numbers"),
        ("targets", [0.1, float("nan")], "targets must be 2 numbers"),
        ("inputs", [-2e6, 0.1], "inputs must be 2 numbers"),
        ("inputs", [0.1, 2e6], "inputs must be 2 numbers"),
        ("learning_rate", 1001, "learning_rate must be a number from 0 to 1000"),
        ("learning_rate", -1, "learning_rate must be a number from 0 to 1000"),
    ],
)
def test_wrong_numbers_are_refused(name, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        BackpropBench(**{name: value})
    bench = BackpropBench(learning_rate=1000)
    before = getattr(bench, name)
    with pytest.raises(ValueError, match=sentence):
        setattr(bench, name, value)
    assert getattr(bench, name) == before
