"""The checks of lesson 5's exercises; lesson 6 uses `check_step`, too."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from course.exercises.checking import (
    NotYet,
    Number,
    check,
    check_network,
    compare_numbers,
    compare_tensors,
    result_of,
    tensor_from,
)
from utils import Digits, device

__all__ = [
    "check_output_sizes", "check_parameters", "check_convolution", "check_accuracy",
    "check_shift", "check_step", "check_data_set", "check_small_network",
]  # fmt: skip


OF_28_PIXELS = "this is the answer for 28 pixels"
OUTPUT_SIZES = {
    "conv1": Number(
        30,
        "without padding, a 3×3 kernel fits into 32 pixels at fewer positions",
        {29: "the first position counts, too", 26: OF_28_PIXELS},
    ),
    "pool1": Number(
        14,
        "each convolution shrinks the maps, then pooling halves what is left",
        {
            15: "two convolutions come before the first pooling",
            28: "this is before the pooling, which halves it",
            16: "without padding, each convolution shrinks the maps before the pooling halves them",
            12: OF_28_PIXELS,
        },
    ),
    "conv4": Number(
        10,
        "start from pool1 and apply two more convolutions; pooling comes after them",
        {
            5: "this is after the second pooling",
            12: "these are the maps of conv3",
            8: OF_28_PIXELS,
        },
    ),
    "flat": Number(
        6400,
        "it is the number of maps times the cells in each, after the second pooling",
        {
            25_600: "the second pooling, before fc1, leaves a quarter of the cells",
            1280: "a map of 5×5 has 25 cells, not 5",
            4096: OF_28_PIXELS,
            25: "these are the cells of one map, but how many maps are there?",
            256: "this is the number of maps, but how many cells does each have?",
        },
    ),
}

PARAMETERS = {
    "conv2": Number(
        51_264,
        "each of its filters has a kernel for every map of conv1, and one bias",
        {
            18_496: "this is conv2 with 3×3 kernels, but a 5×5 kernel has 25 weights",
            51_200: "each of its filters has one bias, too",
            1664: "each of its filters has a kernel for every map of conv1",
            1600: "each of its filters has a kernel for every map of conv1, and one bias",
            51_232: "there is one bias for each filter, not for each map of conv1",
            53_248: "a filter has one bias, not one for each of its kernels",
        },
    ),
    "fc1": Number(
        409_700,
        "each of its neurons has a weight for every input, and one bias",
        {
            204_850: "this is fc1 with 50 outputs, but it should have 100",
            409_600: "each of its neurons has one bias, too",
            413_696: "there is one bias for each neuron, not for each input",
        },
    ),
}

CONVOLUTION = {
    "middle": Number(
        5,
        "multiply the four numbers of the middle square by the filter's, and add the products",
        {
            9: "one number of the filter is -1, so its product is subtracted",
            6: "the filter was turned round, but here it stays as it is written",
            4: "this is the corner, so move the filter one pixel down and to the right",
        },
    ),
    "width": Number(
        3,
        "at how many places does a filter of width 2 fit into 4 pixels?",
        {
            2: "the filter moves by one pixel at a time, so its places overlap",
            4: "without padding, the filter fits into 4 pixels at fewer places",
        },
    ),
}


@check
def check_output_sizes(**sizes):
    """The widths of `Net`'s maps and the length of its flat vector, if digits had 32×32 pixels."""
    compare_numbers(sizes, OUTPUT_SIZES)


@check
def check_parameters(**counts):
    """The parameters of `Net`'s conv2 with 5×5 kernels, and of its fc1 with 100 outputs."""
    compare_numbers(counts, PARAMETERS)


@check
def check_convolution(**answers):
    """The middle cell and the width of the map, for a 4×4 picture and a 2×2 filter."""
    compare_numbers(answers, CONVOLUTION)


@check
def check_accuracy(function):
    """`function(prediction, labels)` returns the accuracy in per cent."""
    prediction = torch.eye(10)[[3, 1, 4, 1]].log_softmax(1)
    check_one_accuracy(function, prediction, torch.tensor([3, 1, 4, 5]), right=3)
    check_one_accuracy(function, prediction[:3], torch.tensor([3, 1, 5]), right=2)


def check_one_accuracy(function, prediction, labels, right):
    """Check the accuracy of a batch with so many `right` answers."""
    size = len(labels)
    try:
        accuracy = tensor_from(function, prediction, labels).double()
    except RuntimeError as error:
        if "must match the size" not in str(error):
            raise
        if "dimension 1" in str(error):
            raise NotYet(
                "scores cannot be compared with labels: "
                "first find the place of each digit's largest score, with argmax"
            ) from None
        raise NotYet(
            f"ten answers cannot be compared with {size} labels: dim=0 takes the largest score "
            "of each column, but each digit has a row, so use dim=1"
        ) from None
    if accuracy.dim() > 0:
        raise NotYet("your function should return one number for the whole batch")
    if math.isclose(accuracy, right / size, rel_tol=1e-4) or accuracy == right:
        raise NotYet("close, but the answer should be in per cent, from 0 to 100")
    if not math.isclose(accuracy, 100 * right / size, abs_tol=0.05):
        raise NotYet(f"for a batch with {right} of {size} digits right, it returns {accuracy:g}")


@check
def check_shift(function):
    """`function(image)` shifts a 28×28 image one pixel to the right; the first column is 0."""
    image = torch.rand(28, 28, generator=torch.Generator().manual_seed(0)) + 0.1
    original = image.clone()
    result = tensor_from(function, image)
    if not torch.equal(image, original):
        raise NotYet("your function changes the original image: work on a copy")
    if result.shape == image.shape:
        refuse_other_shifts(image, result)
    shifted = F.pad(image, (1, 0))[:, :28]
    compare_tensors(result, shifted, "the shifted image")


def refuse_other_shifts(image, result):
    """Name the mistake, if a result looks like a common one."""
    overwritten = image.clone()
    overwritten[:, 1:] = overwritten[:, :-1]  # what this gives depends on PyTorch's order
    all_columns_are_equal = torch.equal(result[:, 2:], result[:, 1:2].expand(28, 26))
    if torch.equal(result[:, 2:], overwritten[:, 2:]) or all_columns_are_equal:
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


@check
def check_step(function):
    """`function(model, optimizer, images, labels)` takes one step of training."""
    one = weights_after(1, function)
    if torch.equal(one, weights_after(0, function)):
        raise NotYet(
            "the weights do not change: first clear the gradients, then call backward, then step"
        )
    if torch.allclose(one, weights_after(1, step_on_probabilities), atol=1e-6):
        raise NotYet(
            "cross_entropy computes softmax itself: give it the scores, not the probabilities"
        )
    if torch.allclose(one, weights_after(1, step_uphill), atol=1e-6):
        raise NotYet("the step makes the loss larger: its sign is wrong")
    if not torch.allclose(one, weights_after(1, right_step), atol=1e-6):
        raise NotYet(
            "the first step leads to other weights than gradient descent on the cross-entropy"
        )
    two = weights_after(2, function)
    if torch.equal(one, two):
        raise NotYet("the second step does not change the weights")
    if not torch.allclose(two, weights_after(2, right_step), atol=1e-6):
        raise NotYet(
            "the first step is right, but the second also repeats the gradients of the first"
        )


def weights_after(steps, function):
    """The weights of a small network after some steps, always from the same start."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 1, 28, 28, generator=generator).to(device)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]).to(device)
    layer = nn.Linear(784, 3, bias=False)
    layer.weight.data = torch.randn(3, 784, generator=generator) / 12
    model = nn.Sequential(nn.Flatten(), layer).to(device)
    calls = []
    model.register_forward_hook(lambda *_: calls.append("forward"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(steps):
        function(model, optimizer, images, labels)
    if len(calls) < steps:
        raise NotYet(
            "your function does not use the network that it is given: "
            "in it, the network is called model"
        )
    return layer.weight.detach().cpu()


def right_step(model, optimizer, images, labels):
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()


def step_uphill(model, optimizer, images, labels):
    optimizer.zero_grad()
    (-F.cross_entropy(model(images), labels)).backward()
    optimizer.step()


def step_on_probabilities(model, optimizer, images, labels):
    optimizer.zero_grad()
    F.cross_entropy(model(images).softmax(dim=1), labels).backward()
    optimizer.step()


@check
def check_data_set(function):
    """`function(images, labels)` returns a data set and a loader for pictures like MNIST's."""
    images = torch.arange(50, dtype=torch.uint8).view(50, 1, 1).repeat(1, 28, 28)
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
            "say where the pictures come from, or the table of results calls them MNIST: "
            'source="..."'
        )
    if loader.dataset is not data:
        raise NotYet("the loader should deliver the data set that you return with it")
    if len(data) != 50:
        raise NotYet(f"the data set should hold all 50 pictures, not {len(data)}")
    if loader.batch_size != 32:
        raise NotYet(f"the loader's batches should hold 32 pictures, not {loader.batch_size}")
    _, labels = next(iter(loader))
    if torch.equal(labels, torch.arange(32) % 10):
        raise NotYet("the loader should shuffle the pictures: shuffle=True")


@check
def check_small_network(Network):
    """A network with fewer than 50,000 parameters."""
    check_network(Network, 50_000)
