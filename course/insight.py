"""What a network sees: its answer, receptive fields, filters, feature maps, and the evidence for an answer.

Every function works on a copy, so the network itself stays unchanged.
"""

import contextlib
import copy
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.patches import Rectangle
from torch import nn
from torch.overrides import TorchFunctionMode

from utils import Normalize, plot_epochs, show_figure

__all__ = [
    "show_answer", "plot_gaps", "receptive_fields", "print_receptive_fields", "plot_receptive_fields",
    "plot_filters", "plot_feature_maps", "heat_map", "plot_heat_maps",
]  # fmt: skip

IMAGE_SIZE = 28


def answering_copy(model):
    """A copy of the network that only answers: on the CPU, with 32 bits, in evaluation mode."""
    return copy.deepcopy(model).float().cpu().eval()


def as_batch(image):
    """A digit of any shape as a batch of one, on the CPU; a raw one is normalised."""
    image = image.reshape(1, 1, *image.shape[-2:]).cpu()
    return Normalize()(image[0]) if image.dtype == torch.uint8 else image


# --- One answer ---------------------------------------------------------------------------------


def show_answer(model, image, title=""):
    """Draw a digit, as the network takes it, beside the ten probabilities of the answer."""
    with torch.no_grad():
        answer = answering_copy(model)(as_batch(image)).softmax(dim=1)[0]
    figure, (left, right) = plt.subplots(1, 2, figsize=(5.5, 2.3), layout="constrained")
    left.imshow(image.squeeze().cpu().numpy(), cmap="gray")
    left.set_title(title)
    left.axis("off")
    colours = [
        "tab:orange" if digit == answer.argmax() else "tab:blue" for digit in range(len(answer))
    ]
    right.bar(range(len(answer)), answer.tolist(), color=colours)
    right.set(xticks=range(10), ylim=(0, 1), ylabel="probability")
    right.set_title(f"answer: {answer.argmax()} ({answer.max():.0%})")
    show_figure(figure)


def plot_gaps(trainings):
    """Draw the accuracy in training and in validation: a panel for each training's `History.curves`."""
    figure, axes = plt.subplots(
        1, len(trainings), figsize=(9, 3), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (name, curves) in zip(axes[0], trainings.items()):
        plot_epochs(ax, curves["train_acc"], "accuracy (%)", "tab:blue", label="training")
        plot_epochs(ax, curves["test_acc"], "accuracy (%)", "tab:orange", label="validation")
        gap = curves["train_acc"][-1] - curves["test_acc"][-1]
        ax.set_title(f"{name}: gap {gap:+.1f} points".replace("-", "−"))
        ax.legend()
    show_figure(figure)


# --- Receptive fields ---------------------------------------------------------------------------


@dataclass
class Layer:
    """One line of the table. `jump` and `field` are measured in pixels of the image."""

    name: str
    size: int  # the output has size×size cells
    kernel: int
    stride: int
    jump: int  # distance between the fields of neighbouring cells
    field: int  # the receptive field of a cell is field×field pixels
    start: float  # where the field of the first cell begins: outside the image if there is padding
    parameters: int


class Calls(TorchFunctionMode):
    """Notes each function call of a forward pass: name, arguments, result, and a copy of the result."""

    def __init__(self):
        super().__init__()
        self.noted = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        kept = (
            output.clone() if isinstance(output, torch.Tensor) else output
        )  # an in-place ReLU changes it
        self.noted.append((function.__name__.strip("_"), args, kwargs or {}, output, kept))
        return output


ARGUMENTS = {  # of the functions that `receptive_fields` lists, after the maps themselves
    "conv2d": ["weight", "bias", "stride", "padding", "dilation"],
    "max_pool2d": ["kernel_size", "stride", "padding", "dilation"],
    "avg_pool2d": ["kernel_size", "stride", "padding"],
    "adaptive_avg_pool2d": ["output_size"],
    "linear": ["weight", "bias"],
    "batch_norm": ["running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"],
}


def _number(value):
    return value[0] if isinstance(value, (tuple, list)) else value


def receptive_fields(model):
    """A `Layer` for each layer of the network: its output size, its receptive field and its parameters."""
    watched = answering_copy(model)
    image = torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE)
    with torch.no_grad(), Calls() as calls:
        watched(image)
    names = {id(weight): name.rpartition(".")[0] for name, weight in watched.named_parameters()}
    layers, pools = [], 0
    came_from = {
        id(image): Layer("image", IMAGE_SIZE, 1, 1, 1, 1, 0, 0)
    }  # the layer behind each tensor
    for kind, args, kwargs, output, _ in calls.noted:
        given = [*args, *kwargs.values()]
        parts = [
            part
            for value in given
            for part in (value if isinstance(value, (list, tuple)) else [value])
        ]
        sources = [came_from[id(part)] for part in parts if id(part) in came_from]
        if not sources:
            continue
        layer = max(
            sources, key=lambda source: source.field
        )  # where branches meet, the widest counts
        if kind in ARGUMENTS:
            weights = [value for value in given if id(value) in names]
            is_pool = not weights and "pool" in kind
            pools += is_pool
            without_weights = f"pool{pools}" if is_pool else kind.replace("_", " ")
            name = names[id(weights[0])] if weights else without_weights
            layer = _layer(name, kind, args, kwargs, output, layer, weights)
            layers.append(layer)
        for part in (
            output if isinstance(output, (tuple, list)) else [output]
        ):  # `chunk` returns several
            came_from[id(part)] = layer
    return layers


def _layer(name, kind, args, kwargs, output, before, weights):
    """The `Layer` that a function call adds to the layer `before` it."""
    image, *rest = args
    values = dict(zip(ARGUMENTS[kind], rest)) | kwargs
    kernel, stride, padding, dilation = 1, 1, 0, 1
    if kind == "conv2d":
        kernel = values["weight"].shape[-1]
        stride, padding, dilation = (
            _number(values.get(what, usual))
            for what, usual in [("stride", 1), ("padding", 0), ("dilation", 1)]
        )
    elif kind in ("max_pool2d", "avg_pool2d"):
        kernel = _number(values["kernel_size"])
        stride = _number(values.get("stride") or kernel)
        padding = _number(values.get("padding", 0))
    elif kind == "adaptive_avg_pool2d":
        kernel = stride = image.shape[-1] // output.shape[-1]
    elif kind == "linear":  # every output depends on every number of the layer before
        kernel = before.size
    reach = (kernel - 1) * dilation
    padding = {"same": reach // 2, "valid": 0}.get(padding, padding)
    return Layer(
        name,
        output.shape[-1] if output.dim() == 4 else 1,
        kernel,
        stride,
        before.jump * stride,
        before.field + reach * before.jump,
        before.start - padding * before.jump,
        sum(weight.numel() for weight in weights),
    )


def print_receptive_fields(model):
    """Print the table of `receptive_fields`."""
    print(
        f"{'layer':<16} {'output':>7} {'kernel':>6} {'stride':>6} {'jump':>4} {'field':>7} {'parameters':>10}"
    )
    for layer in receptive_fields(model):
        size, field = f"{layer.size}×{layer.size}", f"{layer.field}×{layer.field}"
        print(
            f"{layer.name:<16} {size:>7} {layer.kernel:>6} {layer.stride:>6} {layer.jump:>4} "
            f"{field:>7} {f'{layer.parameters:,}' if layer.parameters else '':>10}".rstrip()
        )
    print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters")


def plot_receptive_fields(model, image, save=None):
    """Draw the receptive field of the middle cell on a digit: a picture for each size of field."""
    steps = []
    for layer in receptive_fields(model):
        if not steps or layer.field > steps[-1].field:
            steps.append(layer)
    size = 1.9 * len(steps), 2.4
    figure, axes = plt.subplots(1, len(steps), figsize=size, squeeze=False, layout="constrained")
    for ax, layer in zip(axes.flat, steps):
        corner = layer.start + (layer.size // 2) * layer.jump - 0.5
        ax.imshow(image.squeeze().cpu().numpy(), cmap="gray")
        field = (corner, corner), layer.field, layer.field
        ax.add_patch(Rectangle(*field, edgecolor="tab:red", facecolor="tab:red", alpha=0.3))
        ax.add_patch(Rectangle(*field, edgecolor="tab:red", fill=False, linewidth=2))
        ax.set_title(f"{layer.name}\n{layer.field}×{layer.field}", fontsize=10)
        ax.axis("off")
    show_figure(figure, save)


# --- Filters, maps and heat maps ----------------------------------------------------------------


def _convolutions(model):
    found = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no convolution, so there are no filters or maps to show"
        )
    return found


def plot_filters(model, save=None):
    """Draw the filters of the first convolution: positive weights in red, negative weights in blue."""
    name, layer = next(iter(_convolutions(model).items()))
    filters = layer.weight.detach().cpu()[:, 0]
    columns = 8
    rows = -(-len(filters) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns, 1.05 * rows + 0.4), layout="constrained"
    )
    largest = filters.abs().max()
    for ax in axes.flat:
        ax.axis("off")
    for ax, weights in zip(axes.flat, filters):
        ax.imshow(weights.numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest)
    figure.suptitle(f"The {len(filters)} filters of {name}")
    show_figure(figure, save)


@contextlib.contextmanager
def watching(model):
    """Collect the outputs of all convolutions, by name, in the order in which they run."""
    outputs = {}
    hooks = [
        layer.register_forward_hook(
            lambda _, __, output, name=name: outputs.__setitem__(name, output)
        )
        for name, layer in _convolutions(model).items()
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def plot_feature_maps(model, image, maps=8, save=None):
    """Draw a digit on its way through the network: the first maps of every convolution."""
    still = answering_copy(model)
    with torch.no_grad(), watching(still) as outputs:
        still(as_batch(image))
    size = maps, 1.15 * len(outputs)
    figure, axes = plt.subplots(
        len(outputs), maps, figsize=size, squeeze=False, layout="constrained"
    )
    for ax in axes.flat:
        ax.axis("off")
    for row, (name, output) in zip(axes, outputs.items()):
        size = output.shape[-1]
        row[0].set_title(f"{name}: {output.shape[1]} maps of {size}×{size}", fontsize=9, loc="left")
        for ax, values in zip(row, output[0].relu()):
            ax.imshow(values.numpy(), cmap="viridis")
    show_figure(figure, save)


def heat_map(model, image, digit):
    """Where the network found evidence for `digit`: a tensor of the image's size, from 0 to 1 (Grad-CAM).

    The heat map is a weighted sum of the maps of the last convolution that is larger than 1×1. The weight
    of a map says how much the digit's output would rise with it. Evidence against the digit is left out.
    """
    # In 64 bits: if the network is very confident, the gradients are too small for 32 bits.
    still = answering_copy(model).double().requires_grad_()
    with torch.enable_grad(), watching(still) as outputs:
        scores = still(as_batch(image).double())
        wide = [name for name in outputs if still.get_submodule(name).kernel_size != (1, 1)]
        if not wide:
            raise ValueError(
                f"{type(model).__name__} has only 1×1 convolutions, and they have no heat map"
            )
        last = wide[-1]
        (slopes,) = torch.autograd.grad(scores[0, digit], outputs[last])
    maps = outputs[last].detach().relu()
    heat = (slopes.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1, keepdim=True).relu()
    # Put each cell at the centre of its receptive field, instead of stretching the map to the edges.
    layer = next(layer for layer in receptive_fields(model) if layer.name == last)
    first_centre = layer.start + (layer.field - 1) / 2
    cells = (torch.arange(image.shape[-1]) - first_centre) / layer.jump
    places = 2 * cells / max(layer.size - 1, 1) - 1
    grid = torch.stack(torch.meshgrid(places, places, indexing="xy"), dim=-1)
    heat = F.grid_sample(heat, grid.unsqueeze(0).double(), align_corners=True)[0, 0]
    return (heat / heat.max().clamp_min(1e-300)).float()


def plot_heat_maps(model, image, truth, save=None):
    """Draw the heat maps of the true digit and, if the network answers something else, of its answer."""
    with torch.no_grad():
        still = answering_copy(model)
        answer = int(still(as_batch(image)).argmax())
    truth = int(truth)
    digits = list(dict.fromkeys([truth, answer]))
    figure, axes = plt.subplots(
        1, 1 + len(digits), figsize=(2.6 * (1 + len(digits)), 2.9), layout="constrained"
    )
    axes[0].imshow(image.squeeze().cpu().numpy(), cmap="gray")
    axes[0].set_title(
        f"a {truth}, read as a {answer}" if answer != truth else f"a {truth}, read correctly"
    )
    for ax, digit in zip(axes[1:], digits):
        ax.imshow(image.squeeze().cpu().numpy(), cmap="gray")
        heat = heat_map(model, image, digit)
        ax.imshow(heat.numpy(), cmap="inferno", alpha=0.6, vmin=0, vmax=1)
        ax.set_title(f"evidence for {digit}" if heat.any() else f"no evidence for {digit}")
    for ax in axes:
        ax.axis("off")
    show_figure(figure, save)
