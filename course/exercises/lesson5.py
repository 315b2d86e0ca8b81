"""The checks of lesson 5's exercises."""

import math

import torch
import torch.nn.functional as F

from course.exercises.checking import (
    NotYet,
    check,
    check_network,
    compare,
    result_of,
    same,
    tensor_from,
)
from utils import Digits

__all__ = [
    "check_output_sizes", "check_parameters", "check_convolution", "check_accuracy",
    "check_shift", "check_data_set", "check_small_network",
]  # fmt: skip


@check
def check_output_sizes(**sizes):
    """The width of the maps after conv1, pool1 and conv4 of `Net`, and the length of the flat vector."""
    compare(
        sizes,
        {"conv1": 26, "pool1": 12, "conv4": 8, "flat": 4096},
        {
            "conv1": "without padding, a 3×3 kernel fits into 28 pixels at fewer positions",
            "pool1": "each of the two convolutions shrinks the maps, then pooling halves what is left",
            "conv4": "start from pool1 and apply two more convolutions; the pooling comes after them",
            "flat": "it is the number of maps times the number of cells in each, after the second pooling",
        },
    )


@check
def check_parameters(**counts):
    """The number of parameters of `Net`'s conv2 with 5×5 kernels, and of its fc1 with 100 outputs."""
    compare(
        counts,
        {"conv2": 51_264, "fc1": 409_700},
        {
            "conv2": "each of its filters has a kernel for every map of conv1, and one bias",
            "fc1": "each of its neurons has a weight for every input, and one bias",
        },
    )


@check
def check_convolution(**answers):
    """The cell in the middle, and the width of the map, of the 4×4 picture and the 2×2 filter."""
    compare(
        answers,
        {"middle": 7, "width": 3},
        {
            "middle": "multiply the four numbers of the middle square by the filter's, and add the products",
            "width": "at how many places does a filter of width 2 fit into 4 pixels?",
        },
    )


@check
def check_accuracy(function):
    """`function(prediction, labels)` returns the accuracy in per cent."""
    prediction = torch.eye(10)[[3, 1, 4, 1]].log_softmax(1)
    for labels, right in [([3, 1, 4, 5], 3), ([3, 1, 5], 2)]:
        try:
            share = tensor_from(function, prediction[: len(labels)], torch.tensor(labels)).double()
        except RuntimeError as error:
            if "must match the size" not in str(error):
                raise
            raise NotYet(
                f"ten answers cannot be compared with {len(labels)} labels: dim=0 takes the largest score of "
                "each column, but each digit has a row, so use dim=1"
            ) from None
        if share.dim():
            raise NotYet("your function should return one number for the whole batch")
        if math.isclose(share, right / len(labels), rel_tol=1e-4) or share == right:
            raise NotYet("close, but the answer should be in per cent, from 0 to 100")
        if not math.isclose(share, 100 * right / len(labels), abs_tol=0.05):
            raise NotYet(
                f"for a batch with {right} of {len(labels)} digits right, it returns {share:g}"
            )


@check
def check_shift(function):
    """`function(image)` shifts a 28×28 image one pixel to the right and fills the first column with 0."""
    image = torch.rand(28, 28, generator=torch.Generator().manual_seed(0)) + 0.1
    kept = image.clone()
    result = tensor_from(function, image)
    if not torch.equal(image, kept):
        raise NotYet("your function changes the original image: work on a copy")
    if result.shape == image.shape:
        smeared = image.clone()
        smeared[:, 1:] = smeared[:, :-1]
        if torch.equal(result[:, 2:], smeared[:, 2:]) or not (result[:, 2:] - result[:, 1:2]).any():
            raise NotYet(
                "it reads columns that are already overwritten: read them from the original image"
            )
        if torch.equal(result, image.roll(1, 1)):
            raise NotYet("the last column reappears on the left: the first column should be 0")
        if torch.equal(result[1:], image[:-1]):
            raise NotYet("the image moved down, not to the right")
        if torch.equal(result[:, :-1], image[:, 1:]):
            raise NotYet("the image moved to the left")
        if torch.equal(result[:, 2:], image[:, :-2]):
            raise NotYet("the image moved by two pixels")
        if torch.equal(result[:, 1:], image[:, :-1]) and result[:, 0].any():
            raise NotYet("the image moved, but its first column should be 0 now")
    same(result, F.pad(image, (1, 0))[:, :28], "the shifted image")


@check
def check_data_set(function):
    """`function(images, labels)` returns a data set and a loader for pictures in MNIST's format."""
    images = torch.arange(50).remainder(256).to(torch.uint8).view(50, 1, 1).repeat(1, 28, 28)
    answer = result_of(function, images, torch.arange(50) % 10)
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise NotYet("return two things: the data set and the loader")
    data, loader = answer
    if isinstance(loader, Digits):
        raise NotYet("return the data set first, then the loader")
    if not isinstance(data, Digits):
        raise NotYet("the data set should be made by utils.Digits(images, labels, ...)")
    if data.source == "MNIST":
        raise NotYet(
            'say where the pictures come from, or the table of results calls them MNIST: source="..."'
        )
    if loader.dataset is not data:
        raise NotYet("the loader should deliver the data set that you return with it")
    if len(data) != 50:
        raise NotYet(f"the data set should hold all 50 pictures, not {len(data)}")
    batch, labels = next(iter(loader))
    if len(batch) != 32:
        raise NotYet(f"the loader's batches should hold 32 pictures, not {len(batch)}")
    if torch.equal(labels, torch.arange(32) % 10):
        raise NotYet("the loader should shuffle the pictures: shuffle=True")


@check
def check_small_network(Network):
    """A network with fewer than 50,000 parameters."""
    check_network(Network, 50_000)
