"""What a network sees: its answer, its receptive fields, filters and maps, and heat maps.

Every function works on a copy, so the network itself stays unchanged.
"""

import copy
import math
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.patches import Rectangle
from torch import nn
from torch.overrides import TorchFunctionMode

from utils import Normalize, plot_epochs, show_figure, to_grey

__all__ = [
    "show_answer", "plot_gaps", "receptive_fields", "print_receptive_fields",
    "plot_receptive_fields", "plot_filters", "plot_feature_maps", "heat_map", "plot_heat_maps",
]  # fmt: skip


def evaluation_copy(model):
    """A copy of the network for evaluation: on the CPU, with 32 bits, in evaluation mode."""
    return copy.deepcopy(model).float().cpu().eval()


def as_batch(image):
    """An image as a batch of one, on the CPU; raw grey pixels are normalised as MNIST's."""
    height, width = image.shape[-2:]
    images = image.reshape(1, -1, height, width).cpu()
    if images.dtype == torch.uint8:
        return Normalize()(images.squeeze(1))
    return images


def draw_digit(ax, image):
    ax.imshow(to_grey(image), cmap="gray")
    ax.axis("off")


# --- One answer --------------------------------------------------------------------------------


def show_answer(model, image, title=""):
    """Draw an image beside the probabilities of the network's answer, one for each class."""
    with torch.no_grad():
        probabilities = evaluation_copy(model)(as_batch(image)).softmax(dim=1)[0]
    answer = int(probabilities.argmax())
    figure, (left, right) = plt.subplots(1, 2, figsize=(5.5, 2.3), layout="constrained")
    draw_digit(left, image)
    left.set_title(title)
    bars = right.bar(range(len(probabilities)), probabilities.tolist(), color="tab:blue")
    bars[answer].set_facecolor("tab:orange")
    right.set(xticks=range(len(probabilities)), ylim=(0, 1), ylabel="probability")
    right.set_title(f"answer: {answer} ({probabilities[answer]:.0%})")
    show_figure(figure)


def plot_gaps(trainings):
    """Draw training and validation accuracy: a panel for each name and its `History.curves`."""
    figure, axes = plt.subplots(
        1, len(trainings), figsize=(9, 3), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (name, curves) in zip(axes.flat, trainings.items()):
        plot_epochs(ax, curves["train_acc"], "accuracy (%)", "tab:blue", label="training")
        plot_epochs(ax, curves["test_acc"], "accuracy (%)", "tab:orange", label="validation")
        gap = curves["train_acc"][-1] - curves["test_acc"][-1]
        ax.set_title(f"{name}: gap {gap:+.1f} points".replace("-", "−"))
        ax.legend()
    show_figure(figure)


# --- Receptive fields --------------------------------------------------------------------------


@dataclass
class Layer:
    """A row of the table. `jump`, `field` and `start` are measured in pixels of the image."""

    name: str
    size: int  # the output has size×size cells
    kernel: int
    stride: int
    padding: int
    jump: int  # distance between the fields of neighbouring cells
    field: int  # the receptive field of a cell is field×field pixels
    start: int  # where the field of the first cell begins: outside the image if there is padding
    parameters: int


@dataclass
class Window:
    """What a layer combines into one cell: a square of cells of the layer before."""

    kernel: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1


# The functions that are layers of the table, with the names of their arguments after the input.
ARGUMENTS = {
    "conv2d": ["weight", "bias", "stride", "padding", "dilation"],
    "max_pool2d": ["kernel_size", "stride", "padding", "dilation"],
    "avg_pool2d": ["kernel_size", "stride", "padding"],
    "adaptive_avg_pool2d": ["output_size"],
    "linear": ["weight", "bias"],
    "batch_norm": ["running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"],
}


@dataclass
class Call:
    """A call of one of PyTorch's functions in a forward pass."""

    function: str  # its name, such as "conv2d"
    args: tuple
    kwargs: dict
    output: object
    output_copy: object  # an in-place ReLU changes the output itself
    layer: Layer | None = None  # the layer of the output's cells; None if it ignores the image

    def arguments(self):
        """The arguments after the input, by name; only for functions in `ARGUMENTS`."""
        return dict(zip(ARGUMENTS[self.function], self.args[1:])) | self.kwargs

    def input_tensors(self):
        """All tensors among the arguments, weights included."""
        return find_tensors([*self.args, *self.kwargs.values()])


class CallRecorder(TorchFunctionMode):
    """Record each call of one of PyTorch's functions in a `with` block."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        output_copy = output.clone() if isinstance(output, torch.Tensor) else output
        name = function.__name__.strip("_")  # relu_ is ReLU in place
        self.calls.append(Call(name, args, kwargs, output, output_copy))
        return output


def find_tensors(value):
    """The tensors in a value: the value itself, or those in a list."""
    if isinstance(value, torch.Tensor):
        return [value]
    tensors = []
    if isinstance(value, (list, tuple)):
        for part in value:
            tensors += find_tensors(part)
    return tensors


def receptive_fields(model, input_size=(1, 28, 28)):
    """A `Layer` for each layer of the network, in the order in which they run."""
    image = torch.zeros(1, *input_size)
    layers = []
    for call in trace_calls(evaluation_copy(model), image):
        if call.layer is not None and call.function in ARGUMENTS:
            layers.append(call.layer)
    return layers


def trace_calls(network, image):
    """The calls of a forward pass, in order, each with its layer."""
    height, width = image.shape[-2:]
    if height != width:
        raise ValueError(f"receptive fields need square images, not those of {height}×{width}")
    with torch.no_grad(), CallRecorder() as recorder:
        network(image)
    names = {id(weight): name.rpartition(".")[0] for name, weight in network.named_parameters()}
    pixels = Layer("image", width, 1, 1, padding=0, jump=1, field=1, start=0, parameters=0)
    layers = {id(image): pixels}  # the layer of each tensor that depends on the image
    pools = 0
    for call in recorder.calls:
        tensors = call.input_tensors()
        sources = [layers[id(tensor)] for tensor in tensors if id(tensor) in layers]
        if not sources:
            continue
        # Where branches meet, the widest field counts.
        call.layer = max(sources, key=lambda layer: layer.field)
        if call.function in ARGUMENTS:
            weights = [tensor for tensor in tensors if id(tensor) in names]
            if weights:
                name = names[id(weights[0])]
            elif "pool" in call.function:
                pools += 1
                name = f"pool{pools}"
            else:
                name = call.function.replace("_", " ")
            call.layer = next_layer(name, call, weights, before=call.layer)
        for tensor in find_tensors(call.output):  # `chunk` returns several
            layers[id(tensor)] = call.layer
    return recorder.calls


def next_layer(name, call, weights, before):
    """The `Layer` that a call computes from the layer `before` it."""
    window = get_window(call, before)
    reach = (window.kernel - 1) * window.dilation
    return Layer(
        name=name,
        size=call.output.shape[-1] if call.output.dim() == 4 else 1,
        kernel=window.kernel,
        stride=window.stride,
        padding=window.padding,
        jump=before.jump * window.stride,
        field=before.field + reach * before.jump,
        start=before.start - window.padding * before.jump,
        parameters=sum(weight.numel() for weight in weights),
    )


def get_window(call, before):
    """The window of a call, from its arguments."""
    arguments = call.arguments()
    dilation = one_number(arguments.get("dilation", 1))
    if call.function == "conv2d":
        kernel = arguments["weight"].shape[-1]
        stride = one_number(arguments.get("stride", 1))
        padding = one_number(arguments.get("padding", 0))
        if padding == "valid":
            padding = 0
        elif padding == "same":
            padding = (kernel - 1) * dilation // 2
        return Window(kernel, stride, padding, dilation)
    if call.function in ("max_pool2d", "avg_pool2d"):
        kernel = one_number(arguments["kernel_size"])
        stride = one_number(arguments.get("stride") or kernel)
        return Window(kernel, stride, one_number(arguments.get("padding", 0)), dilation)
    if call.function == "adaptive_avg_pool2d":
        kernel = call.args[0].shape[-1] // call.output.shape[-1]
        return Window(kernel, stride=kernel)
    if call.function == "linear":  # every output depends on all of the layer before
        return Window(kernel=before.size)
    return Window()


def one_number(value):
    """The first of two equal numbers: PyTorch takes 3 and (3, 3) alike."""
    return value[0] if isinstance(value, (tuple, list)) else value


def print_receptive_fields(model, input_size=(1, 28, 28)):
    """Print the table of `receptive_fields`."""
    layers = receptive_fields(model, input_size)
    print("layer             output kernel stride jump   field parameters")
    for layer in layers:
        size = f"{layer.size}×{layer.size}"
        field = f"{layer.field}×{layer.field}"
        parameters = f"{layer.parameters:,}" if layer.parameters else ""
        row = (
            f"{layer.name:<16} {size:>7} {layer.kernel:>6} {layer.stride:>6} {layer.jump:>4} "
            f"{field:>7} {parameters:>10}"
        )
        print(row.rstrip())
    total = sum(weight.numel() for weight in model.parameters())
    print(f"{total:,} parameters")
    widest = max((layer.field for layer in layers), default=0)
    if widest > input_size[-1]:
        print(
            f"A field of {widest}×{widest} pixels is larger than the image: "
            "it reaches beyond the edges, into the padding."
        )


def plot_receptive_fields(model, image, save=None):
    """Draw the receptive field of the middle cell on a digit: a picture for each size of field."""
    growing = []
    for layer in receptive_fields(model, as_batch(image).shape[1:]):
        if not growing or layer.field > growing[-1].field:
            growing.append(layer)
    size = (1.9 * len(growing), 2.4)
    figure, axes = plt.subplots(1, len(growing), figsize=size, squeeze=False, layout="constrained")
    for ax, layer in zip(axes.flat, growing):
        draw_digit(ax, image)
        first = layer.start + (layer.size // 2) * layer.jump
        corner = (first - 0.5, first - 0.5)  # a pixel's centre has whole numbers
        tint = Rectangle(corner, layer.field, layer.field, color="tab:red", alpha=0.3)
        frame = Rectangle(corner, layer.field, layer.field, color="tab:red", fill=False, lw=2)
        ax.add_patch(tint)
        ax.add_patch(frame)
        ax.set_title(f"{layer.name}\n{layer.field}×{layer.field}", fontsize=10)
    show_figure(figure, save)


# --- Filters and maps ----------------------------------------------------------------------------


def find_convolutions(model):
    """The convolutions of a network, by name; a network without any is refused."""
    convolutions = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            convolutions[name] = layer
    if not convolutions:
        raise ValueError(
            f"{type(model).__name__} has no convolution, so there are no filters or maps to show"
        )
    return convolutions


def plot_filters(model, save=None):
    """Draw the filters of the first convolution: positive weights red, negative weights blue."""
    name, layer = next(iter(find_convolutions(model).items()))
    if layer.in_channels != 1:
        raise ValueError(
            f"only the filters of networks for grey images can be drawn: each filter of {name} "
            f"has {layer.in_channels} kernels"
        )
    filters = layer.weight.detach().cpu()[:, 0]
    columns = 8
    rows = math.ceil(len(filters) / columns)
    size = (columns, 1.05 * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained")
    largest = filters.abs().max()
    for ax in axes.flat:
        ax.axis("off")
    for ax, weights in zip(axes.flat, filters):
        ax.imshow(weights.numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest)
    figure.suptitle(f"The {len(filters)} filters of {name}")
    show_figure(figure, save)


def run_with_maps(network, images):
    """What a network returns, and what each convolution computed on the way, by name."""
    maps = {}
    names = {layer: name for name, layer in find_convolutions(network).items()}

    def keep(layer, inputs, output):
        maps[names[layer]] = output

    hooks = [layer.register_forward_hook(keep) for layer in names]
    try:
        scores = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return scores, maps


def plot_feature_maps(model, image, maps=8, save=None):
    """Draw a digit on its way through the network: the first maps of every convolution."""
    with torch.no_grad():
        _, outputs = run_with_maps(evaluation_copy(model), as_batch(image))
    rows = len(outputs)
    size = (maps, 1.15 * rows)
    figure, axes = plt.subplots(rows, maps, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for row, (name, output) in zip(axes, outputs.items()):
        count, height, width = output[0].shape
        row[0].set_title(f"{name}: {count} maps of {height}×{width}", fontsize=9, loc="left")
        for ax, values in zip(row, output[0].relu()):
            ax.imshow(values.numpy(), cmap="viridis")
    show_figure(figure, save)


# --- Heat maps -----------------------------------------------------------------------------------


def heat_map(model, image, digit):
    """Where the network found evidence for `digit`: from 0 to 1 for each pixel (Grad-CAM).

    The heat map is a weighted sum of the maps of the last convolution that is larger than 1×1.
    The weight of a map says how much the digit's output would rise with it. Evidence against the
    digit is left out.
    """
    # In 64 bits: if the network is very confident, the gradients are too small for 32 bits.
    network = evaluation_copy(model).double().requires_grad_()
    with torch.enable_grad():
        images = as_batch(image).double()
        scores, outputs = run_with_maps(network, images)
        name = last_wide_convolution(network, outputs)
        gradients = torch.autograd.grad(scores[0, digit], outputs[name])[0]
    maps = outputs[name].detach().relu()
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    evidence = (weights * maps).sum(dim=1, keepdim=True).relu()
    layers = {layer.name: layer for layer in receptive_fields(model, images.shape[1:])}
    heat = place_on_image(evidence, layers[name], image.shape[-1])
    return (heat / heat.max().clamp_min(1e-300)).float()


def last_wide_convolution(network, outputs):
    """The name of the last convolution, among those that ran, that is larger than 1×1."""
    wide = [name for name in outputs if network.get_submodule(name).kernel_size != (1, 1)]
    if not wide:
        raise ValueError(
            f"{type(network).__name__} has only 1×1 convolutions, and they have no heat map"
        )
    return wide[-1]


def place_on_image(cells, layer, size):
    """Enlarge a layer's map to size×size: each cell stands at the centre of its receptive field."""
    first_centre = layer.start + (layer.field - 1) / 2
    places = (torch.arange(size) - first_centre) / layer.jump  # of the pixels, counted in cells
    places = 2 * places / max(layer.size - 1, 1) - 1  # from -1, the first cell, to 1, the last
    grid = torch.stack(torch.meshgrid(places, places, indexing="xy"), dim=-1).double()
    return F.grid_sample(cells, grid.unsqueeze(0), align_corners=True)[0, 0]


def plot_heat_maps(model, image, truth, save=None):
    """Draw a digit, and the evidence for the truth and for the answer, if they differ."""
    with torch.no_grad():
        answer = int(evaluation_copy(model)(as_batch(image)).argmax())
    truth = int(truth)
    digits = [truth] if answer == truth else [truth, answer]
    reading = "read correctly" if answer == truth else f"read as a {answer}"
    columns = 1 + len(digits)
    figure, axes = plt.subplots(1, columns, figsize=(2.6 * columns, 2.9), layout="constrained")
    for ax in axes:
        draw_digit(ax, image)
    axes[0].set_title(f"a {truth}, {reading}")
    for ax, digit in zip(axes[1:], digits):
        heat = heat_map(model, image, digit)
        ax.imshow(heat.numpy(), cmap="inferno", alpha=0.6, vmin=0, vmax=1)
        ax.set_title(f"evidence for {digit}" if heat.any() else f"no evidence for {digit}")
    show_figure(figure, save)
