"""Export a network for the website: its layers as a table, its weights as 32-bit numbers.

The table is that of the lens, which watches a forward pass, so a changed network needs no new code.
website/static/engine.js computes with it.
"""

import copy
import json
import math

import torch
import torch.nn.functional as F

from course.widgets.pad import variations
from course.files import replacing, write_text
from course.widgets.lens import trace

VIEWS = 16  # of a drawing, as the pad in Jupyter shows it to the network


def describe(network):
    """Return the network's table and its weights; refuse a network that they do not describe completely."""
    name = type(network).__name__
    network = copy.deepcopy(network).cpu().eval()
    layers, numbers = trace(network, torch.zeros(1, 28, 28))
    unknown = [layer["name"] for layer in layers if not layer["kind"]]
    if unknown:
        raise ValueError(
            f"{name} cannot be exported: the engine does not know {', '.join(unknown)}"
        )
    if layers[-1]["kind"] != "log-softmax":
        raise ValueError(
            f"{name} cannot be exported: it must end in log-softmax, as the engine's answers do"
        )
    images = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(images)
    if not _is_same(replay(layers, numbers, images), expected):
        raise ValueError(
            f"{name} cannot be exported: its layers are not a plain sequence, or one of them has an option "
            "that the engine does not know"
        )
    columns = {name: values.tolist() for name, values in variations(VIEWS).items()}
    views = [dict(zip(columns, values)) for values in zip(*columns.values())]
    return {"size": len(numbers), "layers": layers, "views": views}, numbers[: layers[0]["offset"]]


def replay(layers, numbers, images):
    """The answers to some images, computed from the table alone; None if the table makes no sense."""
    x = images
    try:
        for layer in layers[1:]:
            x = _step(layer, numbers, x)
            if x[0].numel() != math.prod(layer["shape"]):
                return None
    except (RuntimeError, ValueError):  # numbers are missing, or the shapes do not fit
        return None
    return x


def _step(layer, numbers, x):
    def stored(name, *shape):
        place = layer[name]
        return None if place is None else numbers[place : place + math.prod(shape)].view(shape)

    maps, units, size = layer["shape"][0], layer["shape"][2], layer.get("kernel")
    match layer["kind"]:
        case "convolution":
            weight = stored("weight", maps, x.shape[1], size, size)
            return F.conv2d(x, weight, stored("bias", maps), layer["stride"], layer["padding"])
        case "batch norm":
            mean, variance, weight, bias = (
                stored(name, maps) for name in ("running_mean", "running_var", "weight", "bias")
            )
            return F.batch_norm(x, mean, variance, weight, bias, eps=layer["eps"])
        case "linear layer":
            x = x.flatten(1)
            return F.linear(x, stored("weight", units, x.shape[1]), stored("bias", units))
        case "ReLU":
            return F.relu(x)
        case "max-pooling":
            return F.max_pool2d(x, size, layer["stride"])
        case "average pooling":
            return F.avg_pool2d(x, size, layer["stride"])
        case "log-softmax":
            return F.log_softmax(x.flatten(1), dim=1)


def _is_same(answers, expected):
    return (
        answers is not None
        and answers.shape == expected.shape
        and torch.allclose(answers, expected, atol=1e-4)
    )


def export(network, folder):
    """Write NAME.json and NAME.bin into the folder."""
    table, weights = describe(network)
    name = type(network).__name__
    write_text(folder / f"{name}.json", json.dumps(table, separators=(",", ":")))
    with replacing(folder / f"{name}.bin") as file:
        file.write(weights.numpy().astype("<f4").tobytes())
