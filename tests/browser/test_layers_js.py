"""The arithmetic of layers (course/widgets/layers.js): each number and each cell is PyTorch's."""

import base64
import math

import pytest
import torch
from browsing import encoded, load, seven
from torch import nn

import model
from course.checkpoints import get_trained
from course.widgets.lens import ConvolutionLens, trace


def strided():
    """Another padding, stride and kernel than the course's networks have, and no biases."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(4, affine=False, eps=0.1),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(4, 6, 3, stride=2, groups=2),
        nn.AvgPool2d(2, stride=1, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 10, bias=False),
        nn.LogSoftmax(dim=1),
    )


def standardised():
    """Batch norm after a linear layer, and padded pooling of maps that are all negative."""
    network = nn.Sequential(
        nn.Conv2d(1, 1, 3, padding=1),
        nn.MaxPool2d(2, padding=1),
        nn.Flatten(),
        nn.Linear(225, 20),
        nn.BatchNorm1d(20),
        nn.ReLU(),
        nn.Linear(20, 10),
        nn.LogSoftmax(dim=1),
    )
    nn.init.constant_(network[0].bias, -9.0)
    nn.init.normal_(network[4].weight)
    nn.init.normal_(network[4].bias)
    return network


NETWORKS = [*model.NETWORKS, strided, standardised]


def make(network):
    """A trained network, or one of the two above after it has seen images."""
    if isinstance(network, type):
        return get_trained(network).eval()
    torch.manual_seed(0)
    made = network()
    made(torch.randn(50, 1, 28, 28))  # gives batch norm its statistics
    return made.eval()


@pytest.fixture(scope="module")
def lens_js(blank):
    return load(blank, ConvolutionLens._esm)


COMPUTE = """(module, [layers, text, image, cells]) => {
  const buffer = module.floatsOf(module.fromBase64(text));
  const connected = module.connect(layers, buffer);
  const answer = module.forward(connected, image);
  const explained = cells.map(([place, ...cell]) => module.explain(connected[place], ...cell));
  const computed = module.bytesOf(buffer.subarray(layers[0].offset));
  const bytes = Array.from(computed, (byte) => String.fromCharCode(byte));
  return [[...answer], btoa(bytes.join("")), explained.map(({ kind, result }) => [kind, result])];
}"""


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_each_number_and_each_cell_is_pytorchs(lens_js, network):
    """Notices a wrong corner, padding, stride, map, weight or bias."""
    layers, numbers = trace(make(network), seven())
    weights = numbers.clone()
    weights[layers[0]["offset"] :] = 0  # the maps are to be computed
    cells = []
    for place, layer in enumerate(layers):
        cells.append([place, 0, 0, 0])
        for _ in range(8):
            cells.append([place, *(int(torch.randint(size, ())) for size in layer["shape"])])
    sent = [layers, encoded(weights)["base64"], seven().flatten().tolist(), cells]
    answer, text, explained = lens_js.evaluate(COMPUTE, sent)
    computed = torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.float32)
    torch.testing.assert_close(computed, numbers[layers[0]["offset"] :], atol=1e-4, rtol=1e-4)
    assert answer == computed[-10:].tolist(), "the last layer's numbers"
    for (place, *cell), (kind, result) in zip(cells, explained):
        layer = layers[place]
        maps = numbers[layer["offset"] :][: math.prod(layer["shape"])].view(layer["shape"])
        assert kind == layer["kind"] != ""
        assert result == pytest.approx(maps[tuple(cell)].item(), abs=1e-4, rel=1e-4), layer["name"]


@pytest.mark.parametrize(
    ("kind", "outside"), [("convolution", 0), ("max-pooling", -math.inf), ("average pooling", 0)]
)
def test_a_cell_in_a_corner_sees_the_padding(lens_js, kind, outside):
    """Notices: zeros for the largest of negative numbers, and rows for columns."""
    layer = {"kind": kind, "kernel": 3, "stride": 2, "padding": 1, "weight": [1] * 9}
    maps = {"inputShape": [1, 4, 4], "input": list(range(16)), "shape": [1, 2, 2]}
    code = "(lens, layer) => lens.LAYERS[layer.kind].cell(layer, 0, 0, 1)"
    cell = lens_js.evaluate(code, layer | maps)
    seen = cell["parts"][0]["seen"] if kind == "convolution" else cell["seen"]
    assert seen == [[outside] * 3, [1, 2, 3], [5, 6, 7]]


def test_a_network_may_be_very_sure(lens_js):
    """Notices: exponentials that become infinite."""
    image = {"kind": "image", "offset": 0, "shape": [1, 1, 2]}
    layers = [image, {"kind": "log-softmax", "offset": 2, "shape": [1, 1, 2]}]
    cells = [[1, 0, 0, 0], [1, 0, 0, 1]]
    sent = [layers, encoded(torch.zeros(4))["base64"], [1000, 0], cells]
    answer, _, explained = lens_js.evaluate(COMPUTE, sent)
    assert answer == [0, -1000] and explained == [["log-softmax", 0], ["log-softmax", -1000]]


class Branched(nn.Module):
    """Adds the image to what a convolution makes of it; ends in a function that is unknown."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.norm = nn.BatchNorm2d(1, track_running_stats=False)
        self.fc = nn.Linear(784, 10)

    def forward(self, x):
        return torch.tanh(self.fc((torch.relu(self.norm(self.conv(x))) + x).flatten(1)))


def test_what_pytorch_did_otherwise_is_not_explained(lens_js):
    """Notices a result that is explained in a way in which PyTorch did not compute it."""
    layers, numbers = trace(Branched(), seven())
    code = """(module, [layers, text]) => {
      const buffer = module.floatsOf(module.fromBase64(text));
      return module.connect(layers, buffer).map((layer) => module.explain(layer, 0, 0, 5).kind);
    }"""
    kinds = lens_js.evaluate(code, [layers, encoded(numbers)["base64"]])
    assert kinds == ["image", "convolution", "", "ReLU", "", "linear layer", ""]


def test_the_field_of_a_cell_stays_on_the_image(lens_js):
    field = "(lens, [layer, row, column]) => lens.fieldOf(layer, row, column)"
    layer = {"start": -2, "jump": 2, "field": 7}
    assert lens_js.evaluate(field, [layer, 0, 3]) == [4, 0, 7, 5]
    assert lens_js.evaluate(field, [layer, 13, 13]) == [24, 24, 4, 4]
