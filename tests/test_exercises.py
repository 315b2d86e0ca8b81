# ruff: noqa: F403, F405
"""Every check accepts right answers, and tells common mistakes apart."""

import io
import math
import statistics
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

import utils
from course import exercises
from course.exercises import *
from model import Net, NetGAP, NetMini

# --- Answers: the right ones, and parts of wrong ones ---------------------------------------------

SIZES = {"conv1": 30, "pool1": 14, "conv4": 10, "flat": 6400}
COUNTS = {"conv2": 64 * (32 * 25 + 1), "fc1": 100 * 4097}
FIELDS = {"NetFC_conv4": 14, "NetGAP_last": 22}


def accuracy(prediction, labels):
    return 100 * (prediction.argmax(1) == labels).float().mean().item()


def shift(image):
    return F.pad(image, (1, 0))[:, :28]


def shift_in_one_go(image):
    moved = image.clone()
    moved[:, 1:] = moved[:, :-1]
    moved[:, 0] = 0
    return moved


def step(model, optimizer, images, labels, clear=True, dim=None, loss=F.cross_entropy):
    if clear:
        optimizer.zero_grad()
    scores = model(images)
    if dim is not None:
        scores = scores.softmax(dim)
    loss(scores, labels).backward()
    optimizer.step()


def step_with(loss):
    return lambda *parts: step(*parts, loss=loss)


def step_that_clears_too_late(model, optimizer, images, labels):
    F.cross_entropy(model(images), labels).backward()
    optimizer.zero_grad()
    optimizer.step()


OTHER = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))  # the network of another cell


def data_set(
    images, labels, transform=None, source="Fashion-MNIST", size=32, shuffle=True, count=None
):
    data = utils.Digits(images[:count], labels[:count], transform, source)
    return data, DataLoader(data, size, shuffle=shuffle)


def small(outputs=10, end=nn.LogSoftmax, more=0):
    """A network with 286 parameters that it uses, and some more."""
    network = nn.Sequential(
        nn.Conv2d(1, 1, 5, stride=5), nn.Flatten(), nn.Linear(25, outputs), end(dim=1)
    )
    network.register_parameter("more", nn.Parameter(torch.zeros(more)))
    return network


class Listed(nn.Module):
    """A network with its layers in a list; PyTorch finds them only if they are also elsewhere."""

    def __init__(self, found):
        super().__init__()
        self.layers = list(small())
        if found:
            self.found = nn.ModuleList(self.layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Convolving(nn.Module):
    """A network that gets its maps from a function."""

    def __init__(self, convolve):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.convolve = convolve
        self.fc = nn.LazyLinear(10)

    def forward(self, x):
        maps = self.convolve(self.conv, x)
        return self.fc(maps.flatten(1)).log_softmax(dim=1)


class Unfinished(nn.Module):
    def forward(self, x):
        return ...


def activations(weights, biases):
    """Of lesson 6's two hidden neurons, and of its two outputs."""
    w = torch.as_tensor(weights, dtype=torch.float64)
    b = torch.as_tensor(biases, dtype=torch.float64)
    hidden = (w[:4].view(2, 2) @ torch.tensor([0.05, 0.10]).double() + b[:2]).sigmoid()
    return hidden, (w[4:].view(2, 2) @ hidden + b[2:]).sigmoid()


TARGETS = torch.tensor([0.01, 0.99], dtype=torch.float64)


def gradients(weights, biases):
    """The gradients of lesson 6's eight weights, and of its four biases, by autograd."""
    given = [torch.tensor(values).double().requires_grad_() for values in (weights, biases)]
    _, output = activations(*given)
    return torch.autograd.grad(((output - TARGETS) ** 2).sum() / 2, given)


BY_WEIGHT, _ = gradients([0.15, 0.20, 0.25, 0.30, 0.80, 0.45, 0.50, 0.55], [0.0] * 4)
W5, W7 = BY_WEIGHT[4].item(), BY_WEIGHT[6].item()


def bias_gradients(weights, biases):
    return gradients(weights, biases)[1].tolist()


def one_too_large(number):
    """The right bias gradients, but for one that is 1 % too large."""

    def function(weights, biases):
        slopes = bias_gradients(weights, biases)
        slopes[number] *= 1.01
        return slopes

    return function


def bias_gradients_but(paths=((4, 6), (5, 7)), hidden_slope=True, output_slope=True):
    """By hand, with one mistake; `paths` has the numbers of the weights from h1 and h2."""

    def function(weights, biases):
        hidden, output = activations(weights, biases)
        by_output = output - TARGETS
        if output_slope:
            by_output = by_output * output * (1 - output)
        factors = [[0 if n is None else weights[n] for n in path] for path in paths]
        by_hidden = torch.tensor(factors, dtype=torch.float64) @ by_output
        if hidden_slope:
            by_hidden = by_hidden * hidden * (1 - hidden)
        return torch.cat([by_hidden, by_output])

    return function


def logit_gradients(logits, labels):
    return (logits.softmax(dim=1) - F.one_hot(labels, 10)) / len(labels)


def logit_gradients_by_backward(logits, labels):
    logits.requires_grad_()
    F.cross_entropy(logits, labels).backward()
    return logits.grad


def logit_gradients_by_autograd(logits, labels):
    logits.requires_grad_()
    return torch.autograd.grad(F.cross_entropy(logits, labels), logits)[0]


def mean(x, over=(0, 2, 3)):
    return x.mean(over, keepdim=True)


def deviation(x, over=(0, 2, 3), correction=0):
    return x.std(over, correction=correction, keepdim=True)


def batch_norm(x, over=(0, 2, 3), correction=0):
    return (x - mean(x, over)) / deviation(x, over, correction)


def one_cycle(step, steps, peak, top=None):
    top = top or 0.3 * steps
    if step < top:
        return peak * (0.05 + 0.95 * step / top)
    return peak * (1 + math.cos(math.pi * (step - top) / (steps - top))) / 2 + 1e-6


def warm_up(step, steps, peak):
    """Up within a tenth of the steps, then down in a straight line."""
    top = steps // 10
    return peak * min((step + 1) / (top + 1), (steps - step) / (steps - top))


def one_cycle_but(odd, share):
    """The right cycle, except for one step, whose rate is this share of the peak."""
    return lambda step, steps, peak: share * peak if step == odd else one_cycle(step, steps, peak)


def fails(*_):
    numbers = [1, 2]
    return numbers[2]


def stops_without_a_reason(prediction, labels):
    raise ValueError


def is_open(prediction, labels):
    raise NotImplementedError


def fails_in_two_lines(image):
    raise ValueError("one\n  two")


# --- The tables: answers for each check; a dictionary holds named answers -------------------------

LAZY = nn.Sequential(  # its layers find their sizes with the first batch
    nn.LazyConv2d(4, 5), nn.Flatten(), nn.LazyLinear(10), nn.LogSoftmax(dim=1)
)
RIGHT = {
    check_output_sizes: [SIZES],
    check_parameters: [COUNTS],
    check_convolution: [{"middle": 5, "width": 3}],
    check_accuracy: [accuracy, lambda *batch: round(accuracy(*batch), 1)],
    check_shift: [shift],
    check_step: [
        step,
        lambda model, *others: step(model.forward, *others),
        step_with(lambda scores, labels: F.cross_entropy(scores, F.one_hot(labels, 10).float())),
    ],
    check_data_set: [data_set, lambda *data: list(data_set(*data))],
    check_small_network: [
        NetGAP,
        LAZY,
        small().double(),
        Listed(found=True),
        Convolving(lambda conv, x: F.conv2d(x, conv.weight - conv.weight.mean())),
    ],
    check_gradient: [{"w5": W5, "w7": W7}, {"w5": torch.tensor(W5), "w7": round(W7, 4)}],
    check_logit_gradients: [logit_gradients, lambda *given: list(logit_gradients(*given))],
    check_bias_gradients: [
        bias_gradients,
        bias_gradients_but(),
        lambda *given: [round(slope, 6) for slope in bias_gradients(*given)],
    ],
    check_receptive_field: [FIELDS],
    check_batch_norm: [
        batch_norm,
        lambda x: x.copy_(batch_norm(x, correction=1)),
        lambda x: batch_norm(x.double()),
        lambda x: batch_norm(x).numpy(),
    ],
    check_one_cycle: [one_cycle, warm_up],
    check_tiny_network: [small(), small(more=7999 - 286)],
    check_reached: [{"accuracy": torch.tensor(97.2), "goal": 97.2}, {"accuracy": 97, "goal": 97}],
}

WRONG = {
    check_output_sizes: [
        (SIZES | {"conv1": 32}, "conv1 is not 32: without padding"),
        (SIZES | {"pool1": 12}, "this is the answer for 28 pixels"),
        (SIZES | {"flat": 6403}, "flat is not 6403"),
        (SIZES | {"conv1": "many"}, "one number, not 'many'"),
        (SIZES | {"conv1": torch.ones(3, 3)}, "one number, not a tensor of 9"),
        (SIZES | {"conv1": ...}, "still open"),
        ({"conv1": 30}, "missing"),
    ],
    check_parameters: [
        (COUNTS | {"fc1": 409_600}, "has one bias, too"),
        (COUNTS | {"fc1": 204_850}, "this is fc1 with 50 outputs"),
        (COUNTS | {"conv2": 64 * 25}, "a kernel for every map"),
        (COUNTS | {"conv2": 18_496}, "a 5×5 kernel has 25 weights"),
        (COUNTS | {"conv2": 64 * 32 * 800}, "conv2 is not 1638400:"),
        (COUNTS | {"conv2": 64 * 32 * 26}, "not one for each of its kernels"),
    ],
    check_convolution: [
        ({"middle": ..., "width": 3}, "still open"),
        ({"middle": 5, "width": 4}, "fits into 4 pixels at fewer places"),
        ({"middle": 5, "width": 2}, "by one pixel at a time"),
        ({"middle": 6, "width": 3}, "the filter was turned round"),
        ({"middle": 9, "width": 3}, "its product is subtracted"),
        ({"middle": -5, "width": 3}, "add the products"),
        ({"middle": 5, "width": 3, "height": 3}, "no 'height' here, only middle, width"),
    ],
    check_accuracy: [
        (lambda p, y: (p.argmax(0) == y).float().mean(), "use dim=1"),
        (lambda p, y: 100 * (p == y).float().mean(), "with argmax"),
        (lambda p, y: p.argmax(1) @ p, "with RuntimeError"),
        (lambda p, y: (p.argmax(1) == y).float().mean(), "should be in per cent"),
        (lambda p, y: (p.argmax(1) == y).sum(), "close, but the answer should be in per cent"),
        (lambda p, y: p.argmax(1) == y, "one number"),
        (lambda p, y: 100 * (p.argmax(1) != y).float().mean(), "share of the wrong answers"),
        (lambda p, y: 100 * (p.argmax() == y).float().mean(), "one place in all rows"),
        (lambda p, y: 100 * (p.argmax(1, keepdim=True) == y).float().mean(), "leave out keepdim"),
        (lambda p, y: 100 * (p.max(1)[0] == y).float().mean(), "finds no right answer"),
        (lambda p, y: 100 * (p.argmax(1) == F.one_hot(y, 10)).float().mean(), "with argmax"),
        (lambda p, y: 100 * (torch.zeros(99) == y).float().mean(), "that are given"),
        (lambda p, y: accuracy(p, y) // 1, "do not round"),
        (lambda p, y: None, "does it always end in return?"),
        (lambda p, y: "75 %", "a tensor or a number, not a str"),
        (lambda p, y: (p, y), "not a tuple that holds a Tensor"),
        (lambda p, y: [None], "not a list that holds None"),
        (lambda p, y: (p.argmax(1) == y).float().mean, "are its parentheses missing?"),
        (lambda p, y: 75, "with 5 of 8 digits right, it returns 75"),
        (62.5, "by its name and without parentheses: this is a number"),
        (stops_without_a_reason, "with ValueError."),
        (is_open, "still open"),
        (lambda p, y: 1 / 0, "with ZeroDivisionError"),
    ],
    check_shift: [
        (lambda image: image.roll(1, 1), "the last column reappears on the left"),
        (lambda image: F.pad(image, (0, 0, 1, 0))[:28], "moved down"),
        (lambda image: F.pad(image, (0, 0, 0, 1))[1:], "moved up"),
        (lambda image: F.pad(image, (0, 1))[:, 1:], "moved to the left"),
        (torch.clone, "has not moved"),
        (torch.zeros_like, "the image is empty"),
        (lambda image: F.pad(image, (2, 0))[:, :28], "two pixels"),
        (lambda image: F.pad(image[None], (1, 0), "replicate")[0, :, :28], "first column"),
        (lambda image: image.copy_(shift(image)), "work on a copy"),
        (lambda image: image[:, :1].expand(28, 28), "already overwritten"),
        (shift_in_one_go, "already overwritten"),
        (lambda image: shift(image) + 0.01, "but not the values"),
        (lambda image: shift(image)[1:], "the shape [28, 28], not [27, 28]"),
        (lambda image: F.interpolate(image, 3), "lambda image: F.interpolate(image, 3)"),
        (fails_in_two_lines, "with ValueError: one two"),
    ],
    check_step: [
        (lambda *parts: step(*parts, dim=1), "computes softmax itself"),
        (lambda *parts: step(*parts, clear=False), "repeats the gradients of the first"),
        (step_that_clears_too_late, "the weights do not change"),
        (step_with(lambda *given: -F.cross_entropy(*given)), "makes the loss larger"),
        (step_with(lambda *given: 3 * F.cross_entropy(*given)), "use the given optimizer"),
        (step_with(lambda *given: F.cross_entropy(*given, reduction="sum")), "not their sum"),
        (step_with(F.nll_loss), "nll_loss needs log-probabilities"),
        (lambda *parts: step(*parts, dim=1, loss=F.nll_loss), "nll_loss needs log-probabilities"),
        (step_with(lambda scores, labels: F.cross_entropy(labels, scores)), "scores come first"),
        (step_with(lambda x, labels: F.cross_entropy(x.argmax(1), labels)), "give it all scores"),
        (lambda *parts: step(*parts, dim=0), "other weights than gradient descent"),
        (lambda *parts: ..., "still open: your function calls neither the model"),
        (None, "this is None"),
        (lambda model, *others: step(OTHER, *others), "in it, the network is called model"),
    ],
    check_data_set: [
        (lambda *data: None, "returns nothing yet"),
        (lambda images, labels: images, "return two things"),
        (lambda *data: (*data_set(*data), 3), "return two things"),
        (lambda *data: data_set(*data)[::-1], "the data set first"),
        (lambda images, labels: (images, labels), "made by utils.Digits"),
        (lambda *data: data_set(*data, source="MNIST"), "calls them MNIST"),
        (lambda *data: data_set(*data, source=...), "should be a name"),
        (lambda *data: data_set(*data, "Fashion-MNIST"), "is the transform"),
        (lambda *data: (data_set(*data)[0], None), "a DataLoader, not None"),
        (lambda images, labels: data_set(images, labels.flip(0)), "no longer belong"),
        (lambda *data: data_set(*(part.flip(0) for part in data), shuffle=False), "should shuffle"),
        (lambda *data: (data_set(*data)[0], data_set(*data)[1]), "should deliver the data set"),
        (lambda *data: data_set(*data, count=40), "all 50 pictures, not 40"),
        (lambda *data: data_set(*data, size=10), "32 pictures, not 10"),
        (lambda *data: data_set(*data, size=64), "32 pictures, not 64"),
        (lambda *data: data_set(*data, shuffle=False), "shuffle=True"),
        (fails, "(return numbers[2]) with IndexError: list index out of range"),
    ],
    check_small_network: [
        (Net, "593,200 parameters, but must have fewer than 50,000"),
        (small(end=nn.Softmax), "end with log_softmax"),
        (small(outputs=5), "not [3, 5]"),
        (small(outputs=12), "not [3, 12]"),
        (nn.Flatten, "no parameters"),
        (Listed(found=False), "does not find all weights"),
        (Convolving(lambda _, x: nn.Conv2d(1, 4, 3)(x)), "does not find all weights"),
        (Convolving(lambda _, x: F.conv2d(x, torch.ones(4, 1, 3, 3))), "does not find all weights"),
        (Convolving(torch.no_grad()(lambda conv, x: conv(x))), "cannot learn"),
        (Convolving(lambda conv, x: (conv(x), x)[1]), "cannot learn"),
        (Convolving(lambda conv, x: x), "uses no convolution"),
        (accuracy, "a class that inherits from nn.Module"),
    ],
    check_gradient: [
        ({"w5": 1.02 * W5, "w7": W7}, "w5 is not"),
        ({"w5": W5, "w7": 0.98 * W7}, "w7 is not"),
        ({"w5": -W5, "w7": W7}, "a larger w5 makes it larger still"),
        ({"w5": W5, "w7": -W7}, "a larger w7 brings it nearer"),
        ({"w5": 0.07, "w7": W7}, "the digits are right, but give one or two more"),
        ({"w5": 0.072157, "w7": W7}, "the gradient where w5 is 0.40"),
        ({"w5": W7, "w7": W5}, "this is the gradient of w7"),
        ({"w5": 0.073768, "w7": W7}, "where w6 is 0.80"),
        ({"w5": W5, "w7": 0}, "w5 leads only to o1, w7 only to o2"),
    ],
    check_logit_gradients: [
        (lambda x, y: 4 * logit_gradients(x, y), "the sum of the losses"),
        (lambda x, y: 4 * logit_gradients(x, y) / 10, "by the number of digits in the batch"),
        (lambda x, y: len(y) * logit_gradients(x, y) / 4, "in the batch, here 3"),
        (lambda x, y: -logit_gradients(x, y), "the sign is wrong"),
        (lambda x, y: x.softmax(1) - F.one_hot(y, 10) / len(y), "in parentheses"),
        (lambda x, y: (x.softmax(1) - F.one_hot(y, 10).amax(0)) / len(y), "changes all rows"),
        (lambda x, y: x.softmax(1) / len(y), "something is missing"),
        (lambda x, y: x.softmax(1), "then divide by"),
        (lambda x, y: (x.softmax(0) - F.one_hot(y, 10)) / 4, "softmax over dim=1"),
        (lambda x, y: logit_gradients(x, y).sum(0), "the shape [4, 10]"),
        (logit_gradients_by_backward, "PyTorch did the work here"),
        (logit_gradients_by_autograd, "PyTorch did the work here"),
    ],
    check_bias_gradients: [
        (lambda w, b: [0, 0, 0, 0], "gradient of o1's bias is not 0.000000: a bias has"),
        (lambda w, b: [0, 0], "four gradients, for the biases"),
        (one_too_large(0), "add both paths: (o1 · w5 + o2 · w7)"),
        (one_too_large(1), "add both paths: (o1 · w6 + o2 · w8)"),
        (one_too_large(2), "gradient of o1's bias"),
        (one_too_large(3), "gradient of o2's bias"),
        (lambda w, b: bias_gradients(w, b)[2:] + bias_gradients(w, b)[:2], "in another order"),
        (lambda w, b: [-slope for slope in bias_gradients(w, b)], "the signs are wrong"),
        (lambda w, b: [2 * slope for slope in bias_gradients(w, b)], "twice the gradients"),
        (lambda w, b: [round(slope, 4) for slope in bias_gradients(w, b)], "do not round"),
        (lambda w, b: bias_gradients(w, [0, 0, 0, 0]), "the biases are missing"),
        (bias_gradients_but(paths=[(4, 5), (6, 7)]), "two weights are swapped"),
        (bias_gradients_but(paths=[(4, None), (None, 7)]), "add up the two paths"),
        (bias_gradients_but(hidden_slope=False), "slope of the hidden neurons' sigmoid"),
        (bias_gradients_but(output_slope=False), "slope of the outputs' sigmoid"),
    ],
    check_receptive_field: [
        (FIELDS | {"NetFC_conv4": 10}, "two pixels apart"),
        (FIELDS | {"NetGAP_last": 20}, "a layer adds (kernel - 1) · jump pixels"),
        (FIELDS | {"NetFC_conv4": 13}, "the pooling makes the field a little wider"),
        (FIELDS | {"NetGAP_last": 32}, "after the average pooling"),
    ],
    check_batch_norm: [
        (lambda x: batch_norm(x, over=(0, 1, 2, 3)), "each map needs its own mean"),
        (lambda x: batch_norm(x, over=(2, 3)), "not image by image"),
        (lambda x: batch_norm(x, over=(1, 2)), "over the images, rows and columns"),
        (lambda x: x - x.mean((0, 2, 3)), "keepdim=True"),
        (lambda x: batch_norm(x, over=0, correction=1), "not one for every position"),
        (lambda x: x, "the first map now has mean 1.92 and standard deviation 2.73"),
        (lambda x: -batch_norm(x), "not x from the mean"),
        (lambda x: batch_norm(x) * 2, "now has mean 0.00 and standard deviation 2."),
        (lambda x: x - mean(x) / deviation(x), "put x - mean in parentheses"),
        (lambda x: x - x.mean((0, 2, 3), keepdim=True), "now divide by"),
        (lambda x: batch_norm(x) / x.std((0, 2, 3), keepdim=True), "its square root"),
        (lambda x: batch_norm(x)[0], "stay [4, 3, 5, 5], but it became [3, 5, 5]"),
    ],
    check_one_cycle: [
        (lambda *_: ..., "returns nothing yet"),
        (lambda n, *given: one_cycle(n, *given) if n < 9 else None, "for step 9 of 100"),
        (lambda *_: "0.1", "not a str"),
        (lambda n, steps, peak: [peak] * steps, "return one rate"),
        (lambda n, steps, peak: one_cycle(n, steps, 0.1), "peak of 1.0, the largest rate is 0.1"),
        (lambda n, steps, peak: one_cycle(n, 100, peak), "with 250 steps"),
        (lambda n, steps, peak: peak, "the first rate is 0.1000"),
        (lambda n, steps, peak: peak * n / steps, "within the first half"),
        (lambda *given: 0.5 * one_cycle(*given), "0.0500, but it should be the peak"),
        (one_cycle_but(0, 0.6), "the first rate is 0.0600: it should be below 0.0200, a fifth"),
        (one_cycle_but(0, 1 / 3), "the first rate is 0.0333: it should be below 0.0200"),
        (
            lambda *given: one_cycle(*given, top=30),
            "with 50 steps and a peak of 0.1, the peak",
        ),
        (
            one_cycle_but(99, 0.06),
            "the last rate is 0.0060: it should be below 0.0050, a twentieth",
        ),
        (one_cycle_but(99, -0.97), "the smallest rate is -0.0970: it should not be negative"),
        (one_cycle_but(0, -0.1), "should not be negative"),
        (one_cycle_but(20, 0.1), "only rise up to the peak"),
        (one_cycle_but(80, 0.9), "only fall after it"),
    ],
    check_tiny_network: [
        (Unfinished, "forward returns nothing yet"),
        (NetMini, "this is NetMini"),
        (NetGAP, "17,466 parameters, but must have fewer than 8,000"),
        (small(more=8000 - 286), "8,000 parameters, but must have fewer than 8,000"),
    ],
    check_reached: [
        ({"accuracy": 96.5, "goal": 97}, "0.50 points short of 97"),
        ({"accuracy": 99.396, "goal": 99.4}, "0.0040 points short of 99.4"),
        ({"accuracy": (99, 47), "goal": 99.4}, "one number, not (99, 47)"),
        ({"accuracy": 0, "goal": 97}, "97.00 points short of 97"),
        ({"accuracy": 0.994, "goal": 99.4}, "in per cent"),
        ({"accuracy": 1.0, "goal": 99.4}, "looks like a fraction"),
        ({"accuracy": 994, "goal": 99.4}, "994 is not an accuracy in per cent"),
    ],
}


def cases(table):
    """The answers of a table, one by one, under the name of their check."""
    for check, answers in table.items():
        for number, answer in enumerate(answers, start=1):
            answer, reason = answer if isinstance(answer, tuple) else (answer, number)
            yield pytest.param(check, answer, reason, id=f"{check.__name__}: {reason}")


@pytest.fixture
def submit(capsys):
    """Hands an answer in; returns the line that the check prints."""

    def submit(check, answer):
        if isinstance(answer, dict):
            check(**answer)
        else:
            check(answer)
        (line,) = capsys.readouterr().out.splitlines()
        return line

    return submit


@pytest.mark.parametrize(("check", "answer", "number"), list(cases(RIGHT)))
def test_right_answers(check, answer, number, submit):
    assert submit(check, answer) == "✓ Right!"


@pytest.mark.parametrize(("check", "answer", "reason"), list(cases(WRONG)))
def test_wrong_answers_get_a_reason(check, answer, reason, submit):
    line = submit(check, answer)
    assert line.startswith("✗ ") and reason in line
    assert "?." not in line


def test_a_console_that_lacks_the_signs_shows_others(monkeypatch):
    """As on Windows, where a line with a sign of its own would stop the learner's program."""
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    check_shift(shift)
    check_shift(lambda image: 1 / 0)
    check_shift(lambda image: int("→"))
    console.seek(0)
    right, stopped, arrow = console.read().splitlines()
    assert right == "+ Right!" and stopped.startswith("- your code stopped")
    assert arrow.endswith("base 10: '?'")


def test_answers_need_names(capsys):
    check_convolution(5, 3)
    assert "name your answers: write middle=..., width=..." in capsys.readouterr().out


def test_every_check_is_tried():
    checks = set(exercises.__all__)
    assert {check.__name__ for check in RIGHT} == checks, "try each with right answers"
    assert {check.__name__ for check in WRONG} == checks, "try each with wrong answers"


def test_the_learners_own_network_stays_as_it_is(capsys):
    model = small().double()
    check_small_network(model)
    assert model.training and model[0].weight.dtype == torch.float64


def fails_in_a_library(image):
    return statistics.mean([])


def fails_in_the_course(images, labels):
    return utils.Digits(images.float(), labels), None


def line_of(function, number):
    return function.__code__.co_firstlineno + number


@pytest.mark.parametrize(
    ("check", "answer", "line"),
    [
        (check_data_set, fails, line_of(fails, 2)),
        (check_data_set, lambda *data: fails(*data), line_of(fails, 2)),
        (check_data_set, fails_in_the_course, line_of(fails_in_the_course, 1)),
        (check_shift, fails_in_a_library, line_of(fails_in_a_library, 1)),
    ],
)
def test_a_mistake_is_found_in_the_learners_own_line(check, answer, line, submit):
    assert f"your code stopped in line {line} (return " in submit(check, answer)
