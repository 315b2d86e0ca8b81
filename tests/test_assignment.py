"""check_assignment: a layer counts however it is written, and what is missing is named."""

import json
import re

import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT, same, sgd
from torch import nn

import utils
from course.assignment import check_assignment
from course.checkpoints import get_trained
from model import Net, NetFC, NetGAP, NetMicro, NetMini

CONDITIONS = ["parameters", "epochs", "accuracy", "batch norm", "dropout", "end"]
ENOUGH = [97.0, 99.2, 99.4]  # test accuracies of three epochs


@pytest.fixture
def unmet(capsys):
    """Checks a network; returns the conditions that the printed table calls unmet."""

    def unmet(network, history=ENOUGH, **options):
        is_met = check_assignment(network, history, **options)
        lines = [line for line in capsys.readouterr().out.splitlines() if line[0] in "✓✗"]
        found = [name for name, line in zip(CONDITIONS, lines) if line.startswith("✗")]
        assert is_met is (not found)
        return found

    return unmet


class Own(nn.Module):
    """A network of one's own; a test replaces its batch norm, its dropout or its end."""

    def __init__(self, norm=None, drop=None, end=None):
        super().__init__()
        self.conv = nn.Conv2d(1, 10, 3, stride=3)  # ten maps of 9×9
        self.bn = nn.BatchNorm2d(10)
        self.fc = nn.Linear(10 * 9 * 9, 10)
        self.wide = nn.Conv2d(10, 10, 9)
        self.unused = nn.Dropout(0.1)
        self.norm = norm or (lambda net, x: net.bn(x))
        self.drop = drop or (lambda net, x: F.dropout(x, 0.1, net.training))
        self.end = end or (lambda net, x: F.avg_pool2d(x, 9))

    def forward(self, x):
        x = self.norm(self, F.relu(self.conv(x)))
        x = self.end(self, self.drop(self, x))
        return F.log_softmax(x.flatten(1), dim=1)


def history_of(network, accuracies, measured_on="test"):
    history = utils.History(network, sgd(network), measured_on=measured_on, live=False)
    for accuracy in accuracies:
        history.add((90, 0.5), (accuracy, 0.1))
    return history


# --- Whole networks ------------------------------------------------------------------------------


@pytest.mark.parametrize("Network", [NetGAP, NetFC])
def test_the_networks_of_the_lesson_meet_the_assignment_and_stay_as_they_are(Network):
    network = get_trained(Network).eval()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random = torch.get_rng_state()
    assert check_assignment(network, history_of(network, ENOUGH)) is True
    assert same(dict(network.state_dict()), state)
    assert not network.training
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(
    ("Network", "missing"),
    [
        (Net, ["parameters", "batch norm", "dropout", "end"]),
        (NetMini, ["dropout"]),
        (NetMicro, ["dropout"]),
    ],
)
def test_the_other_networks_of_the_course_do_not(unmet, Network, missing):
    assert unmet(Network()) == missing


def test_the_table_says_what_was_found(capsys):
    check_assignment(NetFC(), ENOUGH)
    assert capsys.readouterr().out.splitlines() == [
        "✓ fewer than 20,000 parameters            19,602",
        "✓ fewer than 20 epochs                    3",
        "✓ at least 99.4 % after the last epoch    99.40 %",
        "✓ batch norm                              5 layers",
        "✓ dropout                                 2 layers",
        "✓ average pooling, or one linear layer    one linear layer with 2,570 parameters",
        "The network meets the assignment.",
    ]
    check_assignment(Net(), [99.5, 99.3])
    assert capsys.readouterr().out.splitlines() == [
        "✗ fewer than 20,000 parameters            593,200",
        "✓ fewer than 20 epochs                    2",
        "✗ at least 99.4 % after the last epoch    "
        "99.30 % (the best epoch, with 99.50 %, does not count)",
        "✗ batch norm                              no layers",
        "✗ dropout                                 no layers",
        "✗ average pooling, or one linear layer    2 linear layers",
        "5 of 6 conditions are not met.",
    ]


# --- The limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "missing"), [(19_999, []), (20_000, ["parameters"])])
def test_the_limit_of_parameters(unmet, count, missing):
    network = Own()
    rest = count - sum(parameter.numel() for parameter in network.parameters())
    network.more = nn.Parameter(torch.zeros(rest))
    assert unmet(network) == missing


ACCURACIES = {
    "19 epochs": (19 * [99.5], []),
    "20 epochs": (20 * [99.5], ["epochs"]),
    "exact": ([90.0, 99.4], []),
    "exact but for rounding": ([99.39999999999999], []),
    "too low": ([99.39], ["accuracy"]),
    "enough before the end": ([99.5, 99.39], ["accuracy"]),
    "nan": ([float("nan")], ["accuracy"]),
}


@pytest.mark.parametrize(("accuracies", "missing"), ACCURACIES.values(), ids=ACCURACIES)
def test_the_limit_of_epochs_and_the_last_accuracy(unmet, accuracies, missing):
    network = Own()
    assert unmet(network, accuracies) == missing
    assert unmet(network, history_of(network, accuracies)) == missing


def test_a_class_without_mnist_sets_a_goal_of_its_own(unmet):
    assert unmet(Own(), [98.5], goal=98.5) == []
    assert unmet(Own(), [98.4], goal=98.5) == ["accuracy"]


# --- Many spellings ------------------------------------------------------------------------------

SPELLINGS = {
    "norm": {
        "module": lambda net, x: net.bn(x),
        "function": lambda net, x: F.batch_norm(x, None, None, training=True),
        "flat": lambda net, x: F.batch_norm(x.flatten(2), None, None, training=True).view_as(x),
    },
    "drop": {
        "module": lambda net, x: nn.Dropout(0.1, inplace=True).train(net.training)(x),
        "maps": lambda net, x: nn.Dropout2d(0.1).train(net.training)(x),
        "function": lambda net, x: F.dropout(x, 0.1, net.training),
        "keywords": lambda net, x: F.dropout(x, training=net.training, p=0.1),
        "function for maps": lambda net, x: F.dropout2d(x, training=net.training),
        "torch": lambda net, x: torch.dropout(x, 0.1, net.training),
    },
    "end": {
        "pooling": lambda net, x: nn.AvgPool2d(9)(x),
        "adaptive pooling": lambda net, x: nn.AdaptiveAvgPool2d(1)(x),
        "adaptive function": lambda net, x: F.adaptive_avg_pool2d(x, (1, 1)),
        "flat pooling": lambda net, x: F.adaptive_avg_pool1d(x.flatten(2), 1),
        "mean": lambda net, x: x.mean((2, 3)),
        "mean from the end": lambda net, x: torch.mean(x, dim=[-1, -2], keepdim=True),
        "mean of a row": lambda net, x: x.flatten(2).mean(-1),
        "mean of means": lambda net, x: x.mean(2).mean(2),
        "linear layer": lambda net, x: net.fc(x.flatten(1)),
        "linear function": lambda net, x: F.linear(x.flatten(1), net.fc.weight),
        "wide convolution": lambda net, x: net.wide(x),
    },
}
ONLY_LOOKS_LIKE_IT = {
    "norm": {
        "over one image": lambda net, x: F.instance_norm(x),
        "a mean by hand": lambda net, x: x - x.mean((0, 2, 3), keepdim=True),
    },
    "drop": {
        "none": lambda net, x: x,
        "rate of 0": lambda net, x: F.dropout(x, 0.0),
        "rate of 0 by name": lambda net, x: F.dropout(x, p=0.0),
        "off": lambda net, x: F.dropout(x, 0.1, False),
        "off by name": lambda net, x: F.dropout(x, training=False),
    },
    "end": {
        "max-pooling": lambda net, x: F.max_pool2d(x, 9),
        "mean of single cells": lambda net, x: x.amax((2, 3), True).mean((2, 3)),
        "mean over the maps": lambda net, x: (x - x.mean(1, True)).amax((2, 3)),
        "mean over the batch": lambda net, x: (x - x.mean(0, True)).amax((2, 3)),
        "mean of flat numbers": lambda net, x: x.amax((2, 3)) - x.amax((2, 3)).mean(1, True),
        "two linear layers": lambda net, x: F.linear(net.fc(x.flatten(1)), torch.eye(10)),
        "linear layer and a wide one": lambda net, x: F.linear(
            net.wide(x).flatten(1), torch.eye(10)
        ),
        "narrow convolution": lambda net, x: F.conv2d(
            x.amax((2, 3), True), torch.ones(10, 10, 1, 1)
        ),
    },
}


def one_by_one(table):
    for part, spellings in table.items():
        for name, function in spellings.items():
            yield pytest.param(part, function, id=f"{part}: {name}")


@pytest.mark.parametrize(("part", "function"), list(one_by_one(SPELLINGS)))
def test_a_layer_counts_however_it_is_written(capsys, part, function):
    assert check_assignment(Own(**{part: function}), ENOUGH)
    assert "evaluation" not in capsys.readouterr().out


@pytest.mark.parametrize(("part", "function"), list(one_by_one(ONLY_LOOKS_LIKE_IT)))
def test_what_only_looks_like_it_does_not_count(unmet, part, function):
    condition = {"norm": "batch norm", "drop": "dropout", "end": "end"}[part]
    assert unmet(Own(**{part: function})) == [condition]


def test_a_network_without_a_class_counts_too():
    network = nn.Sequential(
        nn.LazyConv2d(10, 3),
        nn.LazyBatchNorm2d(),
        nn.Dropout2d(0.1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.LogSoftmax(dim=1),
    )
    network(torch.zeros(2, 1, 28, 28))
    assert check_assignment(network.double(), ENOUGH)


def test_dropout_that_goes_on_in_evaluation_mode_is_pointed_out(capsys):
    assert check_assignment(Own(drop=lambda net, x: F.dropout(x, 0.1)), ENOUGH)
    assert "1 layer, but also in evaluation mode" in capsys.readouterr().out


# --- Wrong arguments -----------------------------------------------------------------------------


class Hidden(nn.Module):
    """A network whose only layer is in a plain list."""

    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(784, 10)]

    def forward(self, x):
        return self.layers[0](x.flatten(1))


def half_tested(network):
    history = history_of(network, ENOUGH)
    history.add((90, 0.5))
    return history


@pytest.mark.parametrize(
    ("network", "make_history", "sentence"),
    [
        (Own, lambda _: ENOUGH, "give the trained network, not its class Own"),
        ("Own", lambda _: ENOUGH, "the network should be an nn.Module, not str"),
        (Own(), lambda _: 99.4, "or a list with the test accuracy after each epoch, not float"),
        (Own(), lambda _: [], "there is no test accuracy yet"),
        (Own(), lambda network: history_of(network, []), "there is no test accuracy yet"),
        (Own(), lambda _: [0.9, 0.994], "0.994 looks like a fraction: accuracies are in per cent"),
        (Own(), lambda _: history_of(Own(), ENOUGH), "this history belongs to another network"),
        (Own(), lambda net: history_of(net, ENOUGH, "validation"), "measured on validation digits"),
        (Own(), half_tested, "test after each epoch: of 4 epochs, 3 were tested"),
        (nn.Linear(784, 10), lambda _: ENOUGH, r"cannot process digits of shape \[2, 1, 28, 28\]"),
        (nn.Flatten(), lambda _: ENOUGH, r"should return \[2, 10\], not \[2, 784\]"),
        (Own(end=lambda net, x: x[..., 0]), lambda _: ENOUGH, r"not \[2, 90\]"),
        (Hidden(), lambda _: ENOUGH, "PyTorch does not find all layers of the network"),
    ],
)
def test_wrong_arguments_get_a_sentence(network, make_history, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        check_assignment(network, make_history(network))


# --- The test that teachers copy -----------------------------------------------------------------


@pytest.mark.parametrize(("measured", "passes"), [(99.44, True), (99.3, False)])
def test_what_was_handed_in_is_marked_by_the_example_for_teachers(
    monkeypatch, tmp_path, made_up_digits, measured, passes
):
    text = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    *_, example = re.findall("^```python\n(.+?)^```", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "my_network.py").write_text("from model import NetGAP as MyNetwork")
    (tmp_path / "accuracies.json").write_text(json.dumps([98.0, 99.44]))
    torch.save(NetGAP().state_dict(), tmp_path / "my_network.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(utils, "test", lambda *_: (measured, 0.02))
    names = {}
    exec(example, names)
    if passes:
        names["test_the_network_meets_the_assignment"]()
    else:
        with pytest.raises(AssertionError, match="the weights do not give this accuracy"):
            names["test_the_network_meets_the_assignment"]()
