"""Several processes under torchrun (gloo) compute together what one computes alone."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from test_notebooks import HERE

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="finds its workers in /proc"),
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="PyTorch without gloo"),
]

TOGETHER = """
import json, sys
import torch
import torch.nn.functional as F
import utils
from model import Net

torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
images = torch.randint(0, 256, (101, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
digits = utils.Digits(images, torch.arange(101) % 10)


def trained(model, loader):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    train_result = utils.train(model, "cpu", loader, optimizer, F.nll_loss)
    return train_result, utils.test(model, "cpu", test_loader, F.nll_loss)


first_96 = utils.Digits(images[:96], digits.targets[:96])
torch.manual_seed(utils.process_number())  # what is wrapped takes over the first one's weights
together = torch.nn.parallel.DistributedDataParallel(Net())
test_loader = utils.DataLoader(digits, 10, sampler=utils.Share(digits, shuffle=False))
in_order = utils.Share(first_96, shuffle=False)
results = {"together": trained(together, utils.DataLoader(first_96, 16, sampler=in_order))}
shuffled = [list(utils.Share(digits, shuffle=True)) for _ in range(2)]
weights = [parameter.detach().clone() for parameter in together.parameters()]

# As on two machines: each has a file of its own, and only that of the first counts.
path = f"{sys.argv[1]}/machine {utils.process_number()}/kept.pt"
optimizer = torch.optim.SGD(together.parameters(), lr=0.5)
for _ in (history := utils.History(together, optimizer)).epochs(2, path):
    history.add((50.0, 1.0), (50.0, 1.0))
history = utils.History(torch.nn.parallel.DistributedDataParallel(Net()), optimizer)
next(history.epochs(3, path))
resumed = [history.done, (history.model.module.conv1.weight - weights[0]).abs().max().item()]
torch.distributed.barrier()
number = utils.process_number()
torch.distributed.destroy_process_group()

torch.manual_seed(0)
alone = Net()
test_loader = utils.DataLoader(digits, 10)
results["alone"] = trained(alone, utils.DataLoader(first_96, 32))
gaps = [(a - b).abs().max().item() for a, b in zip(weights, alone.parameters())]
moved = (weights[0] - Net().conv1.weight).abs().max().item()
json.dump(
    results | {"gap": max(gaps), "moved": moved, "shuffled": shuffled, "resumed": resumed},
    open(f"{sys.argv[1]}/{number}.json", "w"),
)
"""


def torchrun(*arguments, **settings):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--local-addr=localhost",  # the machine's own name may lead nowhere
        "--nproc-per-node",
        "2",
        *arguments,
    ]
    environment = os.environ | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", "DEVICE": "cpu"} | settings
    return subprocess.Popen(
        command, env=environment, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


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
    assert output.count("Test set:") == 3, "one process prints; alone both do"
    assert output.count("/101 (") == 3
    for ours, theirs in zip(first["shuffled"], second["shuffled"]):
        assert len(ours) == len(theirs) == 51 and set(ours) | set(theirs) == set(range(101))
    assert first["shuffled"][0] != first["shuffled"][1]


def workers(pid):
    """The processes that torchrun started."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def epochs_in(checkpoint):
    if not checkpoint.exists():
        return 0
    return len(torch.load(checkpoint, weights_only=True)["curves"]["test_acc"])


def test_a_killed_worker_costs_one_epoch_at_most(tmp_path):
    epochs, checkpoint = 12, tmp_path / "a b" / "ü.pt"
    done = torchrun(
        *["--max-restarts", "2", "train.py", "--net", "NetMini"],
        *["--epochs", str(epochs), "--checkpoint", str(checkpoint)],
        SMOKE_TEST="1",
    )
    deadline = time.time() + 200
    while epochs_in(checkpoint) < 2 and time.time() < deadline and done.poll() is None:
        time.sleep(0.02)
    os.kill(workers(done.pid)[-1], signal.SIGKILL)
    output, errors = done.communicate(timeout=300)
    assert done.returncode == 0, errors
    trained = [int(number) for number in re.findall(r"^Epoch +(\d+):", output, re.MULTILINE)]
    assert sorted(set(trained)) == list(range(1, epochs + 1)) and len(trained) <= epochs + 1
    (kept,) = re.findall(rf"holds (\d+) of {epochs} epochs: going on from there", output)
    assert 2 <= int(kept) < epochs
    assert re.search(rf"^NetMini +5,797 +{epochs} ", output, re.MULTILINE)
