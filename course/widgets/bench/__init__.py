"""The network of lesson 6, part 1, to touch: drag a weight; the error and gradients follow.

    bench = BackpropBench(inputs, weights, targets)

It works in JupyterLab, Jupyter Notebook 7, VS Code and Colab, with mouse, finger and keyboard.
bench.js computes and draws; this file holds what Python and the page share.
"""

from pathlib import Path

import torch
import traitlets

from course.widgets.look import Widget

WEIGHTS = [0.15, 0.20, 0.25, 0.30, 0.40, 0.45, 0.50, 0.55]  # w1 ... w8 in lesson 6


class BackpropBench(Widget):
    """A widget with the 2-2-2 network. Read or set `bench.weights` and `bench.learning_rate`."""

    _esm = Widget.script(Path(__file__).parent / "bench.js")
    _css = Widget.css(Path(__file__).parent / "bench.css")
    preview = "backprop_bench.png"

    inputs = traitlets.List(traitlets.Float()).tag(sync=True)
    targets = traitlets.List(traitlets.Float()).tag(sync=True)
    weights = traitlets.List(traitlets.Float()).tag(sync=True)
    start = traitlets.List(traitlets.Float()).tag(sync=True)  # where Rewind leads
    learning_rate = traitlets.Float().tag(sync=True)
    past = traitlets.List(traitlets.Float()).tag(sync=True)  # the error before each step
    has_gradients = traitlets.Bool(False).tag(sync=True)  # whether the page shows them

    def __init__(
        self, inputs=(0.05, 0.10), weights=WEIGHTS, targets=(0.01, 0.99), learning_rate=1.0
    ):
        super().__init__(
            inputs=list(inputs),
            targets=list(targets),
            weights=list(weights),
            start=list(weights),
            learning_rate=learning_rate,
        )

    @traitlets.validate("inputs", "targets", "weights")
    def _check(self, proposal):
        name = proposal["trait"].name
        numbers = proposal["value"]
        count = 2 if name in ("inputs", "targets") else 8
        if len(numbers) != count or not all(-1e6 < number < 1e6 for number in numbers):
            raise ValueError(f"{name} must be {count} numbers, got {numbers}")
        return numbers

    @traitlets.validate("learning_rate")
    def _check_rate(self, proposal):
        if not 0 <= proposal["value"] <= 1000:
            raise ValueError(
                f"learning_rate must be a number from 0 to 1000, got {proposal['value']}"
            )
        return proposal["value"]

    @property
    def error(self):
        """The error E of the present weights."""
        return self._compute_error(torch.tensor(self.weights, dtype=torch.float64)).item()

    @property
    def gradients(self):
        """The derivatives of the error with respect to w1 ... w8, by autograd."""
        weights = torch.tensor(self.weights, dtype=torch.float64, requires_grad=True)
        self._compute_error(weights).backward()
        return weights.grad.tolist()

    def _compute_error(self, weights):
        inputs, targets = torch.tensor([self.inputs, self.targets], dtype=torch.float64)
        hidden = torch.sigmoid(weights[:4].view(2, 2) @ inputs)
        outputs = torch.sigmoid(weights[4:].view(2, 2) @ hidden)
        return ((targets - outputs) ** 2).sum() / 2
