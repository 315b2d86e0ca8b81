"""Export a network for the website: its layers as a table, its weights as 32-bit numbers.

The table is that of the lens, which watches a forward pass, so a changed network needs no new code.
website/static/engine.js computes with it.
"""

import copy
import hashlib
import json
import math

import torch
import torch.nn.functional as F

from course.files import replacing, write_text
from course.insight import trace_calls
from course.widgets.lens import is_step, trace
from course.widgets.pad import variations

VIEWS = 16  # of a drawing, as the pad in Jupyter shows it to the network


def describe(network):
    """The network's table and weights; refuse a network that they do not describe completely."""
    name = type(network).__name__
    network = copy.deepcopy(network).cpu().eval()
    layers, numbers = trace(network, torch.zeros(1, 28, 28))
    check_layers(name, layers)
    check_answers(name, network, layers, numbers)
    add_training_facts(network, layers)
    views = get_views()
    return {"size": len(numbers), "layers": layers, "views": views}, numbers[: layers[0]["offset"]]


def add_training_facts(network, layers):
    """Note what only training needs: a convolution's groups, and the dropout after a layer."""
    place = 0
    for call in trace_calls(network, torch.zeros(1, 1, 28, 28)):
        if is_step(call):
            place += 1
        if call.function == "conv2d":
            maps = call.args[0].shape[1]
            layers[place]["groups"] = maps // call.arguments()["weight"].shape[1]
        if call.function == "dropout":
            arguments = dict(zip(["p"], call.args[1:])) | call.kwargs
            layers[place]["dropout"] = arguments.get("p", 0.5)


def check_layers(name, layers):
    """Refuse layers that the engine cannot compute."""
    unknown = [layer["name"] for layer in layers if not layer["kind"]]
    if unknown:
        raise ValueError(
            f"{name} cannot be exported: the engine does not know {', '.join(unknown)}"
        )
    if layers[-1]["kind"] != "log-softmax":
        raise ValueError(
            f"{name} cannot be exported: it must end in log-softmax, as the engine's answers do"
        )


def check_answers(name, network, layers, numbers):
    """Refuse a table from which other answers follow than the network's own."""
    images = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(images)
    answers = replay(layers, numbers, images)
    if answers is not None and answers.shape == expected.shape:
        if torch.allclose(answers, expected, atol=1e-4):
            return
    raise ValueError(
        f"{name} cannot be exported: its layers are not a plain sequence, or one of them has an "
        "option that the engine does not know"
    )


def replay(layers, numbers, images):
    """The answers to some images, from the table alone; None if the table makes no sense."""
    x = images
    try:
        for layer in layers[1:]:
            x = apply_layer(layer, numbers, x)
            if x[0].numel() != math.prod(layer["shape"]):
                return None
    except (RuntimeError, ValueError):  # numbers are missing, or the shapes do not fit
        return None
    return x


def apply_layer(layer, numbers, x):
    """What a layer of the table makes of its input."""

    def stored(name, *shape):
        place = layer[name]
        if place is None:
            return None
        return numbers[place : place + math.prod(shape)].view(shape)

    size = layer.get("kernel")
    match layer["kind"]:
        case "convolution":
            maps = layer["shape"][0]
            weight = stored("weight", maps, x.shape[1], size, size)
            return F.conv2d(x, weight, stored("bias", maps), layer["stride"], layer["padding"])
        case "batch norm":
            maps = layer["shape"][0]
            mean = stored("running_mean", maps)
            variance = stored("running_var", maps)
            weight = stored("weight", maps)
            return F.batch_norm(x, mean, variance, weight, stored("bias", maps), eps=layer["eps"])
        case "linear layer":
            x = x.flatten(1)
            outputs = layer["shape"][2]
            return F.linear(x, stored("weight", outputs, x.shape[1]), stored("bias", outputs))
        case "ReLU":
            return F.relu(x)
        case "max-pooling":
            return F.max_pool2d(x, size, layer["stride"])
        case "average pooling":
            return F.avg_pool2d(x, size, layer["stride"])
        case "log-softmax":
            return F.log_softmax(x.flatten(1), dim=1)
    raise ValueError(f"a layer of the unknown kind {layer['kind']!r}")


def get_views():
    """How the pad varies a drawing: an angle, a shift and a scale for each view."""
    columns = {name: values.tolist() for name, values in variations(VIEWS).items()}
    views = []
    for view in range(VIEWS):
        views.append({name: values[view] for name, values in columns.items()})
    return views


def export(network, folder):
    """Write NAME.json and NAME.bin into the folder; by the hash the engine knows the weights."""
    table, weights = describe(network)
    name = type(network).__name__
    content = weights.numpy().astype("<f4").tobytes()
    table["sha256"] = hashlib.sha256(content).hexdigest()
    write_text(folder / f"{name}.json", json.dumps(table, separators=(",", ":")))
    with replacing(folder / f"{name}.bin") as file:
        file.write(content)
