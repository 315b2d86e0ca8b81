"""The checks of lesson 6's exercises."""

import math

import torch
import torch.nn.functional as F

from course.exercises.checking import (
    NotYet,
    check,
    check_network,
    compare_numbers,
    compare_tensors,
    result_of,
    tensor_from,
)

__all__ = [
    "check_gradient", "check_logit_gradients", "check_bias_gradients", "check_receptive_field",
    "check_batch_norm", "check_one_cycle", "check_tiny_network", "check_reached",
]  # fmt: skip


def compute_error(weights, biases):
    """The error of the network in part 1, as a tensor; the biases of h1, h2, o1 and o2."""
    inputs = torch.tensor([0.05, 0.10], dtype=torch.float64)
    targets = torch.tensor([0.01, 0.99], dtype=torch.float64)
    hidden = torch.sigmoid(weights[:4].view(2, 2) @ inputs + biases[:2])
    output = torch.sigmoid(weights[4:].view(2, 2) @ hidden + biases[2:])
    return ((targets - output) ** 2).sum() / 2


@check
def check_gradient(**gradients):
    """The gradients of w5 and w7 in part 1 when w5 is 0.8."""
    weights = torch.tensor([0.15, 0.20, 0.25, 0.30, 0.80, 0.45, 0.50, 0.55], dtype=torch.float64)
    weights.requires_grad_()
    compute_error(weights, biases=torch.zeros(4)).backward()
    right = {"w5": weights.grad[4].item(), "w7": weights.grad[6].item()}
    hints = {
        "w5": "change the weight in the first cell of part 1, "
        "then run the cells up to the gradients again",
        "w7": "run the cells again, and follow the path from w7 to the error",
    }
    compare_numbers(gradients, right, hints)


@check
def check_logit_gradients(function):
    """`function(logits, labels)` returns the gradients of the mean cross-entropy."""
    logits = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([3, 1, 4, 1])
    result = tensor_from(function, logits.clone(), labels)
    probabilities = logits.softmax(dim=1)
    one_hot = F.one_hot(labels, 10)
    right = (probabilities - one_hot) / 4

    def is_close_to(wrong):
        return result.shape == wrong.shape and torch.allclose(result.float(), wrong, atol=1e-5)

    if is_close_to(4 * right):
        raise NotYet(
            "these belong to the sum of the losses: their mean divides by the number of digits"
        )
    if is_close_to(-right):
        raise NotYet("the sign is wrong: a score that is too high has a positive gradient")
    if is_close_to(probabilities / 4):
        raise NotYet("something is missing: subtract 1 from the right digit's probability")
    if is_close_to(probabilities):
        raise NotYet(
            "subtract 1 from the right digit's probability, then divide by the number of digits"
        )
    if is_close_to((logits.softmax(dim=0) - one_hot) / 4):
        raise NotYet("each digit's probabilities add up to 1: softmax over dim=1")
    compare_tensors(result, right, "the gradients")


@check
def check_bias_gradients(function):
    """`function(weights, biases)` returns the gradients of the biases of h1, h2, o1 and o2."""
    weights = torch.tensor([0.15, 0.20, 0.25, 0.30, 0.40, 0.45, 0.50, 0.55], dtype=torch.float64)
    biases = torch.tensor([0.35, 0.35, 0.60, 0.60], dtype=torch.float64, requires_grad=True)
    compute_error(weights, biases).backward()
    result = tensor_from(function, weights.tolist(), biases.tolist()).double()
    if result.shape != (4,):
        raise NotYet(
            "your function should return four gradients, for the biases of h1, h2, o1 and o2"
        )
    for name, answer, right in zip(["h1", "h2", "o1", "o2"], result, biases.grad):
        if not math.isclose(answer, right, rel_tol=1e-3):
            raise NotYet(
                f"the gradient of {name}'s bias is not {answer:.6f}: "
                "how fast does the sum grow with it?"
            )


@check
def check_receptive_field(**fields):
    """The width of the field after `NetFC`'s conv4, and after `NetGAP`'s last 3×3 convolution."""
    right = {"NetFC_conv4": 14, "NetGAP_last": 22}
    hints = {
        "NetFC_conv4": "after the pooling, neighbouring cells are two pixels apart",
        "NetGAP_last": "each 3×3 convolution after the pooling adds the same number of pixels",
    }
    compare_numbers(fields, right, hints)


@check
def check_batch_norm(function):
    """`function(x)` is the first half of batch norm: maps of mean 0 and standard deviation 1."""
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 3 + 2
    result = tensor_from(function, x.clone()).float()
    if result.shape != x.shape:
        raise NotYet(f"the shape should stay {list(x.shape)}, but it became {list(result.shape)}")
    if torch.allclose(result, F.batch_norm(x, None, None, training=True), atol=2e-2):
        return
    centred = x - x.mean((0, 2, 3), keepdim=True)
    variance = x.var((0, 2, 3), keepdim=True)
    if torch.allclose(result, centred, atol=1e-3):
        raise NotYet("the mean is right: now divide by the standard deviation")
    if torch.allclose(result * variance, centred, rtol=0.03, atol=1e-3):
        raise NotYet("this divides by the variance: the standard deviation is its square root")
    if is_normalised(result, x, over=(0, 1, 2, 3)):
        raise NotYet("each map needs its own mean and deviation, not one for all maps together")
    if is_normalised(result, x, over=(2, 3)):
        raise NotYet("take the mean and deviation over the whole batch, not image by image")
    if is_normalised(result, x, over=(0,)):
        raise NotYet("each map has one mean, not one for every position in it")
    raise NotYet(
        "the shape is right, but not the values: "
        "mean and deviation go over three of the four dimensions"
    )


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


def check_cycle(function, steps, peak):
    """Check the learning rates of one training run."""
    rates = [float(result_of(function, step, steps, peak)) for step in range(steps)]
    top = rates.index(max(rates))
    rising = rates[: top + 1]
    falling = rates[top:]
    case = f"with {steps} steps and a peak of {peak}"
    if not math.isclose(max(rates), peak, rel_tol=0.05):
        raise NotYet(f"{case}, the largest rate is {max(rates):.4f}, but it should be the peak")
    if rates[0] > peak / 5:
        raise NotYet(
            f"{case}, the first rate is {rates[0]:.4f}: it should be much smaller than the peak"
        )
    if top > steps / 2:
        raise NotYet(f"{case}, the peak comes at step {top}: it should come within the first half")
    if not -1e-9 < rates[-1] <= peak / 20:
        raise NotYet(
            f"{case}, the last rate is {rates[-1]:.4f}: it should be almost zero, but not negative"
        )
    if rising != sorted(rising) or falling != sorted(falling, reverse=True):
        raise NotYet(f"{case}, the rate should only rise up to the peak, and only fall after it")


@check
def check_tiny_network(Network):
    """A network with fewer than 8,000 parameters."""
    check_network(Network, 8_000)


@check
def check_reached(accuracy, goal):
    """Whether the accuracy of a training run reaches its goal."""
    if 0 < accuracy <= 1:
        raise NotYet(f"{accuracy} looks like a fraction: it should be in per cent")
    if not 0 <= accuracy <= 100:
        raise NotYet(f"{accuracy} is not an accuracy in per cent")
    if accuracy < goal:
        raise NotYet(f"{accuracy:.2f} % is {goal - accuracy:.2f} points short of {goal} %")
