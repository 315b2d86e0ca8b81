# ruff: noqa: F403, F405
"""Every check accepts the right answer, and rejects common mistakes with a reason."""

import math
import statistics

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

import utils
from course import exercises
from course.exercises import *
from model import Net, NetGAP, NetMini
from utils import Digits


def printed(capsys):
    return capsys.readouterr().out.strip()


def data_set(images, labels, source="Fashion-MNIST", size=32, shuffle=True, count=None):
    data = Digits(images[:count], labels[:count], source=source)
    return data, DataLoader(data, size, shuffle=shuffle)


def fails(*_):
    numbers = [1, 2]
    return numbers[2]


def line_of(function, number):
    return function.__code__.co_firstlineno + number


def accuracy(prediction, labels):
    return 100 * (prediction.argmax(1) == labels).float().mean().item()


def shift(image):
    moved = torch.zeros_like(image)
    moved[:, 1:] = image[:, :-1]
    return moved


def shift_column_by_column(image):
    moved = image.clone()
    for column in range(1, 28):
        moved[:, column] = moved[:, column - 1]
    return moved


def shift_in_one_go(image):
    image[:, 1:] = image[:, :-1]
    image[:, 0] = 0
    return image


def shift_in_place(image):
    image[:, 1:] = image[:, :-1].clone()
    image[:, 0] = 0
    return image


def logit_gradients(logits, labels):
    return (logits.softmax(dim=1) - F.one_hot(labels, 10)) / len(labels)


def step(model, optimizer, images, labels):
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()


def step_on_probabilities(model, optimizer, images, labels):
    F.cross_entropy(model(images).softmax(dim=1), labels).backward()
    optimizer.step()


def step_without_zero_grad(model, optimizer, images, labels):
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()


def step_that_clears_too_late(model, optimizer, images, labels):
    F.cross_entropy(model(images), labels).backward()
    optimizer.zero_grad()
    optimizer.step()


def step_uphill(model, optimizer, images, labels):
    optimizer.zero_grad()
    (-F.cross_entropy(model(images), labels)).backward()
    optimizer.step()


def batch_norm(x):
    return (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), correction=0, keepdim=True)


def one_cycle(step, steps, peak):
    top = 0.3 * steps
    if step < top:
        return peak * (0.05 + 0.95 * step / top)
    return peak * (1 + math.cos(math.pi * (step - top) / (steps - top))) / 2 + 1e-6


def one_cycle_but(odd, share):
    """The right cycle, except for one step, whose rate is this share of the peak."""
    return lambda step, steps, peak: share * peak if step == odd else one_cycle(step, steps, peak)


def warm_up(step, steps, peak):
    """Up within a tenth of the steps, then down in a straight line."""
    top = steps // 10
    return peak * ((step + 1) / (top + 1) if step < top else (steps - step) / (steps - top))


def bias_gradients(weights, biases):
    w = weights

    def s(x):
        return 1 / (1 + math.exp(-x))

    h = [s(w[0] * 0.05 + w[1] * 0.1 + biases[0]), s(w[2] * 0.05 + w[3] * 0.1 + biases[1])]
    o = [s(w[4] * h[0] + w[5] * h[1] + biases[2]), s(w[6] * h[0] + w[7] * h[1] + biases[3])]
    d = [(o[n] - t) * o[n] * (1 - o[n]) for n, t in enumerate([0.01, 0.99])]
    e = [(d[0] * w[4 + n] + d[1] * w[6 + n]) * h[n] * (1 - h[n]) for n in (0, 1)]
    return [*e, *d]


class Small(nn.Module):
    def __init__(self, size=10, probabilities=True, hidden=None, more=0):
        super().__init__()
        conv = nn.Conv2d(1, 1, 5, stride=5)
        self.conv = hidden([conv]) if hidden else conv
        self.fc, self.probabilities = nn.Linear(25, size), probabilities
        self.more = nn.Parameter(torch.zeros(more))

    def forward(self, x):
        x = self.fc(self.conv(x).flatten(1))
        return F.log_softmax(x, dim=1) if self.probabilities else x


class Unused(nn.Module):
    """A network with a convolution that it never uses."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(784, 10)

    def forward(self, x):
        return F.log_softmax(self.fc(x.flatten(1)), dim=1)


def lazy():
    """A network whose layers find their sizes with the first batch."""
    return nn.Sequential(nn.LazyConv2d(4, 5), nn.Flatten(), nn.LazyLinear(10), nn.LogSoftmax(dim=1))


class Unfinished(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 5)

    def forward(self, x):
        return ...


def batch_norm_in_place(x):
    x -= x.mean((0, 2, 3), keepdim=True)
    x /= x.std((0, 2, 3), keepdim=True)
    return x


RIGHT = [
    (check_output_sizes, [], {"conv1": 26, "pool1": 12, "conv4": 8, "flat": 4096}),
    (check_parameters, [], {"conv2": 64 * (32 * 25 + 1), "fc1": 100 * 4097}),
    (check_convolution, [], {"middle": 7, "width": 3}),
    (check_accuracy, [accuracy], {}),
    (check_accuracy, [lambda *given: round(float(accuracy(*given)), 1)], {}),
    (check_shift, [shift], {}),
    (check_data_set, [data_set], {}),
    (check_small_network, [NetGAP], {}),
    (check_small_network, [lazy()], {}),
    (check_reached, [97.2], {"goal": 97}),
    (check_reached, [97], {"goal": 97}),
    (check_logit_gradients, [logit_gradients], {}),
    (check_step, [step], {}),
    (check_bias_gradients, [bias_gradients], {}),
    (
        check_bias_gradients,
        [lambda *given: [round(slope, 6) for slope in bias_gradients(*given)]],
        {},
    ),
    (check_receptive_field, [], {"NetFC_conv4": 14, "NetGAP_last": 22}),
    (check_batch_norm, [batch_norm], {}),
    (check_batch_norm, [lambda x: batch_norm(x.double())], {}),
    (check_batch_norm, [lambda x: batch_norm(x).numpy()], {}),
    (check_batch_norm, [batch_norm_in_place], {}),
    (check_one_cycle, [one_cycle], {}),
    (check_one_cycle, [warm_up], {}),
    (check_tiny_network, [NetMini], {}),
    (check_tiny_network, [NetMini()], {}),
    (check_tiny_network, [Small(more=7999 - 286)], {}),
]

WRONG = [
    (
        check_output_sizes,
        [],
        {"conv1": 28, "pool1": 12, "conv4": 8, "flat": 4096},
        "conv1 is not 28",
    ),
    (check_output_sizes, [], {"conv1": 26}, "missing"),
    (
        check_output_sizes,
        [],
        {"conv1": 26, "pool1": 12, "conv4": 8, "flat": 4099},
        "flat is not 4099",
    ),
    (
        check_output_sizes,
        [],
        {"conv1": "many", "pool1": 12, "conv4": 8, "flat": 4096},
        "a number, not 'many'",
    ),
    (check_parameters, [], {"conv2": 51_264, "fc1": 409_600}, "and one bias"),
    (check_output_sizes, [], {"conv1": ..., "pool1": 12, "conv4": 8, "flat": 4096}, "still open"),
    (check_parameters, [], {"conv2": 64 * 25, "fc1": 100 * 4097}, "a kernel for every map"),
    (check_convolution, [], {"middle": ..., "width": 3}, "still open"),
    (check_convolution, [], {"middle": 7, "width": 4}, "fit into 4 pixels"),
    (check_convolution, [], {"middle": 5, "width": 3}, "add the products"),
    (
        check_convolution,
        [],
        {"middle": 7, "width": 3, "height": 3},
        "no 'height' here, only middle, width",
    ),
    (check_data_set, [lambda *_: None], {}, "returns nothing yet"),
    (check_data_set, [lambda images, labels: images], {}, "return two things"),
    (check_data_set, [lambda *given: data_set(*given)[::-1]], {}, "the data set first"),
    (check_data_set, [lambda *given: (*data_set(*given), 3)], {}, "return two things"),
    (check_data_set, [lambda images, labels: (images, labels)], {}, "made by utils.Digits"),
    (check_data_set, [lambda *given: data_set(*given, source="MNIST")], {}, "calls them MNIST"),
    (check_data_set, [lambda *given: data_set(*given, count=40)], {}, "all 50 pictures, not 40"),
    (check_data_set, [lambda *given: data_set(*given, size=10)], {}, "32 pictures, not 10"),
    (check_data_set, [lambda *given: data_set(*given, shuffle=False)], {}, "shuffle=True"),
    (
        check_data_set,
        [lambda *given: (data_set(*given)[0], data_set(*given)[1])],
        {},
        "should deliver the",
    ),
    (check_data_set, [lambda *given: fails(*given)], {}, f"in line {line_of(fails, 2)} (return"),
    (check_data_set, [fails], {}, "(return numbers[2]) with IndexError: list index out of range"),
    (check_accuracy, [lambda p, y: (p.argmax(0) == y).float().mean()], {}, "use dim=1"),
    (check_accuracy, [lambda p, y: p.argmax(1) @ p], {}, "with RuntimeError"),
    (check_accuracy, [lambda p, y: (p.argmax(1) == y).float().mean()], {}, "per cent"),
    (
        check_accuracy,
        [lambda p, y: (p.argmax(1) == y).sum()],
        {},
        "close, but the answer should be in per cent",
    ),
    (check_accuracy, [lambda p, y: p.argmax(1) == y], {}, "one number"),
    (check_accuracy, [lambda p, y: None], {}, "returns nothing yet"),
    (check_accuracy, [lambda p, y: 75], {}, "with 2 of 3 digits right, it returns 75"),
    (check_accuracy, [lambda p, y: 1 / 0], {}, "with ZeroDivisionError"),
    (check_shift, [lambda image: image.roll(1, 1)], {}, "the last column reappears on the left"),
    (check_shift, [lambda image: F.pad(image, (0, 0, 1, 0))[:28]], {}, "moved down"),
    (check_shift, [lambda image: F.pad(image, (0, 1))[:, 1:]], {}, "moved to the left"),
    (check_shift, [shift_in_place], {}, "work on a copy"),
    (check_shift, [shift_column_by_column], {}, "already overwritten"),
    (check_shift, [lambda image: shift_in_one_go(image.clone())], {}, "already overwritten"),
    (check_shift, [lambda image: image.view(3)], {}, "with RuntimeError"),
    (
        check_shift,
        [lambda image: F.interpolate(image, 3)],
        {},
        "lambda image: F.interpolate(image, 3)",
    ),
    (check_shift, [lambda image: shift(image) + 0.01], {}, "but not the values"),
    (check_shift, [lambda image: shift(image)[1:]], {}, "the shape [28, 28], not [27, 28]"),
    (check_shift, [lambda: 0], {}, "stopped with TypeError"),
    (check_shift, [lambda image: F.pad(image, (2, 0))[:, :28]], {}, "two pixels"),
    (
        check_shift,
        [lambda image: torch.cat([image[:, :1], image[:, :-1]], dim=1)],
        {},
        "first column",
    ),
    (check_small_network, [Net], {}, "593,200 parameters, but must have fewer than 50,000"),
    (check_small_network, [Small(probabilities=False)], {}, "end with log_softmax"),
    (check_small_network, [Small(size=5)], {}, "not [3, 5]"),
    (check_small_network, [Small(size=12)], {}, "not [3, 12]"),
    (check_small_network, [nn.Flatten], {}, "no parameters"),
    (check_small_network, [Small(hidden=list)], {}, "in a plain list"),
    (check_small_network, [Small(hidden=tuple)], {}, "in a plain list"),
    (check_small_network, [accuracy], {}, "a class that inherits from nn.Module"),
    (
        check_tiny_network,
        [Small(more=8000 - 286)],
        {},
        "8,000 parameters, but must have fewer than 8,000",
    ),
    (check_small_network, [nn.Sequential(nn.Flatten(), nn.Linear(784, 10))], {}, "no convolution"),
    (check_small_network, [Unused], {}, "uses no convolution"),
    (check_reached, [96.5], {"goal": 97}, "0.50 points short of 97"),
    (check_reached, [0], {"goal": 97}, "97.00 points short of 97"),
    (check_reached, [0.994], {"goal": 99.4}, "in per cent"),
    (check_reached, [1.0], {"goal": 99.4}, "looks like a fraction"),
    (check_reached, [994], {"goal": 99.4}, "994 is not an accuracy in per cent"),
    (check_gradient, [], {"w5": 0.1, "w7": 0.1}, "w5 is not 0.1"),
    (check_logit_gradients, [lambda x, y: 4 * logit_gradients(x, y)], {}, "the sum of the losses"),
    (check_logit_gradients, [lambda x, y: -logit_gradients(x, y)], {}, "the sign is wrong"),
    (check_logit_gradients, [lambda x, y: x.softmax(1) / len(y)], {}, "something is missing"),
    (check_logit_gradients, [lambda x, y: x.softmax(1)], {}, "then divide by"),
    (
        check_logit_gradients,
        [lambda x, y: (x.softmax(0) - F.one_hot(y, 10)) / 4],
        {},
        "softmax over dim=1",
    ),
    (check_logit_gradients, [lambda x, y: logit_gradients(x, y).sum(0)], {}, "the shape [4, 10]"),
    (check_step, [step_on_probabilities], {}, "computes softmax itself"),
    (check_step, [step_without_zero_grad], {}, "repeats the gradients of the first"),
    (check_step, [step_that_clears_too_late], {}, "the weights do not change"),
    (check_step, [step_uphill], {}, "other weights than gradient descent"),
    (check_bias_gradients, [lambda w, b: [0, 0, 0, 0]], {}, "gradient of h1's bias"),
    (check_bias_gradients, [lambda w, b: [0, 0]], {}, "four gradients, for the biases"),
    (check_receptive_field, [], {"NetFC_conv4": 10, "NetGAP_last": 22}, "two pixels apart"),
    (check_batch_norm, [lambda x: (x - x.mean()) / x.std()], {}, "each map needs its own mean"),
    (check_batch_norm, [lambda x: F.instance_norm(x)], {}, "not image by image"),
    (check_batch_norm, [lambda x: (x - x.mean(0)) / x.std(0)], {}, "not one for every position"),
    (check_batch_norm, [lambda x: x], {}, "three of the four"),
    (check_batch_norm, [lambda x: x - x.mean((0, 2, 3), keepdim=True)], {}, "now divide by"),
    (
        check_batch_norm,
        [lambda x: batch_norm(x) / x.std((0, 2, 3), keepdim=True)],
        {},
        "its square root",
    ),
    (
        check_batch_norm,
        [lambda x: batch_norm(x)[0]],
        {},
        "stay [4, 3, 5, 5], but it became [3, 5, 5]",
    ),
    (check_one_cycle, [lambda step, steps, peak: ...], {}, "returns nothing yet"),
    (
        check_one_cycle,
        [lambda step, steps, peak: one_cycle(step, steps, 0.1)],
        {},
        "peak of 1.0, the largest",
    ),
    (check_one_cycle, [lambda step, steps, peak: one_cycle(step, 100, peak)], {}, "with 250 steps"),
    (check_one_cycle, [lambda step, steps, peak: peak], {}, "should be much smaller than the peak"),
    (check_one_cycle, [lambda step, steps, peak: peak * step / steps], {}, "within the first half"),
    (
        check_one_cycle,
        [lambda *given: 0.5 * one_cycle(*given)],
        {},
        "0.0500, but it should be the peak",
    ),
    (
        check_one_cycle,
        [one_cycle_but(0, 0.6)],
        {},
        "the first rate is 0.0600: it should be much smaller",
    ),
    (
        check_one_cycle,
        [one_cycle_but(99, 0.06)],
        {},
        "the last rate is 0.0060: it should be almost zero",
    ),
    (check_one_cycle, [one_cycle_but(99, -0.97)], {}, "almost zero, but not negative"),
    (
        check_one_cycle,
        [lambda step, *given: one_cycle(step, *given) if step < 9 else None],
        {},
        "nothing yet",
    ),
    (check_one_cycle, [one_cycle_but(20, 0.1)], {}, "only rise up to the peak"),
    (check_one_cycle, [one_cycle_but(80, 0.9)], {}, "only fall after it"),
    (check_tiny_network, [Unfinished], {}, "your function returns nothing yet"),
    (check_tiny_network, [NetGAP], {}, "17,466 parameters, but must have fewer than 8,000"),
]


@pytest.mark.parametrize(
    ("check", "answers", "named"), RIGHT, ids=lambda value: getattr(value, "__name__", "")
)
def test_right_answers(check, answers, named, capsys):
    check(*answers, **named)
    assert printed(capsys) == "✓ Right!"


def test_the_learners_own_network_stays_as_it_is(capsys):
    model = Small().double()
    check_small_network(model)
    assert (
        printed(capsys) == "✓ Right!" and model.training and model.fc.weight.dtype == torch.float64
    )


@pytest.mark.parametrize(("check", "answers", "named", "reason"), WRONG)
def test_wrong_answers_get_a_reason(check, answers, named, reason, capsys):
    check(*answers, **named)
    line = printed(capsys)
    assert line.startswith("✗ ") and reason in line and "\n" not in line and "?." not in line


def fails_in_a_library(image):
    return statistics.mean([])


def fails_in_the_course(images, labels):
    return utils.Digits(images.float(), labels), None


@pytest.mark.parametrize(
    ("check", "answer"), [(check_shift, fails_in_a_library), (check_data_set, fails_in_the_course)]
)
def test_a_mistake_is_found_in_the_learners_own_line(check, answer, capsys):
    check(answer)
    line = answer.__code__.co_firstlineno + 1
    assert f"your code stopped in line {line} (return " in printed(capsys)


def test_gradients_where_w5_is_changed(capsys):
    """By hand: w5 affects only o1, so the gradient of w7 stays the same as in the lesson."""

    def s(x):
        return 1 / (1 + math.exp(-x))

    h1, h2 = s(0.15 * 0.05 + 0.2 * 0.1), s(0.25 * 0.05 + 0.3 * 0.1)
    o1, o2 = s(0.8 * h1 + 0.45 * h2), s(0.5 * h1 + 0.55 * h2)
    w5, w7 = (o1 - 0.01) * o1 * (1 - o1) * h1, (o2 - 0.99) * o2 * (1 - o2) * h1
    check_gradient(w5=w5, w7=w7)
    assert printed(capsys) == "✓ Right!"
    check_gradient(w5=torch.tensor(w5), w7=round(w7, 4))
    assert printed(capsys) == "✓ Right!", "rounded answers are right too"


def test_every_check_is_tried():
    tried = {check.__name__ for check, *_ in RIGHT} | {"check_gradient"}
    assert tried == set(exercises.__all__) == {check.__name__ for check, *_ in WRONG}


def gradients_by_hand(w, b=(0, 0, 0, 0)):
    """Lesson 6's formulas, without PyTorch: the gradients of w5 to w8, and of the four biases."""
    (i1, i2), (t1, t2) = (0.05, 0.10), (0.01, 0.99)
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    h1, h2 = sigmoid(w[0] * i1 + w[1] * i2 + b[0]), sigmoid(w[2] * i1 + w[3] * i2 + b[1])
    o1, o2 = sigmoid(w[4] * h1 + w[5] * h2 + b[2]), sigmoid(w[6] * h1 + w[7] * h2 + b[3])
    d1, d2 = (o1 - t1) * o1 * (1 - o1), (o2 - t2) * o2 * (1 - o2)
    e1, e2 = (d1 * w[4] + d2 * w[6]) * h1 * (1 - h1), (d1 * w[5] + d2 * w[7]) * h2 * (1 - h2)
    return [d1 * h1, d1 * h2, d2 * h1, d2 * h2], [e1, e2, d1, d2]


def said_of(capsys, checked, *arguments, **named):
    capsys.readouterr()
    checked(*arguments, **named)
    return capsys.readouterr().out


@pytest.mark.parametrize("factor", [1, 1.02, 0.98, -1])
@pytest.mark.parametrize("which", ["w5", "w7"])
def test_gradients_are_compared_with_the_lessons_formulas(capsys, which, factor):
    (w5, _, w7, _), _ = gradients_by_hand([0.15, 0.20, 0.25, 0.30, 0.80, 0.45, 0.50, 0.55])
    given = {"w5": w5, "w7": w7}
    said = said_of(capsys, check_gradient, **given | {which: factor * given[which]})
    assert said.startswith("✓" if factor == 1 else f"✗ {which} is not")


@pytest.mark.parametrize("wrong", [None, 0, 1, 2, 3])
def test_biases_are_compared_with_the_lessons_formulas(capsys, wrong):
    def answer(weights, biases):
        _, gradients = gradients_by_hand(weights, biases)
        return [1.01 * slope if n == wrong else slope for n, slope in enumerate(gradients)]

    said = said_of(capsys, check_bias_gradients, answer)
    name = "" if wrong is None else ["h1", "h2", "o1", "o2"][wrong]
    assert said.startswith(f"✗ the gradient of {name}'s bias" if name else "✓")
