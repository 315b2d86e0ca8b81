"""A lens on a network: point at a cell of a map, and see from which numbers it was computed, and how.

    ConvolutionLens(model, image)

It works in JupyterLab, Jupyter Notebook 7, VS Code and Colab, with mouse, finger and keyboard.
This file notes what the network computes; lens.js works out each cell again and draws.
"""

import copy
from pathlib import Path

import torch
import traitlets
from torch.overrides import TorchFunctionMode

from course.insight import ARGUMENTS, receptive_fields
from course.look import DigitWidget

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


class _Trace(TorchFunctionMode):
    """Notes each step of a forward pass: the function, its arguments, and the numbers that come out."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        name = function.__name__.strip("_")
        is_step = isinstance(output, torch.Tensor) and output.is_floating_point() and output.dim() > 1
        if is_step and name not in UNCHANGED:
            self.steps.append((name, args, kwargs or {}, output.clone()))  # an in-place ReLU changes it later
        return output


def trace(model, image):
    """What the network computes for an image: (a description of each step, all numbers as float32).

    The weights come first among the numbers, then what each step makes of the image.
    """
    still = copy.deepcopy(model).cpu().eval()
    names = {id(weight): name.rpartition(".")[0] for name, weight in still.named_parameters()}
    fields = iter(receptive_fields(still))
    image = image.reshape(1, 1, 28, 28).cpu()
    with torch.no_grad(), _Trace() as recorded:
        still(image)
    layers, weights, maps = [], [], []

    def keep(tensor, numbers=weights):
        """Add a tensor to the numbers; return where it begins."""
        if tensor is None:
            return None
        place = sum(part.numel() for part in numbers)
        numbers.append(tensor.detach().float().flatten())
        return place

    pixels = {"name": "image", "kind": "image", "shape": [1, 28, 28], "at": keep(image, maps)}
    layers.append(pixels | {"jump": 1, "field": 1, "start": 0})
    for function, args, kwargs, output in recorded.steps:
        before = layers[-1]
        shape = list(output.shape[1:]) if output.dim() == 4 else [1, 1, output.shape[1]]
        layer = {"kind": KINDS.get(function, ""), "shape": shape, "at": keep(output, maps)}
        layer |= {name: before[name] for name in ("jump", "field", "start")}
        own = [value for value in [*args, *kwargs.values()] if id(value) in names]
        count = sum(other["kind"] == layer["kind"] for other in layers) + 1
        layer["name"] = names[id(own[0])] if own else f"{layer['kind'] or function} {count}"
        if function in ARGUMENTS:
            seen = next(fields)
            layer |= {"jump": seen.jump, "field": seen.field, "start": seen.start}
            layer |= {"kernel": seen.kernel, "stride": seen.stride, "name": seen.name}
        if output.dim() == 2:  # each number depends on the whole image
            layer |= {"jump": 0, "field": 28, "start": 0}
        if function == "conv2d" or "pool2d" in function:
            layer["padding"] = (before["start"] - seen.start) // before["jump"]
        if function in ("conv2d", "linear"):
            weight = _for_all_maps(own[0], before["shape"][0]) if function == "conv2d" else own[0]
            layer |= {"weight": keep(weight), "bias": keep(own[1] if len(own) > 1 else None)}
        elif function == "batch_norm":
            layer |= _batch_norm(args, kwargs, keep)
        layers.append(layer)
    for layer in layers:
        layer["at"] += sum(part.numel() for part in weights)
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


def _batch_norm(args, kwargs, keep):
    names = ["running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"]
    values = dict(zip(names, args[1:])) | kwargs
    kept = {name: keep(values[name]) for name in names[:4]}
    return kept | {"eps": values.get("eps", 1e-5)}


class ConvolutionLens(DigitWidget):
    """A widget that explains each cell of each map. Set `lens.image` to look at another digit."""

    _esm = Path(__file__).parent / "lens.js"
    _css = DigitWidget.css(Path(__file__).parent / "lens.css")
    preview = "lens.png"

    layers = traitlets.List().tag(sync=True)
    numbers = traitlets.Bytes().tag(sync=True)  # all maps and weights, as 32-bit numbers

    def __init__(self, model, image):
        super().__init__()
        self._model = copy.deepcopy(model)
        self.image = image

    def _develop(self):
        layers, numbers = trace(self._model, self.image)
        with self.hold_sync():  # both reach the page together
            self.layers, self.numbers = layers, numbers.numpy().tobytes()

    def __repr__(self):
        return f"ConvolutionLens({type(self._model).__name__})"
