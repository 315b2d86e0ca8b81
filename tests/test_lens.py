"""The lens in Python; what happens in the browser is tested in tests/browser/test_lens_js.py."""

import base64

import pytest
import torch

from course.lens import ConvolutionLens
from model import Net, NetMini
from utils import Normalize


def test_it_takes_digits_as_a_data_set_or_the_pad_gives_them(digits):
    raw, normalised = digits.data[0], digits[0][0]
    first, second = ConvolutionLens(NetMini(), raw), ConvolutionLens(NetMini(), normalised)
    assert torch.equal(first.image, Normalize()(raw[None])[0]) and torch.equal(first.image, second.image)
    kinds = [layer["kind"] for layer in first.layers]
    assert kinds[:5] == ["image", "convolution", "batch norm", "ReLU", "convolution"]
    assert kinds[-3:] == ["average pooling", "linear layer", "log-softmax"]


def test_another_digit_gives_other_numbers_and_the_network_stays_as_it_was(digits):
    network = Net().train()
    lens = ConvolutionLens(network, digits.data[0])
    before = lens.numbers
    lens.image = digits.data[1]
    assert lens.numbers != before and len(lens.numbers) == len(before) and network.training


def test_other_pictures_are_refused(digits):
    for wrong in (digits.data[:2], None, "a 7"):
        with pytest.raises(ValueError, match=r"this needs a picture of 28×28 pixels: .* or pad\.picture"):
            ConvolutionLens(NetMini(), wrong)


def test_its_page_gets_the_weights_first_and_then_the_maps(digits):
    network, image = NetMini().eval(), digits[0][0]
    state = ConvolutionLens(network, image).state()
    assert set(state) == {"layers", "numbers"}
    layers = state["layers"]
    numbers = torch.frombuffer(bytearray(base64.b64decode(state["numbers"]["base64"])), dtype=torch.float32)
    assert layers[0] | {"at": 0} == {
        "name": "image", "kind": "image", "shape": [1, 28, 28], "at": 0, "jump": 1, "field": 1, "start": 0,
    }  # fmt: skip
    assert torch.equal(numbers[layers[0]["at"] :][: 28 * 28], image.flatten())
    weights = sum(value.numel() for name, value in network.state_dict().items() if "num_batches" not in name)
    assert layers[0]["at"] == weights
    with torch.no_grad():
        assert torch.equal(numbers[-10:], network(image[None])[0])
