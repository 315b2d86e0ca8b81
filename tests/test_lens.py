"""The lens in Python; what happens in the browser is tested in tests/browser/test_lens_js.py."""

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
