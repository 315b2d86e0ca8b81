"""Several processes under torchrun (gloo) compute together what one computes alone."""

import json
import sys

import pytest
import torch
from helpers import torchrun
from torch import nn

import utils
from course import processes

TOGETHER = """
import json, sys
import torch
import torch.nn.functional as F
import utils
from course import processes
from course.checkpoints import kept
from model import Net

torch.set_num_threads(1)
processes.join()
images = torch.randint(0, 256, (101, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
digits = utils.Digits(images, torch.arange(101) % 10)


def trained(model, loader, test_loader):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    train_result = utils.train(model, "cpu", loader, optimizer, F.nll_loss, half_precision=False)
    test_result = utils.test(model, "cpu", test_loader, F.nll_loss)
    return processes.pooled(train_result, loader), processes.pooled(test_result, test_loader)


first_96 = utils.Digits(images[:96], digits.targets[:96])
torch.manual_seed(processes.number())  # what is wrapped takes over the first one's weights
together = processes.together(Net())
in_order = processes.shared(utils.DataLoader(first_96, 16), shuffle=False)
results = {"together": trained(together, in_order, processes.shared(utils.DataLoader(digits, 10), False))}
shuffled = [list(processes.Share(digits, shuffle=True)) for _ in range(2)]
weights = [parameter.detach().clone() for parameter in together.parameters()]

# As on two machines: each has a file of its own, and only that of the first counts.
path = f"{sys.argv[1]}/machine {processes.number()}/kept.pt"
optimizer = torch.optim.SGD(together.parameters(), lr=0.5)
for _ in kept(history := utils.History(together, optimizer), 2, path):
    history.add((50.0, 1.0), (50.0, 1.0))
history = utils.History(processes.together(Net()), optimizer)
next(kept(history, 3, path))
gap = (processes.unwrapped(history.model).conv1.weight - weights[0]).abs().max().item()
resumed = [history.done, gap]
torch.distributed.barrier()
number = processes.number()
processes.leave()

torch.manual_seed(0)
alone = Net()
results["alone"] = trained(alone, utils.DataLoader(first_96, 32), utils.DataLoader(digits, 10))
gaps = [(a - b).abs().max().item() for a, b in zip(weights, alone.parameters())]
moved = (weights[0] - Net().conv1.weight).abs().max().item()
json.dump(
    results | {"gap": max(gaps), "moved": moved, "shuffled": shuffled, "resumed": resumed},
    open(f"{sys.argv[1]}/{number}.json", "w"),
)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds its workers in /proc")
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="PyTorch without gloo")
def test_two_processes_compute_what_one_does(tmp_path):
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    done = torchrun(str(script), str(tmp_path))
    output, errors = done.communicate(timeout=300)
    assert done.returncode == 0, errors
    first, second = (json.loads((tmp_path / f"{number}.json").read_text()) for number in (0, 1))
    for result in (first, second):
        # Three steps: their gradients are those of the joined batches.
        assert result["gap"] < 1e-5 < 1e-3 < result["moved"]
        (accuracy, loss), (test_accuracy, test_loss) = result["together"]
        (accuracy_alone, loss_alone), (test_accuracy_alone, test_loss_alone) = result["alone"]
        assert accuracy == accuracy_alone and loss == pytest.approx(loss_alone, abs=1e-5)
        # 101 digits do not divide by two, and each counts once.
        assert test_accuracy == test_accuracy_alone and test_loss == pytest.approx(test_loss_alone, abs=1e-5)
        assert result["resumed"] == [2, 0.0]
    assert [path.parent.name for path in tmp_path.rglob("kept.pt")] == ["machine 0"]
    assert output.count("Test set:") == 2, "the first process prints, together and alone"
    assert errors.count("| 0/3 [00:00<?") == 2, "and shows its progress bars"
    for ours, theirs in zip(first["shuffled"], second["shuffled"]):
        assert len(ours) == len(theirs) == 51 and set(ours) | set(theirs) == set(range(101))
    assert first["shuffled"][0] != first["shuffled"][1]


# --- In one process ------------------------------------------------------------------------------


def test_a_process_alone_shares_nothing(monkeypatch, digits):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    processes.join()
    model, loader = nn.Linear(1, 1), utils.DataLoader(digits, 10)
    assert (processes.number(), processes.count(), processes.is_first()) == (0, 1, True)
    assert processes.from_all("value") == ["value"]
    assert processes.together(model) is processes.unwrapped(model) is model
    assert processes.shared(loader, shuffle=True) is loader
    assert processes.pooled((50.0, 1.5), loader) == (50.0, 1.5)
    processes.leave()


@pytest.fixture
def one_of(monkeypatch):
    """Make this process the one with a certain number; `sent` says what others have sent."""

    def build(number, count, sent):
        monkeypatch.setattr(processes, "is_one_of_several", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: number)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: count)

        def gather(values, value):
            sent[number] = value
            values[:] = [sent.get(each, value) for each in range(count)]

        monkeypatch.setattr(torch.distributed, "all_gather_object", gather)

    return build


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_shares_hold_every_digit_and_have_the_length_they_say(one_of, digits, count, shuffle):
    """Each process draws random numbers of its own: only the order of the first one counts."""
    shares, sent = [], {}
    for number in range(count):
        one_of(number, count, sent)
        torch.manual_seed(number)
        loader = processes.shared(utils.DataLoader(digits, 8), shuffle)
        shares.append(list(loader.sampler))
        assert len(loader.sampler) == len(shares[-1]) and loader.batch_size == 8
        assert loader.dataset is digits
    together = sum(shares, [])
    assert set(together) == set(range(100))
    if shuffle:  # all take equally many steps, with as few repeated digits as possible
        assert {len(share) for share in shares} == {-(-100 // count)}
        assert shares[0] != sorted(shares[0])
    else:
        assert len(together) == 100, "measured once each"


def test_measurements_are_pooled_by_the_number_of_digits(one_of, digits):
    """5 of 19 digits are right here, 2 of 2 elsewhere; the losses are 2.0 and 1.0.

    5 / 19 in per cent, times 19, is a little less than 500 in a computer: rounding down would lose a digit.
    """
    one_of(0, 2, {1: (2, 2.0, 2)})
    every_second = utils.Digits(digits.data[:38], digits.targets[:38])
    loader = processes.shared(utils.DataLoader(every_second, 3), shuffle=False)
    assert processes.pooled((100 * 5 / 19, 2.0), loader) == pytest.approx((100 * 7 / 21, 40 / 21))


def test_the_other_processes_are_silent(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(utils.tqdm, "__init__", utils.tqdm.__init__)
    processes.silence()
    print("nothing")
    assert utils.tqdm(range(3)).disable
    sys.stdout.close()
    assert capsys.readouterr().out == ""
