"""A lens on a network: point at a cell of a map, and see from which numbers it was computed, and how.

    ConvolutionLens(model, image)

It works in JupyterLab, Jupyter Notebook 7, VS Code and Colab, with mouse, finger and keyboard.
Python records what the network computes; lens.js recomputes the chosen cell and draws it.
"""

import copy
from pathlib import Path

import torch
import traitlets

from course.insight import ARGUMENTS, Calls, answering_copy, receptive_fields
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


def trace(model, image):
    """What the network computes for an image: (a description of each step, all numbers as float32).

    The weights come first among the numbers, then what each step makes of the image.
    """
    still = answering_copy(model)
    fields = iter(receptive_fields(still))
    image = image.reshape(1, 1, 28, 28).cpu()
    with torch.no_grad(), Calls() as calls:
        still(image)
    layers, weights, maps = [], [], []

    def keep(tensor, numbers=weights):
        """Add a tensor to the numbers; return where it begins."""
        if tensor is None:
            return None
        place = sum(part.numel() for part in numbers)
        numbers.append(tensor.detach().float().flatten())
        return place

    pixels = {"name": "image", "kind": "image", "shape": [1, 28, 28], "offset": keep(image, maps)}
    layers.append(pixels | {"jump": 1, "field": 1, "start": 0})
    for function, args, kwargs, _, output in calls.noted:
        is_step = (
            isinstance(output, torch.Tensor) and output.is_floating_point() and output.dim() > 1
        )
        if not is_step or function in UNCHANGED:
            continue
        before, kind = layers[-1], KINDS.get(function, "")
        shape = list(output.shape[1:]) if output.dim() == 4 else [1, 1, output.shape[1]]
        layer = {"kind": kind, "shape": shape, "offset": keep(output, maps)}
        layer |= {name: before[name] for name in ("jump", "field", "start")}
        layer["name"] = f"{kind or function} {sum(other['kind'] == kind for other in layers) + 1}"
        if function in ARGUMENTS:
            seen, values = next(fields), dict(zip(ARGUMENTS[function], args[1:])) | kwargs
            layer |= {"jump": seen.jump, "field": seen.field, "start": seen.start}
            layer |= {"kernel": seen.kernel, "stride": seen.stride, "name": seen.name}
        if output.dim() == 2:  # each number depends on the whole image
            layer |= {"jump": 0, "field": 28, "start": 0}
        if function == "conv2d" or "pool2d" in function:
            layer["padding"] = (before["start"] - seen.start) // before["jump"]
        if function == "conv2d":
            values["weight"] = _for_all_maps(values["weight"], before["shape"][0])
        elif function == "batch_norm":
            layer["eps"] = values.get("eps", 1e-5)
        if kind in ("convolution", "linear layer", "batch norm"):
            numbers = ("running_mean", "running_var", "weight", "bias")
            layer |= {
                name: keep(values.get(name)) for name in numbers if name in ARGUMENTS[function]
            }
        layers.append(layer)
    for layer in layers:
        layer["offset"] += sum(part.numel() for part in weights)
    return layers, torch.cat(weights + maps)


def _for_all_maps(kernels, maps):
    """A convolution's kernels, with zeros for the maps that a filter does not see, if it has groups."""
    filters, seen = kernels.shape[:2]
    if seen == maps:
        return kernels
    dense = kernels.new_zeros(filters, maps, *kernels.shape[2:])
    for number, kernel in enumerate(kernels):
        first = number * (maps // seen) // filters * seen  # where the group of this filter begins
        dense[number, first : first + seen] = kernel
    return dense


class ConvolutionLens(DigitWidget):
    """A widget that explains each cell of each map. Set `lens.image` to look at another digit."""

    _esm = DigitWidget.script(Path(__file__).parent / "lens.js")
    _css = DigitWidget.css(Path(__file__).parent / "lens.css")
    preview = "lens.png"

    layers = traitlets.List().tag(sync=True)
    buffer = traitlets.Bytes().tag(sync=True)  # all maps and weights, as 32-bit numbers

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
