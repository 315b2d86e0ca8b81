"""What the checks of both lessons share: how they answer, and how they compare."""

import functools
import math
import sysconfig
import traceback
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import utils
from course.insight import Calls, answering_copy

# Where the code lives that is not the learner's.
OTHERS = [Path(__file__).parent.parent, utils.__file__, sysconfig.get_path("stdlib")]


class NotYet(Exception):
    """The answer is not right yet; the message says why."""


def check(function):
    """Decorator: make a function that raises NotYet print one line, whatever happens."""

    @functools.wraps(function)
    def checked(*answers, **named):
        try:
            if any(answer is ... for answer in [*answers, *named.values()]):
                raise NotYet("still open: put your answer in place of the dots")
            function(*answers, **named)
        except NotYet as reason:
            print(f"✗ {reason}" + "." * (not str(reason).endswith("?")))
        except Exception as error:  # the learner's own function may raise anything
            reason = " ".join(str(error).split())  # PyTorch's reasons may have several lines
            print(f"✗ your code stopped {_place(error)}with {type(error).__name__}: {reason}")
        else:
            print("✓ Right!")

    return checked


def _place(error):
    """Where in the learner's own code an error happened: not in the course's, nor in a library."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(Path(frame.filename).is_relative_to(place) for place in OTHERS)
        and not {"site-packages", "dist-packages"} & set(Path(frame.filename).parts)
    ]
    if not own:
        return ""
    return f"in line {own[-1].lineno}{f' ({own[-1].line})' if own[-1].line else ''} "


def compare(given, right, hints):
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


def result_of(function, *inputs):
    result = function(*inputs)
    if result is None or result is ...:
        raise NotYet("your function returns nothing yet")
    return result


def tensor_from(function, *inputs):
    return torch.as_tensor(result_of(function, *inputs))


def same(result, expected, what):
    if result.shape != expected.shape:
        raise NotYet(
            f"{what} should have the shape {list(expected.shape)}, not {list(result.shape)}"
        )
    if not torch.allclose(result.double(), expected.double(), rtol=1e-4, atol=1e-5):
        raise NotYet(f"the shape of {what} is right, but not the values")


def check_network(Network, limit):
    network = Network() if isinstance(Network, type) else Network
    if not isinstance(network, nn.Module):
        raise NotYet("a network is a class that inherits from nn.Module")
    model = answering_copy(network)
    listed = [
        part for value in vars(model).values() if isinstance(value, (list, tuple)) for part in value
    ]
    if any(isinstance(part, nn.Module) for part in listed):
        raise NotYet(
            "PyTorch does not find layers in a plain list: use nn.Sequential or nn.ModuleList"
        )
    with torch.no_grad(), Calls() as calls:
        answer = tensor_from(model, torch.randn(3, 1, 28, 28))
    count = sum(parameter.numel() for parameter in model.parameters())
    if count == 0:
        raise NotYet("the network has no parameters to learn with")
    if count >= limit:
        raise NotYet(f"it has {count:,} parameters, but must have fewer than {limit:,}")
    if "conv2d" not in [name for name, *_ in calls.noted]:
        raise NotYet(
            "it uses no convolution: linear layers alone do not know which pixels are neighbours"
        )
    if answer.shape != (3, 10):
        raise NotYet(
            f"for 3 digits the output should have the shape [3, 10], not {list(answer.shape)}"
        )
    if not torch.allclose(answer.exp().sum(dim=1), torch.ones(3), atol=1e-4):
        raise NotYet(
            "the output for each digit should be ten log-probabilities: end with log_softmax over dim=1"
        )


@check
def check_step(function):
    """`function(model, optimizer, images, labels)` takes one step of training."""
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(8, 5, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    start = torch.randn(3, 5, generator=generator)

    def weights(step, steps):
        """The weights after some steps, from the same start."""
        model = nn.Linear(5, 3, bias=False).to(utils.device)
        model.weight.data.copy_(start)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for _ in range(steps):
            step(model, optimizer, images.to(utils.device), labels.to(utils.device))
        return model.weight.detach().cpu()

    def right(model, optimizer, images, labels, scores=lambda x: x):
        optimizer.zero_grad()
        F.cross_entropy(scores(model(images)), labels).backward()
        optimizer.step()

    def too_soft(model, *others):
        right(model, *others, scores=lambda scores: scores.softmax(dim=1))

    one = weights(function, 1)
    if torch.equal(one, start):
        raise NotYet(
            "the weights do not change: first clear the gradients, then call backward, then step"
        )
    if torch.allclose(one, weights(too_soft, 1), atol=1e-6):
        raise NotYet(
            "cross_entropy computes softmax itself: give it the scores, not the probabilities"
        )
    if not torch.allclose(one, weights(right, 1), atol=1e-6):
        raise NotYet(
            "the first step leads to other weights than gradient descent on the cross-entropy"
        )
    if not torch.allclose(weights(function, 2), weights(right, 2), atol=1e-6):
        raise NotYet(
            "the first step is right, but the second also repeats the gradients of the first"
        )
