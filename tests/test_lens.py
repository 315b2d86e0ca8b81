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


def test_it_takes_digits_as_a_data_set_or_the_pad_gives_them(digits):
    raw, normalised = digits.data[0], digits[0][0]
    first, second = ConvolutionLens(NetMini(), raw), ConvolutionLens(NetMini(), normalised)
    assert torch.equal(first.image, Normalize()(raw[None])[0]) and torch.equal(
        first.image, second.image
    )
    kinds = [layer["kind"] for layer in first.layers]
    assert kinds[:5] == ["image", "convolution", "batch norm", "ReLU", "convolution"]
    assert kinds[-3:] == ["average pooling", "linear layer", "log-softmax"]


def test_another_digit_gives_other_numbers_and_the_network_stays_as_it_was(digits):
    network = Net().train()
    lens = ConvolutionLens(network, digits.data[0])
    before = lens.buffer
    lens.image = digits.data[1]
    assert lens.buffer != before and len(lens.buffer) == len(before) and network.training
    nn.init.zeros_(network.conv1.weight)  # it is trained on, say
    lens.image = digits.data[0]
    assert lens.buffer == before


def test_other_pictures_are_refused(digits):
    for wrong in (digits.data[:2], None, "a 7"):
        with pytest.raises(
            ValueError, match=r"this needs a picture of 28×28 pixels: .* or pad\.picture"
        ):
            ConvolutionLens(NetMini(), wrong)


def test_its_page_gets_the_weights_first_and_then_the_maps(digits):
    network, image = NetMini().eval(), digits[0][0]
    state = ConvolutionLens(network, image).state()
    assert set(state) == {"layers", "buffer"}
    layers = state["layers"]
    numbers = torch.frombuffer(
        bytearray(base64.b64decode(state["buffer"]["base64"])), dtype=torch.float32
    )
    assert layers[0] | {"offset": 0} == {
        "name": "image", "kind": "image", "shape": [1, 28, 28], "offset": 0, "jump": 1, "field": 1, "start": 0,
    }  # fmt: skip
    assert torch.equal(numbers[layers[0]["offset"] :][: 28 * 28], image.flatten())
    weights = sum(
        value.numel() for name, value in network.state_dict().items() if "num_batches" not in name
    )
    assert layers[0]["offset"] == weights
    with torch.no_grad():
        assert torch.equal(numbers[-10:], network(image[None])[0])


def small_network():
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
        value.data.uniform_(0.5, 2)
    return network


def network_with_groups():
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


@pytest.mark.parametrize("make", [small_network, network_with_groups])
def test_each_map_can_be_computed_from_what_the_page_gets(digits, make):
    """As lens.js does: every step from the map before, with the weights and sizes that are noted."""
    network = make().train()
    layers, numbers = trace(network, digits[0][0])

    def read(place, *shape):
        return None if place is None else numbers[place:][: math.prod(shape)].view(shape)

    def compute(layer, x):
        """The function of a layer, by its kind."""
        channels, count = x.shape[1], layer["shape"][0]
        match layer["kind"]:
            case "convolution":
                kernel = read(layer["weight"], count, channels, layer["kernel"], layer["kernel"])
                return F.conv2d(
                    x, kernel, read(layer["bias"], count), layer["stride"], layer["padding"]
                )
            case "batch norm":
                values = [
                    read(layer[name], count)
                    for name in ("running_mean", "running_var", "weight", "bias")
                ]
                return F.batch_norm(x, *values, eps=layer["eps"])
            case "max-pooling":
                return F.max_pool2d(x, layer["kernel"], layer["stride"], layer["padding"])
            case "average pooling":
                return F.avg_pool2d(x, layer["kernel"], layer["stride"])
            case "linear layer":
                return F.linear(
                    x.flatten(), read(layer["weight"], 10, x.numel()), read(layer["bias"], 10)
                )
            case "log-softmax":
                return x.flatten().log_softmax(dim=0)
            case "ReLU":
                return x.relu()
            case "":
                return x.sigmoid()

    maps = [read(layer["offset"], 1, *layer["shape"]) for layer in layers]
    for layer, before, after in zip(layers[1:], maps, maps[1:]):
        computed = compute(layer, before)
        torch.testing.assert_close(computed.reshape(after.shape), after, msg=layer["name"])
    assert torch.equal(maps[0][0], digits[0][0])
    with torch.no_grad():
        assert torch.equal(maps[-1].flatten(), network.eval()(digits[0][0][None])[0])


def test_each_layer_has_its_name_and_its_field(digits):
    """The fields by hand, as (jump, field, start); a linear layer sees all 28 pixels at once."""
    layers, _ = trace(small_network(), digits[0][0])
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
