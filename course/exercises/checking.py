"""What the checks of both lessons share: how they answer, and how they compare."""

import functools
import math
import sys
import sysconfig
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

import utils
from course.insight import CallRecorder, evaluation_copy

# An error is reported at the learner's own line, not inside the course or Python's library.
COURSE = Path(__file__).parent.parent
LIBRARY = sysconfig.get_path("stdlib")

# Parts of PyTorch's reasons, and what they mean where a learner calls cross_entropy.
MEANINGS = {
    "not implemented for 'Long'": "the scores come first, then the labels",
    "floating point type for target": "give it all scores, not the places of the largest",
}


class NotYet(Exception):
    """The answer is not right yet; the message says why."""


def check(function):
    """Decorator: make a function that raises NotYet print one line, whatever happens."""

    @functools.wraps(function)
    def checked(*answers, **named_answers):
        try:
            refuse_dots([*answers, *named_answers.values()])
            function(*answers, **named_answers)
        except NotYet as reason:
            hint = str(reason)
            say(f"✗ {hint}" if hint.endswith("?") else f"✗ {hint}.")
        except Exception as error:  # the learner's own function may raise anything
            say(f"✗ {describe_error(error)}")
        else:
            say("✓ Right!")

    return checked


def say(line):
    """Print a line; where the console lacks its signs, such as one with cp1252, print others."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        line.encode(encoding)
    except UnicodeEncodeError:
        line = line.replace("✓", "+").replace("✗", "-").encode(encoding, "replace").decode(encoding)
    print(line)


def refuse_dots(answers):
    for answer in answers:
        if answer is ...:
            raise NotYet("still open: put your answer in place of the dots")


def describe_error(error):
    """Where the learner's code stopped, and why."""
    reason = " ".join(str(error).split())  # PyTorch's reasons may have several lines
    if isinstance(error, NotImplementedError) and not reason:
        return "still open: put your answer in place of NotImplementedError."
    for part, meaning in MEANINGS.items():
        if part in reason:
            reason = meaning
    if len(reason) > 120:
        reason = reason.partition(". ")[0]
    stopped = f"your code stopped {find_place(error)}with {type(error).__name__}"
    return f"{stopped}: {reason}" if reason else f"{stopped}."


def find_place(error):
    """The last line of the learner's own code that an error went through, as a phrase."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if is_learners(Path(frame.filename))
    ]
    if not own:
        return ""
    frame = own[-1]
    code = f" ({frame.line})" if frame.line else ""
    return f"in line {frame.lineno}{code} "


def is_learners(path):
    """Whether a file of code is the learner's own."""
    is_course = path.is_relative_to(COURSE) or path == Path(utils.__file__)
    is_package = "site-packages" in path.parts or "dist-packages" in path.parts
    return not (is_course or is_package or path.is_relative_to(LIBRARY))


@dataclass
class Number:
    """The right number, a hint, and hints for some wrong numbers. Only counts must be exact."""

    right: float
    hint: str
    mistakes: dict = field(default_factory=dict)

    def cases(self):
        """Answers to expect, as (number, tolerance, hint); the first has no hint: it is right."""
        is_count = isinstance(self.right, int)
        tolerance = 0 if is_count else 7e-5 / abs(self.right)  # four decimals are enough
        cases = [(self.right, tolerance, None)]
        if not is_count:
            hint = "the digits are right, but give one or two more"
            cases += [(number, 1e-6, hint) for number in rounded(self.right)]
        cases += [(number, tolerance, hint) for number, hint in self.mistakes.items()]
        return cases

    def hint_for(self, answer):
        """What is wrong with an answer; None if it is right."""
        for number, tolerance, hint in self.cases():
            if math.isclose(answer, number, rel_tol=tolerance):
                return hint
        return self.hint


def rounded(number):
    """The number with fewer and fewer digits, as long as some are left."""
    shorter = [round(number, digits) for digits in range(6, 0, -1)]
    return [number for number in shorter if number != 0]


def compare_numbers(unnamed, answers, numbers):
    """Check that every answer is right; give the hint for the first one that is not."""
    if unnamed:
        names = ", ".join(f"{name}=..." for name in numbers)
        raise NotYet(f"name your answers: write {names} with numbers in place of the dots")
    for name in answers:
        if name not in numbers:
            raise NotYet(f"there is no {name!r} here, only {', '.join(numbers)}")
    for name in numbers:
        if name not in answers:
            raise NotYet(f"{name!r} is missing")
    for name, answer in answers.items():
        answer = number_from(name, answer)
        hint = numbers[name].hint_for(answer)
        if hint:
            shown = f"{answer:.0f}" if answer.is_integer() else f"{answer:g}"
            raise NotYet(f"{name} is not {shown}: {hint}")


def number_from(name, answer):
    """The answer as a float."""
    if isinstance(answer, torch.Tensor):
        if answer.numel() != 1:
            raise NotYet(f"{name} should be one number, not a tensor of {answer.numel()}")
        answer = answer.detach()
    try:
        return float(answer)
    except (TypeError, ValueError):
        raise NotYet(f"{name} should be one number, not {answer!r}") from None


def call(function, *inputs):
    """Call the learner's function."""
    if not callable(function):
        raise NotYet(
            "give the check your function itself, by its name and without parentheses: "
            f"this is {kind_of(function)}"
        )
    return function(*inputs)


def result_of(function, *inputs, name="your function"):
    """What the learner's function returns."""
    result = call(function, *inputs)
    if result is ...:
        raise NotYet(f"{name} returns nothing yet")
    if result is None:
        raise NotYet(f"{name} returns nothing yet: does it always end in return?")
    return result


def tensor_from(function, *inputs, name="your function"):
    """What the learner's function returns, as a tensor."""
    result = result_of(function, *inputs, name=name)
    try:
        if isinstance(result, (list, tuple)) and result:
            if all(isinstance(part, torch.Tensor) for part in result):
                return torch.stack(result)
        return torch.as_tensor(result)
    except (TypeError, ValueError, RuntimeError):
        question = ": are its parentheses missing?" if callable(result) else ""
        raise NotYet(
            f"{name} should return a tensor or a number, not {kind_of(result)}{question}"
        ) from None


def kind_of(value):
    """What a value is, in words."""
    if value is None or value is ...:
        return str(value)
    if isinstance(value, (int, float)):
        return "a number"
    if callable(value):
        return "a function"
    kind = f"a {type(value).__name__}"
    if isinstance(value, (list, tuple)) and value:
        kind += f" that holds {kind_of(value[0])}"
    return kind


def compare_tensors(result, expected, name):
    if result.shape != expected.shape:
        raise NotYet(
            f"{name} should have the shape {list(expected.shape)}, not {list(result.shape)}"
        )
    if not torch.allclose(result.double(), expected.double(), rtol=1e-4, atol=1e-5):
        raise NotYet(f"the shape of {name} is right, but not the values")


def check_network(Network, limit):
    """Check a network for digits that must have fewer than `limit` parameters."""
    network = Network() if isinstance(Network, type) else Network
    if not isinstance(network, nn.Module):
        raise NotYet("a network is a class that inherits from nn.Module")
    network = evaluation_copy(network)
    with CallRecorder() as recorder:
        scores = tensor_from(network, torch.randn(3, 1, 28, 28), name="forward")
    weights = weights_used(network, recorder.calls)
    count = sum(parameter.numel() for parameter in network.parameters())
    if count == 0:
        raise NotYet("the network has no parameters to learn with")
    if count >= limit:
        raise NotYet(f"it has {count:,} parameters, but must have fewer than {limit:,}")
    if "conv2d" not in [call.function for call in recorder.calls]:
        raise NotYet(
            "it uses no convolution: linear layers alone do not know which pixels are neighbours"
        )
    if scores.shape != (3, 10):
        raise NotYet(
            f"for 3 digits the output should have the shape [3, 10], not {list(scores.shape)}"
        )
    if not torch.allclose(scores.exp().sum(dim=1), torch.ones(3), atol=1e-4):
        raise NotYet(
            "the output for each digit should be ten log-probabilities: "
            "end with log_softmax over dim=1"
        )
    refuse_weights_that_cannot_learn(weights, scores)
    return network


def weights_used(network, calls):
    """The weights of the layers that ran. PyTorch finds none in a list or made in `forward`."""
    layers = [call for call in calls if call.function in ("conv2d", "linear")]
    weights = [layer.arguments()["weight"] for layer in layers]
    found = {id(parameter) for parameter in network.parameters()}
    for weight in weights:
        if weight.is_leaf and id(weight) not in found:  # others are computed from parameters
            raise NotYet(
                "PyTorch does not find all weights that the network uses: "
                "create each layer in __init__, as self.name or in nn.Sequential or nn.ModuleList"
            )
    return weights


def refuse_weights_that_cannot_learn(weights, scores):
    if scores.requires_grad:
        scores.sum().backward()
    for weight in weights:
        if weight.is_leaf and weight.grad is None:
            raise NotYet("one of its layers cannot learn: backward gives it no gradients")
