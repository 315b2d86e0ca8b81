"""The checks of lesson 6's exercises."""

import itertools
import math

import torch
import torch.nn.functional as F

from course.exercises.checking import (
    NotYet,
    Number,
    check,
    check_network,
    compare_numbers,
    compare_tensors,
    number_from,
    rounded,
    tensor_from,
)
from course.insight import CallRecorder
from model import NetMini

__all__ = [
    "check_gradient", "check_logit_gradients", "check_bias_gradients", "check_receptive_field",
    "check_batch_norm", "check_one_cycle", "check_tiny_network", "check_reached",
]  # fmt: skip


GRADIENTS = {
    "w5": Number(
        0.0738608,
        "change the weight in the first cell of part 1, "
        "then run the cells up to the gradients again",
        {
            0.0721571: "this is the gradient where w5 is 0.40; "
            "after you change it, run all cells of part 1 again",
            -0.0738608: "the sign is wrong, because the first output is too large "
            "and a larger w5 makes it larger still",
            -0.0424553: "this is the gradient of w7",
            0.073768: "this is the gradient where w6 is 0.80, but w5 should be",
        },
    ),
    "w7": Number(
        -0.0424553,
        "run the cells again, and follow the path from w7 to the error",
        {
            0.0424553: "the sign is wrong, because the second output is too small "
            "and a larger w7 brings it nearer to its target",
            0.0738608: "this is the gradient of w5",
            0.0721571: "this is the gradient of w5 where w5 is 0.40",
            0: "it has not changed, but it is not 0: w5 leads only to o1, w7 only to o2",
        },
    ),
}

ADDED_PIXELS = "a layer adds (kernel - 1) · jump pixels; after the pooling, the jump is 2"
APART = "after the pooling, neighbouring cells are two pixels apart"
WIDER = "the pooling makes the field a little wider, too"
RECEPTIVE_FIELDS = {
    "NetFC_conv4": Number(
        14,
        ADDED_PIXELS,
        {
            10: APART,
            13: WIDER,
            16: "this is after the second pooling, or with 5 · 2 pixels for the 5×5 convolution, "
            "which adds (5 - 1) · 2",
        },
    ),
    "NetGAP_last": Number(
        22,
        ADDED_PIXELS,
        {
            14: APART,
            21: WIDER,
            18: "one more 3×3 convolution follows, or you doubled 5, but pooling adds 1",
            32: "this is after the average pooling",
        },
    ),
}


@check
def check_gradient(*unnamed, **gradients):
    """The gradients of w5 and w7 in part 1 when w5 is 0.8."""
    compare_numbers(unnamed, gradients, GRADIENTS)


@check
def check_logit_gradients(function):
    """`function(logits, labels)` returns the gradients of the mean cross-entropy."""
    logits = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([3, 1, 4, 1])
    for size in (4, 3):
        check_gradients_of_batch(function, logits[:size], labels[:size])


def check_gradients_of_batch(function, logits, labels):
    with CallRecorder() as recorder:
        result = tensor_from(function, logits.clone(), labels).detach()
    if {"backward", "grad"} & {call.function for call in recorder.calls}:
        raise NotYet("PyTorch did the work here: use the formula, without backward")
    difference = logits.softmax(dim=1) - F.one_hot(labels, 10)
    right = difference / len(labels)
    if result.shape == right.shape and not torch.allclose(result.float(), right, atol=1e-5):
        refuse_other_gradients(result.float(), logits, labels)
        refuse_other_factors(result.float(), difference)
    compare_tensors(result, right, "the gradients")


def refuse_other_gradients(result, logits, labels):
    """Name the mistake, if a result looks like a common one."""
    size = len(labels)
    p = logits.softmax(dim=1)
    one_hot = F.one_hot(labels, 10)

    def is_close_to(wrong):
        return torch.allclose(result, wrong, atol=1e-5)

    if is_close_to(p / size):
        raise NotYet("something is missing: subtract 1 from the right digit's probability")
    if is_close_to(p):
        raise NotYet(
            "subtract 1 from the right digit's probability, then divide by the number of digits"
        )
    if is_close_to((logits.softmax(dim=0) - one_hot) / size):
        raise NotYet("each digit's probabilities add up to 1: softmax over dim=1")
    if is_close_to(p - one_hot / size):
        raise NotYet("put the difference in parentheses: all of it is divided, not only one_hot")
    if is_close_to((p - one_hot.amax(dim=0)) / size):
        raise NotYet("p[:, labels] changes all rows: use p[range(len(labels)), labels]")


def refuse_other_factors(result, difference):
    """Name the mistake, if only the sign or the division by the number of digits is wrong."""
    factor = ((result * difference).sum() / (difference**2).sum()).item()
    if factor == 0 or not torch.allclose(result, factor * difference, atol=1e-5):
        return
    if factor < 0:
        raise NotYet("the sign is wrong: a score that is too high has a positive gradient")
    if math.isclose(factor, 1, rel_tol=1e-3):
        raise NotYet(
            "these belong to the sum of the losses: their mean divides by the number of digits"
        )
    raise NotYet(f"divide by the number of digits in the batch, here {len(difference)}")


@check
def check_bias_gradients(function):
    """`function(weights, biases)` returns the gradients of the biases of h1, h2, o1 and o2."""
    weights = [0.15, 0.20, 0.25, 0.30, 0.40, 0.45, 0.50, 0.55]
    biases = [0.35, 0.35, 0.60, 0.60]
    result = tensor_from(function, list(weights), list(biases)).double()
    if result.shape != (4,):
        raise NotYet(
            "your function should return four gradients, for the biases of h1, h2, o1 and o2"
        )
    for hint, wrong in wrong_bias_gradients(weights, biases).items():
        if torch.allclose(result, torch.tensor(wrong).double(), rtol=1e-3, atol=0):
            raise NotYet(hint)
    h1, h2, o1, o2 = result.tolist()
    right_h1, right_h2, right_o1, right_o2 = bias_gradients(weights, biases)
    of_sum = "a bias has the gradient of the sum that it is added to, here "
    both_paths = "o1 and o2 are right, so add both paths: "
    compare_gradient("o1", o1, right_o1, of_sum + "o1")
    compare_gradient("o2", o2, right_o2, of_sum + "o2")
    compare_gradient("h1", h1, right_h1, both_paths + "(o1 · w5 + o2 · w7) · slope")
    compare_gradient("h2", h2, right_h2, both_paths + "(o1 · w6 + o2 · w8) · slope")


def compare_gradient(name, answer, gradient, hint):
    if math.isclose(answer, gradient, rel_tol=1e-3):
        return
    if any(math.isclose(answer, number, rel_tol=1e-6) for number in rounded(gradient)):
        raise NotYet("the first digits are right: do not round the gradients")
    raise NotYet(f"the gradient of {name}'s bias is not {answer:.6f}: {hint}")


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def activations(weights, biases):
    """The activations of h1, h2, o1 and o2 in part 1."""
    w1, w2, w3, w4, w5, w6, w7, w8 = weights
    h1 = sigmoid(w1 * 0.05 + w2 * 0.10 + biases[0])
    h2 = sigmoid(w3 * 0.05 + w4 * 0.10 + biases[1])
    o1 = sigmoid(w5 * h1 + w6 * h2 + biases[2])
    o2 = sigmoid(w7 * h1 + w8 * h2 + biases[3])
    return h1, h2, o1, o2


def bias_gradients(weights, biases):
    """The gradients of the four sums, and so of their biases."""
    _, _, _, _, w5, w6, w7, w8 = weights
    h1, h2, o1, o2 = activations(weights, biases)
    by_o1 = (o1 - 0.01) * o1 * (1 - o1)
    by_o2 = (o2 - 0.99) * o2 * (1 - o2)
    by_h1 = (by_o1 * w5 + by_o2 * w7) * h1 * (1 - h1)
    by_h2 = (by_o1 * w6 + by_o2 * w8) * h2 * (1 - h2)
    return [by_h1, by_h2, by_o1, by_o2]


def wrong_bias_gradients(weights, biases):
    """What common mistakes lead to: a hint, and four numbers."""
    _, _, _, _, w5, w6, w7, w8 = weights
    h1, h2, o1, o2 = activations(weights, biases)
    by_h1, by_h2, by_o1, by_o2 = bias_gradients(weights, biases)
    slope_h1 = h1 * (1 - h1)
    slope_h2 = h2 * (1 - h2)
    d1 = o1 - 0.01
    d2 = o2 - 0.99
    return {
        "these are the right numbers in another order: h1 and h2 come first": [
            by_o1, by_o2, by_h1, by_h2
        ],
        "the signs are wrong: the bias of an output that is too large has a positive gradient": [
            -by_h1, -by_h2, -by_o1, -by_o2
        ],
        "these are twice the gradients: the ½ in the error cancels the 2 of its derivative": [
            2 * by_h1, 2 * by_h2, 2 * by_o1, 2 * by_o2
        ],
        "the biases are missing from the sums, before the sigmoid": bias_gradients(
            weights, [0, 0, 0, 0]
        ),
        "two weights are swapped: h1 reaches the outputs through w5 and w7": [
            (by_o1 * w5 + by_o2 * w6) * slope_h1, (by_o1 * w7 + by_o2 * w8) * slope_h2, by_o1, by_o2
        ],
        "h1 and h2 reach both outputs: add up the two paths": [
            by_o1 * w5 * slope_h1, by_o2 * w8 * slope_h2, by_o1, by_o2
        ],
        "the slope of the hidden neurons' sigmoid is missing, such as a_h1 * (1 - a_h1)": [
            by_o1 * w5 + by_o2 * w7, by_o1 * w6 + by_o2 * w8, by_o1, by_o2
        ],
        "the slope of the outputs' sigmoid is missing, such as a_o1 * (1 - a_o1)": [
            (d1 * w5 + d2 * w7) * slope_h1, (d1 * w6 + d2 * w8) * slope_h2, d1, d2
        ],
    }  # fmt: skip


@check
def check_receptive_field(*unnamed, **fields):
    """The width of the field after `NetFC`'s conv4, and after `NetGAP`'s last 3×3 convolution."""
    compare_numbers(unnamed, fields, RECEPTIVE_FIELDS)


@check
def check_batch_norm(function):
    """`function(x)` is the first half of batch norm: maps of mean 0 and standard deviation 1."""
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 3 + 2
    try:
        result = tensor_from(function, x.clone()).float()
    except RuntimeError as error:
        if "must match the size" not in str(error):
            raise
        raise NotYet("the mean has lost its dimensions: keepdim=True keeps them") from None
    if result.shape != x.shape:
        raise NotYet(f"the shape should stay {list(x.shape)}, but it became {list(result.shape)}")
    if torch.allclose(result, F.batch_norm(x, None, None, training=True), atol=2e-2):
        return
    mean = x.mean((0, 2, 3), keepdim=True)
    deviation = x.std((0, 2, 3), keepdim=True)
    centred = x - mean
    if torch.allclose(result, x - mean / deviation, rtol=0.03, atol=2e-2):
        raise NotYet("x - mean / deviation divides only the mean: put x - mean in parentheses")
    if torch.allclose(result, centred, atol=1e-3):
        raise NotYet("the mean is right: now divide by the standard deviation")
    if torch.allclose(result * deviation**2, centred, rtol=0.03, atol=1e-3):
        raise NotYet("this divides by the variance: the standard deviation is its square root")
    if is_normalised(-result, x, over=(0, 2, 3)):
        raise NotYet("the sign is wrong: subtract the mean from x, not x from the mean")
    refuse_other_dimensions(result, x)
    mean = result[:, 0].mean().item()
    deviation = result[:, 0].std().item()
    raise NotYet(
        f"the first map now has mean {round(mean, 2) + 0.0:.2f} "  # 0.00 instead of -0.00
        f"and standard deviation {deviation:.2f}, instead of 0 and 1"
    )


IMAGES_ROWS_AND_COLUMNS = "take the mean over the images, rows and columns: each map has only one"
OTHER_DIMENSIONS = {
    (0, 1, 2, 3): "each map needs its own mean and deviation, not one for all maps together",
    (2, 3): "take the mean and deviation over the whole batch, not image by image",
    (0,): "each map has one mean, not one for every position in it",
}


def refuse_other_dimensions(result, x):
    """Name the mistake, if the means are those over other dimensions."""
    for count in range(1, 5):
        for over in itertools.combinations(range(4), count):
            if is_normalised(result, x, over):
                raise NotYet(OTHER_DIMENSIONS.get(over, IMAGES_ROWS_AND_COLUMNS))


def is_normalised(result, x, over):
    """Whether `result` is x with mean 0 and deviation 1 over some dimensions."""
    centred = x - x.mean(over, keepdim=True)
    for correction in (0, 1):
        deviation = x.std(over, correction=correction, keepdim=True)
        if torch.allclose(result, centred / deviation, atol=1e-3):
            return True
    return False


@check
def check_one_cycle(function):
    """`function(step, steps, peak)`: rates that rise to the peak, then fall to almost zero."""
    check_cycle(function, steps=100, peak=0.1)
    check_cycle(function, steps=100, peak=1.0)
    check_cycle(function, steps=250, peak=0.1)
    check_cycle(function, steps=50, peak=0.1)


def check_cycle(function, steps, peak):
    """Check the learning rates of one training run."""
    rates = [rate_at(function, step, steps, peak) for step in range(steps)]
    top = rates.index(max(rates))
    rising = rates[: top + 1]
    falling = rates[top:]
    case = f"with {steps} steps and a peak of {peak}"
    if min(rates) < -1e-9:
        raise NotYet(f"{case}, the smallest rate is {min(rates):.4f}: it should not be negative")
    if not math.isclose(max(rates), peak, rel_tol=0.05):
        raise NotYet(f"{case}, the largest rate is {max(rates):.4f}, but it should be the peak")
    if rates[0] > peak / 5:
        raise NotYet(
            f"{case}, the first rate is {rates[0]:.4f}: "
            f"it should be below {peak / 5:.4f}, a fifth of the peak"
        )
    if top > steps / 2:
        raise NotYet(f"{case}, the peak comes at step {top}: it should come within the first half")
    if rates[-1] > peak / 20:
        raise NotYet(
            f"{case}, the last rate is {rates[-1]:.4f}: "
            f"it should be below {peak / 20:.4f}, a twentieth of the peak"
        )
    if rising != sorted(rising) or falling != sorted(falling, reverse=True):
        raise NotYet(f"{case}, the rate should only rise up to the peak, and only fall after it")


def rate_at(function, step, steps, peak):
    """The learning rate of one step."""
    name = f"for step {step} of {steps}, your function" if step > 0 else "your function"
    rate = tensor_from(function, step, steps, peak, name=name)
    if rate.numel() != 1:
        raise NotYet("return one rate, for this step")
    return rate.item()


@check
def check_tiny_network(Network):
    """A network with fewer than 8,000 parameters, other than `NetMini`."""
    network = check_network(Network, 8_000)
    shapes = [parameter.shape for parameter in network.parameters()]
    if shapes == [parameter.shape for parameter in NetMini().parameters()]:
        raise NotYet("this is NetMini: find another")


@check
def check_reached(accuracy, goal):
    """Whether the accuracy of a training run reaches its goal."""
    accuracy = number_from("accuracy", accuracy)
    if 0 < accuracy <= 1:
        raise NotYet(f"{accuracy:g} looks like a fraction: it should be in per cent")
    if not 0 <= accuracy <= 100:
        raise NotYet(f"{accuracy:g} is not an accuracy in per cent")
    missing = goal - accuracy
    if missing > 1e-4:  # a tensor of 32 bits may be a little smaller
        digits = 2 if missing >= 0.01 else 4
        raise NotYet(f"{accuracy:.{digits}f} % is {missing:.{digits}f} points short of {goal} %")
