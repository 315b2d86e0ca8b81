"""Checks for the exercises: each says whether an answer is right, or what is wrong with it.

    from course.exercises import check_parameters
    check_parameters(conv2=..., fc1=...)  # replace the dots with your answers

Each check prints one line and returns True or False, so a notebook with open exercises still runs.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import nn

__all__ = [
    # lesson 5
    "check_output_sizes", "check_parameters", "check_normalise", "check_accuracy", "check_shift",
    "check_small_network",
    # lesson 6
    "check_gradient", "check_sigmoid_slope", "check_bias_gradients", "check_receptive_field",
    "check_batch_norm", "check_one_cycle", "check_tiny_network", "check_reached",
]  # fmt: skip


class NotYet(Exception):
    """The answer is not right yet; the message says why."""


def check(function):
    """Decorator: make a function that raises NotYet print one line and return True or False."""

    @functools.wraps(function)
    def checked(*answers, **named):
        try:
            if any(answer is ... for answer in [*answers, *named.values()]):
                raise NotYet("still open: put your answer in place of the dots")
            function(*answers, **named)
        except NotYet as reason:
            print(f"✗ {reason}.")
            return False
        except Exception as error:  # the learner's own function may raise anything
            print(f"✗ your code stopped with {type(error).__name__}: {error}")
            return False
        print("✓ Right!")
        return True

    return checked


def _compare(given, right, hints):
    """Check that every number is right; give the hint for the first one that is not."""
    if unknown := set(given) - set(right):
        raise NotYet(f"there is no {unknown.pop()!r} here, only {', '.join(right)}")
    if missing := set(right) - set(given):
        raise NotYet(f"{missing.pop()!r} is missing")
    for name, value in given.items():
        try:
            value = float(value)
        except (TypeError, ValueError):
            raise NotYet(f"{name} should be a number, not {value!r}") from None
        tolerance = 0 if isinstance(right[name], int) else 5e-3  # only counts must be exact
        if not math.isclose(value, right[name], rel_tol=tolerance):
            raise NotYet(f"{name} is not {value:g}: {hints[name]}")


def _tensor_from(function, *inputs):
    result = function(*inputs)
    if result is None or result is ...:
        raise NotYet("your function returns nothing yet")
    return result if isinstance(result, torch.Tensor) else torch.as_tensor(result)


def _same(result, expected, what):
    if result.shape != expected.shape:
        raise NotYet(f"{what} should have the shape {list(expected.shape)}, not {list(result.shape)}")
    if not torch.allclose(result.double(), expected.double(), rtol=1e-4, atol=1e-5):
        raise NotYet(f"{what} has the right shape, but not the right values")


# --- Lesson 5 ----------------------------------------------------------------------------------


@check
def check_output_sizes(**sizes):
    """The width of the maps after conv1, pool1 and conv4 of `Net`, and the length of the flat vector."""
    _compare(
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
    _compare(
        counts,
        {"conv2": 51_264, "fc1": 409_700},
        {
            "conv2": "each of its filters has a kernel for every map of conv1, and one bias",
            "fc1": "each of its neurons has a weight for every input, and one bias",
        },
    )


@check
def check_normalise(function):
    """`function` turns uint8 images [N, 28, 28] into normalised float images [N, 1, 28, 28]."""
    images = torch.arange(2 * 28 * 28).remainder(256).to(torch.uint8).view(2, 28, 28)
    result = _tensor_from(function, images)
    if not result.is_floating_point():
        raise NotYet("the result should contain floating-point numbers")
    if result.dim() == 3:
        raise NotYet("networks expect a dimension for the colour channels too, right after the images'")
    if result.max() > 50:
        raise NotYet("the values are far too large: divide by 255 before you subtract the mean")
    _same(result, ((images / 255 - 0.1307) / 0.3081).unsqueeze(1), "the result")


@check
def check_accuracy(function):
    """`function(prediction, labels)` returns the accuracy in per cent."""
    prediction = torch.eye(10)[[3, 1, 4, 1]].log_softmax(1)
    for labels, right in [([3, 1, 4, 5], 3), ([3, 1, 5], 2)]:
        share = _tensor_from(function, prediction[: len(labels)], torch.tensor(labels)).double()
        if share.dim():
            raise NotYet("your function should return one number for the whole batch")
        if math.isclose(share, right / len(labels), rel_tol=1e-4) or share == right:
            raise NotYet("close, but the answer should be in per cent, from 0 to 100")
        if not math.isclose(share, 100 * right / len(labels), rel_tol=1e-4):
            raise NotYet(f"for a batch with {right} of {len(labels)} digits right, it returns {share:g}")


@check
def check_shift(function):
    """`function(image)` shifts a 28×28 image one pixel to the right and fills the first column with 0."""
    image = torch.rand(28, 28, generator=torch.Generator().manual_seed(0)) + 0.1
    kept = image.clone()
    result = _tensor_from(function, image)
    if not torch.equal(image, kept):
        raise NotYet("your function changes the original image: work on a copy")
    if result.shape == image.shape:
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
    _same(result, F.pad(image, (1, 0))[:, :28], "the shifted image")


def _items(value):
    return value if isinstance(value, (list, tuple)) else []


def _check_network(Network, limit):
    model = Network() if isinstance(Network, type) else Network
    if not isinstance(model, nn.Module):
        raise NotYet("a network is a class that inherits from nn.Module")
    if any(isinstance(part, nn.Module) for value in vars(model).values() for part in _items(value)):
        raise NotYet("PyTorch does not find layers in a plain list: use nn.Sequential or nn.ModuleList")
    count = sum(parameter.numel() for parameter in model.parameters())
    if count == 0:
        raise NotYet("the network has no parameters to learn with")
    if count >= limit:
        raise NotYet(f"it has {count:,} parameters, but must have fewer than {limit:,}")
    if not any(isinstance(layer, nn.Conv2d) for layer in model.modules()):
        raise NotYet("it has no convolution: linear layers alone do not know which pixels are neighbours")
    model.eval()
    with torch.no_grad():
        answer = model(torch.randn(3, 1, 28, 28))
    if answer.shape != (3, 10):
        raise NotYet(f"for 3 digits the output should have the shape [3, 10], not {list(answer.shape)}")
    if not torch.allclose(answer.exp().sum(dim=1), torch.ones(3), atol=1e-4):
        raise NotYet("the output for each digit should be ten log-probabilities: end with log_softmax")
    return model


@check
def check_small_network(Network):
    """A network with fewer than 50,000 parameters."""
    _check_network(Network, 50_000)


# --- Lesson 6 ----------------------------------------------------------------------------------


def _small_network(weights, biases=(0.0, 0.0, 0.0, 0.0), inputs=(0.05, 0.10), targets=(0.01, 0.99)):
    """The error of the network in part 1, as a tensor; the biases are those of h1, h2, o1 and o2."""
    hidden = torch.sigmoid(weights[:4].view(2, 2) @ torch.tensor(inputs).double() + biases[:2])
    output = torch.sigmoid(weights[4:].view(2, 2) @ hidden + biases[2:])
    return ((torch.tensor(targets).double() - output) ** 2).sum() / 2


@check
def check_gradient(**gradients):
    """The gradients of w5 and w7 in part 1 when w5 is 0.8."""
    weights = torch.tensor([0.15, 0.20, 0.25, 0.30, 0.80, 0.45, 0.50, 0.55], dtype=torch.float64)
    weights.requires_grad_()
    _small_network(weights, torch.zeros(4)).backward()
    right = {"w5": weights.grad[4].item(), "w7": weights.grad[6].item()}
    hints = {
        "w5": "change the weight in the first cell of part 1, then run the cells up to the gradients again",
        "w7": "run the cells again, and follow the path from w7 to the error",
    }
    _compare(gradients, right, hints)


@check
def check_sigmoid_slope(function):
    """`function(x)` is the derivative of the sigmoid."""
    for x in [0.0, 1.0, -3.0]:
        point = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        torch.sigmoid(point).backward()
        slope = function(x)
        if slope is None or slope is ...:
            raise NotYet("your function returns nothing yet")
        if not math.isclose(float(slope), point.grad.item(), rel_tol=1e-6):
            raise NotYet(f"at {x} it returns {float(slope):.4f}, which is not the slope there")


@check
def check_bias_gradients(function):
    """`function(weights, biases)` returns the gradients of the biases of h1, h2, o1 and o2."""
    weights = torch.tensor([0.15, 0.20, 0.25, 0.30, 0.40, 0.45, 0.50, 0.55], dtype=torch.float64)
    biases = torch.tensor([0.35, 0.35, 0.60, 0.60], dtype=torch.float64, requires_grad=True)
    _small_network(weights, biases).backward()
    given = _tensor_from(function, weights.tolist(), biases.tolist()).double()
    if given.shape != (4,):
        raise NotYet("your function should return four gradients, for the biases of h1, h2, o1 and o2")
    for name, ours, right in zip(["h1", "h2", "o1", "o2"], given.tolist(), biases.grad.tolist()):
        if not math.isclose(ours, right, rel_tol=1e-6):
            raise NotYet(
                f"the gradient of {name}'s bias is not {ours:.6f}: how fast does the sum grow with it?"
            )


@check
def check_receptive_field(**fields):
    """The width of the receptive field after `NetFC`'s conv4, and after `NetGAP`'s last 3×3 convolution."""
    _compare(
        fields,
        {"NetFC_conv4": 14, "NetGAP_last": 22},
        {
            "NetFC_conv4": "after the pooling, neighbouring cells are two pixels apart",
            "NetGAP_last": "each 3×3 convolution after the pooling adds the same number of pixels",
        },
    )


@check
def check_batch_norm(function):
    """`function(x)` is the first half of batch norm: each map gets mean 0 and standard deviation 1."""
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 3 + 2
    result = _tensor_from(function, x.clone())
    if result.shape != x.shape:
        raise NotYet(f"the shape should stay {list(x.shape)}, but it became {list(result.shape)}")
    if torch.allclose(result, F.batch_norm(x, None, None, training=True), atol=2e-2):
        return

    def is_over(*dimensions):
        mean = x.mean(dimensions, keepdim=True)
        deviations = [x.std(dimensions, correction=c, keepdim=True) for c in (0, 1)]
        return any(torch.allclose(result, (x - mean) / deviation, atol=1e-3) for deviation in deviations)

    if is_over(0, 1, 2, 3):
        raise NotYet("each map needs its own mean and deviation, not one for all maps together")
    if is_over(2, 3):
        raise NotYet("take the mean and deviation over the whole batch, not image by image")
    if is_over(0):
        raise NotYet("each map has one mean, not one for every position in it")
    raise NotYet(
        "the shape is right, but not the values: mean and deviation go over three of the four dimensions"
    )


@check
def check_one_cycle(function):
    """`function(step, steps, peak)` is a learning rate that rises to the peak, then falls to almost zero."""
    steps, peak = 100, 0.1
    if function(0, steps, peak) in (None, ...):
        raise NotYet("your function returns nothing yet")
    rates = [float(function(step, steps, peak)) for step in range(steps)]
    if not math.isclose(
        max(float(function(step, steps, 10 * peak)) for step in range(steps)), 10 * max(rates), rel_tol=0.01
    ):
        raise NotYet("a peak that is ten times as high should give rates that are ten times as high")
    top = rates.index(max(rates))
    if not math.isclose(max(rates), peak, rel_tol=0.05):
        raise NotYet(f"the largest rate is {max(rates):.4f}, but it should be the peak, {peak}")
    if not 15 <= top <= 50:
        raise NotYet(
            f"the peak comes at step {top} of {steps}: it should come within the first half, but not at once"
        )
    if rates[0] > peak / 5:
        raise NotYet("the first rate should be much smaller than the peak")
    if rates[-1] > peak / 20:
        raise NotYet("the last rate should be almost zero")
    rising, falling = rates[: top + 1], rates[top:]
    if rising != sorted(rising) or falling != sorted(falling, reverse=True):
        raise NotYet("the rate should only rise up to the peak, and only fall after it")


@check
def check_tiny_network(Network):
    """A network with fewer than 8,000 parameters."""
    _check_network(Network, 8_000)


@check
def check_reached(accuracy, goal):
    """Whether the accuracy of a training reaches its goal."""
    if 0 < accuracy <= 1:
        raise NotYet(f"{accuracy} looks like a fraction: it should be in per cent")
    if not 0 <= accuracy <= 100:
        raise NotYet(f"{accuracy} is not an accuracy in per cent")
    if accuracy < goal:
        raise NotYet(f"{accuracy:.2f} % is {goal - accuracy:.2f} points short of {goal} %")
