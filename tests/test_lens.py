"""The lens in Python; what happens in the browser is tested in tests/browser/test_lens_js.py."""

import base64
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course.widgets.lens import ConvolutionLens, trace
from model import Net, NetMini
from utils import Normalize


def one_of_each_kind():
    """One layer of each kind, with strides, paddings and statistics that are not the usual ones."""
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, bias=False),
        nn.BatchNorm2d(3, eps=0.1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, stride=2, padding=2),
        nn.Sigmoid(),
        nn.Dropout(),
        nn.AvgPool2d(3, stride=2),
        nn.Flatten(),
        nn.Linear(36, 10),
        nn.LogSoftmax(dim=1),
    )
    for value in [network[1].running_mean, network[1].running_var, *network[1].parameters()]:
        nn.init.uniform_(value, 0.5, 2)
    return network


def with_groups():
    """A convolution in groups, pooling with padding, and pooling down to one cell."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(6, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 10),
    )


def read(numbers, offset, *shape):
    """The tensor at an offset, as the page reads it."""
    return None if offset is None else numbers[offset:][: math.prod(shape)].view(shape)


def compute(layer, x, numbers):
    """What a layer makes of the maps before it, with the weights and sizes of the table."""
    outputs = layer["shape"][0]
    match layer["kind"]:
        case "convolution":
            kernel = (outputs, x.shape[1], layer["kernel"], layer["kernel"])
            weight = read(numbers, layer["weight"], *kernel)
            bias = read(numbers, layer["bias"], outputs)
            return F.conv2d(x, weight, bias, layer["stride"], layer["padding"])
        case "batch norm":
            names = ["running_mean", "running_var", "weight", "bias"]
            values = [read(numbers, layer[name], outputs) for name in names]
            return F.batch_norm(x, *values, eps=layer["eps"])
        case "max-pooling":
            return F.max_pool2d(x, layer["kernel"], layer["stride"], layer["padding"])
        case "average pooling":
            return F.avg_pool2d(x, layer["kernel"], layer["stride"])
        case "linear layer":
            weight = read(numbers, layer["weight"], 10, x.numel())
            return F.linear(x.flatten(), weight, read(numbers, layer["bias"], 10))
        case "log-softmax":
            return x.flatten().log_softmax(dim=0)
        case "ReLU":
            return x.relu()
        case "":  # what the lens cannot explain; here, the sigmoid
            return x.sigmoid()


@pytest.mark.parametrize("make", [one_of_each_kind, with_groups])
def test_each_map_can_be_computed_from_what_the_page_gets(digits, make):
    """As lens.js does it: every step from the maps before."""
    image = digits[0][0]
    network = make().train()
    layers, numbers = trace(network, image)
    maps = [read(numbers, layer["offset"], 1, *layer["shape"]) for layer in layers]
    for layer, before, after in zip(layers[1:], maps, maps[1:]):
        computed = compute(layer, before, numbers).reshape(after.shape)
        torch.testing.assert_close(computed, after, msg=layer["name"])
    assert network.training
    assert torch.equal(maps[0][0], image)
    with torch.no_grad():
        assert torch.equal(maps[-1].flatten(), network.eval()(image[None])[0])


def test_each_layer_has_its_name_and_its_field(digits):
    """The fields by hand, as (jump, field, start); a linear layer sees all 28 pixels at once."""
    layers, _ = trace(one_of_each_kind(), digits[0][0])
    assert [(layer["name"], layer["jump"], layer["field"], layer["start"]) for layer in layers] == [
        ("image", 1, 1, 0),
        ("0", 1, 3, -1),
        ("1", 1, 3, -1),
        ("ReLU 1", 1, 3, -1),
        ("pool1", 2, 4, -1),
        ("4", 4, 8, -5),
        ("sigmoid 1", 4, 8, -5),
        ("pool2", 8, 16, -5),
        ("9", 0, 28, 0),
        ("log-softmax 1", 0, 28, 0),
    ]


def test_its_page_gets_the_weights_first_and_then_the_maps(digits):
    network = NetMini()
    state = ConvolutionLens(network, digits[0][0]).state()
    assert set(state) == {"layers", "buffer"}
    content = bytearray(base64.b64decode(state["buffer"]["base64"]))
    numbers = torch.frombuffer(content, dtype=torch.float32)
    image = state["layers"][0]
    values = network.state_dict().items()
    weights = sum(value.numel() for name, value in values if "num_batches" not in name)
    assert image == {
        "name": "image", "kind": "image", "shape": [1, 28, 28], "offset": weights,
        "jump": 1, "field": 1, "start": 0,
    }  # fmt: skip
    assert torch.equal(read(numbers, weights, 1, 28, 28), digits[0][0])


def test_it_takes_digits_as_a_data_set_or_the_pad_gives_them(digits):
    raw = ConvolutionLens(NetMini(), digits.data[0])
    normalised = ConvolutionLens(NetMini(), digits[0][0])
    assert torch.equal(raw.image, Normalize()(digits.data[:1])[0])
    assert torch.equal(raw.image, normalised.image)
    kinds = [layer["kind"] for layer in raw.layers]
    assert kinds[:5] == ["image", "convolution", "batch norm", "ReLU", "convolution"]
    assert kinds[-3:] == ["average pooling", "linear layer", "log-softmax"]


def test_another_digit_gives_other_numbers_and_the_network_stays_as_it_was(digits):
    network = Net()
    lens = ConvolutionLens(network, digits.data[0])
    before = lens.buffer
    lens.image = digits.data[1]
    assert lens.buffer != before and len(lens.buffer) == len(before)
    nn.init.zeros_(network.conv1.weight)  # it is trained on, say
    lens.image = digits.data[0]
    assert lens.buffer == before


@pytest.mark.parametrize("wrong", [torch.zeros(2, 28, 28), None, "a 7"], ids=str)
def test_other_pictures_are_refused(wrong):
    with pytest.raises(ValueError, match=r"this needs a picture of 28×28 pixels: .*pad\.picture"):
        ConvolutionLens(NetMini(), wrong)
