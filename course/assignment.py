"""Does your own network meet the assignment of lesson 6? Condition by condition.

    from course.assignment import check_assignment
    check_assignment(network, history)  # prints a table; returns whether all conditions are met

It also works in a test of your own: `assert check_assignment(network, history)`. The conditions
about layers look at the functions that PyTorch calls when digits pass through the network. So a
layer counts if `forward` uses it, however it is written: as a module, as a function, as a mean.
"""

import torch
from torch import nn

from course.exercises.checking import say
from course.insight import CallRecorder, evaluation_copy
from utils import History

__all__ = ["check_assignment"]

PARAMETERS = 20_000  # the network must have fewer
EPOCHS = 20  # so must its training
DIGITS = (2, 1, 28, 28)  # the shape of the batch that is sent through the network


def check_assignment(network, history, goal=99.4):
    """Print each condition of the assignment and whether it is met; return whether all are.

    `history` is the `History` of the training, or a list with the test accuracy in per cent after
    each epoch. Without MNIST, 99.4 % is out of reach: set a `goal` of your own.
    """
    check_is_network(network)
    accuracies = get_accuracies(network, history)
    calls = record_calls(network, training=True)
    rows = [
        check_parameters(network),
        check_epochs(accuracies),
        check_accuracy(accuracies, goal),
        check_batch_norm(calls),
        check_dropout(calls, record_calls(network, training=False)),
        check_end(calls),
    ]
    for condition, found, is_met in rows:
        say(f"{'✓' if is_met else '✗'} {condition:<39} {found}")
    missing = sum(not is_met for _, _, is_met in rows)
    if missing:
        print(f"{missing} of {len(rows)} conditions are not met.")
    else:
        print("The network meets the assignment.")
    return missing == 0


# --- The arguments -----------------------------------------------------------------------------


def check_is_network(network):
    if isinstance(network, type):
        raise TypeError(f"give the trained network, not its class {network.__name__}")
    if not isinstance(network, nn.Module):
        raise TypeError(f"the network should be an nn.Module, not {type(network).__name__}")


def get_accuracies(network, history):
    """The test accuracy after each epoch, in per cent."""
    if isinstance(history, History):
        check_history(network, history)
        history = history.curves["test_acc"]
    if not isinstance(history, (list, tuple)):
        raise TypeError(
            "the history should be the training's History, or a list with the test accuracy "
            f"after each epoch, not {type(history).__name__}"
        )
    if not history:
        raise ValueError("there is no test accuracy yet: train the network, and test each epoch")
    accuracies = [float(accuracy) for accuracy in history]
    if max(accuracies) <= 1:
        raise ValueError(f"{accuracies[-1]} looks like a fraction: accuracies are in per cent")
    return accuracies


def check_history(network, history):
    """Refuse a history that does not say how well this network does on the test set."""
    if history.model is not network:
        raise ValueError("this history belongs to another network: give both of one training")
    if history.measured_on != "test":
        raise ValueError(
            f"this history was measured on {history.measured_on} digits, "
            "but the assignment asks for the test set"
        )
    tests = len(history.curves["test_acc"])
    if tests != history.done:
        raise ValueError(f"test after each epoch: of {history.done} epochs, {tests} were tested")


def record_calls(network, training):
    """The calls of PyTorch's functions when a few digits pass through a copy of the network."""
    copy = evaluation_copy(network).train(training)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        digits = torch.randn(DIGITS)
        try:
            with CallRecorder() as recorder:
                scores = copy(digits)
        except Exception as error:  # the learner's own forward may raise anything
            raise ValueError(
                f"the network cannot process digits of shape {list(DIGITS)}: {error}"
            ) from error
    if not isinstance(scores, torch.Tensor) or scores.shape != (DIGITS[0], 10):
        shape = list(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ValueError(
            f"for {DIGITS[0]} digits the network should return [{DIGITS[0]}, 10], not {shape}"
        )
    refuse_hidden_layers(copy, recorder.calls)
    return recorder.calls


def refuse_hidden_layers(network, calls):
    """Refuse a network that uses parameters which PyTorch does not find, count or train."""
    known = {id(parameter) for parameter in network.parameters()}
    for call in calls:
        for tensor in call.input_tensors():
            if isinstance(tensor, nn.Parameter) and id(tensor) not in known:
                raise ValueError(
                    "PyTorch does not find all layers of the network: "
                    "keep them in nn.Sequential or nn.ModuleList, not in a plain list"
                )


# --- The conditions: each returns its name, what was found, and whether it is met ----------------


def check_parameters(network):
    count = sum(parameter.numel() for parameter in network.parameters())
    return f"fewer than {PARAMETERS:,} parameters", f"{count:,}", count < PARAMETERS


def check_epochs(accuracies):
    count = len(accuracies)
    return f"fewer than {EPOCHS} epochs", f"{count}", count < EPOCHS


def check_accuracy(accuracies, goal):
    last, best = accuracies[-1], max(accuracies)
    is_met = round(last, 3) >= goal  # 99.39999 is a 99.4 in 32 bits
    found = f"{last:.2f} %"
    if not is_met and best >= goal:
        found += f" (the best epoch, with {best:.2f} %, does not count)"
    return f"at least {goal} % after the last epoch", found, is_met


def check_batch_norm(calls):
    count = sum(call.function == "batch_norm" for call in calls)
    return "batch norm", number_of("layer", count), count > 0


def check_dropout(training_calls, evaluation_calls):
    count = count_dropouts(training_calls)
    found = number_of("layer", count)
    if count_dropouts(evaluation_calls):
        found += ", but also in evaluation mode: use F.dropout(..., training=self.training)"
    return "dropout", found, count > 0


def check_end(calls):
    linear_layers = [call for call in calls if is_linear(call)]
    if any(is_average(call) for call in calls):
        found, is_met = "average pooling", True
    elif len(linear_layers) == 1:
        weights = linear_layers[0].input_tensors()[1:]
        count = sum(weight.numel() for weight in weights)
        found, is_met = f"one linear layer with {count:,} parameters", True
    else:
        found, is_met = number_of("linear layer", len(linear_layers)), False
    return "average pooling, or one linear layer", found, is_met


def number_of(thing, count):
    return f"{count or 'no'} {thing}{'' if count == 1 else 's'}"


def count_dropouts(calls):
    """How many calls set random values to zero; one with p=0 or switched off does not."""
    count = 0
    for call in calls:
        if "dropout" in call.function:
            arguments = dict(zip(["p", "training"], call.args[1:])) | call.kwargs
            if arguments.get("p", 0.5) > 0 and arguments.get("training", True):
                count += 1
    return count


def is_average(call):
    """Whether a call averages over the cells of each map."""
    if "avg_pool" in call.function:
        return True
    if call.function != "mean":
        return False
    before, after = call.input_tensors()[0], call.output
    return before.shape[:2] == after.shape[:2] and after.numel() < before.numel()


def is_linear(call):
    """Whether a call is a linear layer; a convolution as large as its map is one, too."""
    if call.function == "conv2d":
        kernel = call.arguments()["weight"].shape[-2:]
        return kernel != (1, 1) and call.output.shape[-2:] == (1, 1)
    return call.function == "linear"
