"""A lens on a network: point at a cell of a map, and see how it was computed, and from what.

    ConvolutionLens(model, image)

*All maps* shows every map of every layer in small, in the order in which they are computed; a click
opens one. It works in JupyterLab, Jupyter Notebook 7, VS Code and Colab, with mouse, finger and
keyboard.
Python records what the network computes; lens.js recomputes the chosen cell and draws it.
"""

import copy
from pathlib import Path

import torch
import traitlets

from course.insight import ARGUMENTS, evaluation_copy, trace_calls
from course.widgets.look import DigitWidget

KINDS = {  # PyTorch's functions that the lens can explain
    "conv2d": "convolution",
    "relu": "ReLU",
    "batch_norm": "batch norm",
    "max_pool2d": "max-pooling",
    "avg_pool2d": "average pooling",
    "adaptive_avg_pool2d": "average pooling",
    "linear": "linear layer",
    "log_softmax": "log-softmax",
}
# Those that leave all numbers as they are.
UNCHANGED = {"dropout", "dropout2d", "flatten", "view", "reshape", "squeeze", "contiguous", "to"}
# The arguments that are weights, in the order in which the buffer holds them.
WEIGHTS = {
    "conv2d": ["weight", "bias"],
    "batch_norm": ["running_mean", "running_var", "weight", "bias"],
    "linear": ["weight", "bias"],
}


class Buffer:
    """Tensors that will stand in a row, as 32-bit numbers."""

    def __init__(self):
        self.tensors = []
        self.size = 0

    def add(self, tensor):
        """Append a tensor; return its offset: how many numbers stand before it."""
        offset = self.size
        self.tensors.append(tensor.detach().float().flatten())
        self.size += tensor.numel()
        return offset


def trace(model, image):
    """What the network computes for an image: a table of its steps, and all numbers as float32.

    The weights come first among the numbers, then what each step makes of the image.
    """
    image = image.reshape(1, 1, 28, 28).cpu()
    weights = Buffer()
    maps = Buffer()
    table = [
        {
            "name": "image",
            "kind": "image",
            "shape": [1, 28, 28],
            "offset": maps.add(image),
            "jump": 1,
            "field": 1,
            "start": 0,
        }
    ]
    for call in trace_calls(evaluation_copy(model), image):
        if is_step(call):
            row = describe(call, table)
            row["offset"] = maps.add(call.output_copy)
            row |= add_weights(call, weights)
            table.append(row)
    for row in table:
        row["offset"] += weights.size
    return table, torch.cat(weights.tensors + maps.tensors)


def is_step(call):
    """Whether a call computes new maps, or new numbers, from the image."""
    output = call.output
    is_map = isinstance(output, torch.Tensor) and output.is_floating_point() and output.dim() > 1
    return is_map and call.layer is not None and call.function not in UNCHANGED


def describe(call, table):
    """A step's row of the table: its name, kind and shape, and what a cell of it sees."""
    layer = call.layer
    kind = KINDS.get(call.function, "")
    number = 1 + sum(row["kind"] == kind for row in table)
    row = {"name": f"{kind or call.function} {number}", "kind": kind}
    if call.output.dim() == 4:
        row["shape"] = list(call.output.shape[1:])
        row |= {"jump": layer.jump, "field": layer.field, "start": layer.start}
    else:  # each number depends on the whole image
        row["shape"] = [1, 1, call.output.shape[1]]
        row |= {"jump": 0, "field": 28, "start": 0}
    if call.function in ARGUMENTS:
        row |= {"name": layer.name, "kernel": layer.kernel, "stride": layer.stride}
    if call.function == "conv2d" or "pool2d" in call.function:
        row["padding"] = layer.padding
    if call.function == "batch_norm":
        row["eps"] = call.arguments().get("eps", 1e-5)
    return row


def add_weights(call, buffer):
    """Put the weights of a call into the buffer; return their offsets by name, None if missing."""
    offsets = {}
    for name in WEIGHTS.get(call.function, []):
        tensor = call.arguments().get(name)
        if call.function == "conv2d" and name == "weight":
            tensor = without_groups(tensor, maps=call.args[0].shape[1])
        offsets[name] = None if tensor is None else buffer.add(tensor)
    return offsets


def without_groups(kernels, maps):
    """A convolution's kernels, with zeros for the maps of other groups, which a filter ignores."""
    filters, group_size, height, width = kernels.shape
    all_kernels = kernels.new_zeros(filters, maps, height, width)
    groups = maps // group_size
    for number, kernel in enumerate(kernels):
        group = number * groups // filters
        first = group * group_size
        all_kernels[number, first : first + group_size] = kernel
    return all_kernels


class ConvolutionLens(DigitWidget):
    """A widget that explains each cell of each map. Set `lens.image` to look at another digit."""

    _esm = DigitWidget.script(Path(__file__).parent / "lens.js")
    _css = DigitWidget.css(Path(__file__).parent / "lens.css")
    preview = "lens.png"

    layers = traitlets.List().tag(sync=True)
    buffer = traitlets.Bytes().tag(sync=True)  # all weights and maps, as 32-bit numbers

    def __init__(self, model, image):
        super().__init__()
        self._model = copy.deepcopy(model)
        self.image = image

    def _update_page(self):
        layers, numbers = trace(self._model, self.image)
        with self.hold_sync():  # both reach the page together
            self.layers = layers
            self.buffer = numbers.numpy().tobytes()

    def __repr__(self):
        return f"ConvolutionLens({type(self._model).__name__})"
