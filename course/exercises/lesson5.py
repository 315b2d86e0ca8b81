"""The checks of lesson 5's exercises; lesson 6 uses `check_step`, too."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from course.exercises.checking import (
    NotYet,
    Number,
    call,
    check,
    check_network,
    compare_numbers,
    compare_tensors,
    kind_of,
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
            625_968: "this is the whole network, but how many of them belong to conv2?",
        },
    ),
    "fc1": Number(
        409_700,
        "each of its neurons has a weight for every input, and one bias",
        {
            204_850: "this is fc1 with 50 outputs, but it should have 100",
            409_600: "each of its neurons has one bias, too",
            413_696: "there is one bias for each neuron, not for each input",
            640_100: "the digits keep 28×28 pixels here, so fc1 has 4,096 inputs",
            230_500: "change only one thing at a time: here, conv2 keeps its 3×3 kernels",
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
def check_output_sizes(*unnamed, **sizes):
    """The widths of `Net`'s maps and the length of its flat vector, if digits had 32×32 pixels."""
    compare_numbers(unnamed, sizes, OUTPUT_SIZES)


@check
def check_parameters(*unnamed, **counts):
    """The parameters of `Net`'s conv2 with 5×5 kernels, and of its fc1 with 100 outputs."""
    compare_numbers(unnamed, counts, PARAMETERS)


@check
def check_convolution(*unnamed, **answers):
    """The middle cell and the width of the map, for a 4×4 picture and a 2×2 filter."""
    compare_numbers(unnamed, answers, CONVOLUTION)


@check
def check_accuracy(function):
    """`function(prediction, labels)` returns the accuracy in per cent."""
    prediction = torch.eye(10)[[3, 1, 4, 1, 5, 9, 2, 6]].log_softmax(1)
    labels = torch.tensor([3, 1, 4, 1, 5, 3, 3, 3])
    check_one_accuracy(function, prediction, labels, right=5)
    check_one_accuracy(function, prediction[:3], torch.tensor([3, 1, 5]), right=2)


def check_one_accuracy(function, prediction, labels, right):
    """Check the accuracy of a batch with so many `right` answers."""
    size = len(labels)
    try:
        accuracy = tensor_from(function, prediction, labels).detach().double()
    except RuntimeError as error:
        explain_sizes(str(error), size)
        raise
    if accuracy.dim() > 0:
        raise NotYet("your function should return one number for the whole batch")
    if math.isclose(accuracy, right / size, rel_tol=1e-4) or accuracy == right:
        raise NotYet("close, but the answer should be in per cent, from 0 to 100")
    per_cent = 100 * right / size
    if not math.isclose(accuracy, per_cent, abs_tol=0.05):
        refuse_other_accuracies(accuracy, prediction, labels)
        if math.isclose(accuracy, per_cent, abs_tol=1):
            raise NotYet("do not round the accuracy")
        raise NotYet(f"for a batch with {right} of {size} digits right, it returns {accuracy:g}")


def explain_sizes(error, size):
    """Say why PyTorch could not compare two tensors, if that is the error."""
    if "must match the size" not in error:
        return
    if "(10)" not in error:
        raise NotYet("the sizes differ: use the prediction and the labels that are given")
    if "dimension 1" in error:
        raise NotYet(
            "ten numbers cannot be compared with one: compare the labels themselves with the "
            "places of the largest scores, which you find with argmax"
        )
    raise NotYet(
        f"ten answers cannot be compared with {size} labels: dim=0 takes the largest score "
        "of each column, but each digit has a row, so use dim=1"
    )


def refuse_other_accuracies(accuracy, prediction, labels):
    """Name the mistake, if an accuracy looks like a common one."""
    wrong = prediction.argmax(dim=1) != labels
    without_dim = prediction.argmax() == labels
    pairs = prediction.argmax(dim=1, keepdim=True) == labels
    if accuracy == 0:
        raise NotYet("it finds no right answer: argmax gives the places of the largest scores")
    if math.isclose(accuracy, 100 * wrong.double().mean(), rel_tol=1e-4):
        raise NotYet("this is the share of the wrong answers")
    if math.isclose(accuracy, 100 * without_dim.double().mean(), rel_tol=1e-4):
        raise NotYet("argmax finds one place in all rows: each digit has a row, so use dim=1")
    for count in (pairs.numel(), len(labels)):
        if math.isclose(accuracy, 100 * pairs.sum() / count, rel_tol=1e-4):
            raise NotYet("it compares each answer with all labels: leave out keepdim")


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
    if not result[:, 1:].any():
        raise NotYet("the image is empty: copy the columns of the original into it")
    if torch.equal(result[:, 1:], image[:, 1:]):
        raise NotYet("the image has not moved")
    refuse_overwritten_columns(image, result)
    refuse_other_directions(image, result)
    if torch.equal(result, image.roll(1, 1)):
        raise NotYet("the last column reappears on the left: the first column should be 0")
    if torch.equal(result[:, 1:], image[:, :-1]) and result[:, 0].any():
        raise NotYet("the image moved, but its first column should be 0 now")


def refuse_overwritten_columns(image, result):
    overwritten = image.clone()
    overwritten[:, 1:] = overwritten[:, :-1]  # what this gives depends on PyTorch's order
    all_columns_are_equal = torch.equal(result[:, 2:], result[:, 1:2].expand(28, 26))
    if torch.equal(result[:, 2:], overwritten[:, 2:]) or all_columns_are_equal:
        raise NotYet(
            "it reads columns that are already overwritten: read them from the original image"
        )


def refuse_other_directions(image, result):
    if torch.equal(result[1:], image[:-1]):
        raise NotYet("the image moved down, not to the right")
    if torch.equal(result[:-1], image[1:]):
        raise NotYet("the image moved up, not to the right")
    if torch.equal(result[:, :-1], image[:, 1:]):
        raise NotYet("the image moved to the left")
    if torch.equal(result[:, 2:], image[:, :-2]):
        raise NotYet("the image moved by two pixels")


PARENTHESES = "(are the parentheses of a call missing?)"


@check
def check_step(function):
    """`function(model, optimizer, images, labels)` takes one step of training."""
    one = weights_after(1, function)
    if torch.equal(one, weights_after(0, function)):
        raise NotYet(
            "the weights do not change: first clear the gradients, then call backward, then step "
            + PARENTHESES
        )
    for hint, loss in WRONG_LOSSES.items():
        if torch.allclose(one, weights_after(1, step_with(loss)), atol=1e-6):
            raise NotYet(hint)
    if not torch.allclose(one, weights_after(1, step_with(F.cross_entropy)), atol=1e-6):
        raise NotYet(
            "the first step leads to other weights than gradient descent on the cross-entropy: "
            "use the given optimizer, and take one step"
        )
    two = weights_after(2, function)
    if torch.equal(one, two):
        raise NotYet("the second step does not change the weights")
    if not torch.allclose(two, weights_after(2, step_with(F.cross_entropy)), atol=1e-6):
        raise NotYet(
            "the first step is right, but the second also repeats the gradients of the first "
            + PARENTHESES
        )


def weights_after(steps, function):
    """The weights of a small network after some steps, always from the same start."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 1, 28, 28, generator=generator).to(device)
    labels = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6]).to(device)
    layer = nn.Linear(784, 10, bias=False)
    layer.weight.data = torch.randn(10, 784, generator=generator) / 12
    model = nn.Sequential(nn.Flatten(), layer).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    calls = []
    layer.register_forward_hook(lambda *_: calls.append("forward"))
    optimizer.register_step_post_hook(lambda *_: calls.append("step"))
    for _ in range(steps):
        call(function, model, optimizer, images, labels)
    if steps > 0 and not calls:
        raise NotYet("still open: your function calls neither the model nor optimizer.step()")
    if calls.count("forward") < steps:
        raise NotYet(
            "your function does not use the network that it is given: "
            "in it, the network is called model"
        )
    return layer.weight.detach().cpu()


def step_with(loss):
    """A step of training with a loss function."""

    def step(model, optimizer, images, labels):
        optimizer.zero_grad()
        loss(model(images), labels).backward()
        optimizer.step()

    return step


WRONG_LOSSES = {
    "cross_entropy computes softmax itself: give it the scores, not the probabilities": (
        lambda scores, labels: F.cross_entropy(scores.softmax(dim=1), labels)
    ),
    "the step makes the loss larger: its sign is wrong": (
        lambda scores, labels: -F.cross_entropy(scores, labels)
    ),
    "take the mean of the losses, not their sum": (
        lambda scores, labels: F.cross_entropy(scores, labels, reduction="sum")
    ),
    "nll_loss needs log-probabilities: use cross_entropy on the scores": F.nll_loss,
    "nll_loss needs log-probabilities, not probabilities: use cross_entropy on the scores": (
        lambda scores, labels: F.nll_loss(scores.softmax(dim=1), labels)
    ),
}


@check
def check_data_set(function):
    """`function(images, labels)` returns a data set and a loader for pictures like MNIST's."""
    images = torch.arange(50, dtype=torch.uint8).view(50, 1, 1).repeat(1, 28, 28)
    answer = result_of(function, images, torch.arange(50) % 10)
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        raise NotYet("return two things: the data set and the loader")
    data, loader = answer
    if isinstance(data, DataLoader):
        raise NotYet("return the data set first, then the loader")
    if not isinstance(data, Digits):
        raise NotYet("the data set should be made by utils.Digits(images, labels, ...)")
    check_digits(data)
    if not isinstance(loader, DataLoader):
        raise NotYet(f"the second thing should be a DataLoader, not {kind_of(loader)}")
    if loader.dataset is not data:
        raise NotYet("the loader should deliver the data set that you return with it")
    if loader.batch_size != 32:
        raise NotYet(f"the loader's batches should hold 32 pictures, not {loader.batch_size}")
    _, labels = next(iter(loader))
    _, labels_again = next(iter(loader))
    if torch.equal(labels, labels_again):
        raise NotYet("the loader should shuffle the pictures: shuffle=True")


def check_digits(data):
    """Check the data set: it should have all pictures, their labels, and their source."""
    if isinstance(data.transform, str):
        raise NotYet('the third argument is the transform: write source="..."')
    if not isinstance(data.source, str) or not data.source:
        raise NotYet('the source should be a name, such as "Fashion-MNIST"')
    if data.source.upper() == "MNIST":
        raise NotYet(
            "say where the pictures come from, or the table of results calls them MNIST: "
            'source="..."'
        )
    if len(data) != 50:
        raise NotYet(f"the data set should hold all 50 pictures, not {len(data)}")
    if not torch.equal(data.data[:, 0, 0] % 10, data.targets.to(torch.uint8)):
        raise NotYet("the labels no longer belong to their pictures")


@check
def check_small_network(Network):
    """A network with fewer than 50,000 parameters."""
    check_network(Network, 50_000)
