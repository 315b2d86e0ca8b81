# Started by torchrun in several processes: trains together, then alone, and writes both results.
import json
import sys

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, SequentialSampler

import utils
from course import processes
from course.checkpoints import resume
from model import Net

folder = sys.argv[1]
torch.set_num_threads(1)
processes.join()
rank = processes.rank()
generator = torch.Generator().manual_seed(0)
images = torch.randint(0, 256, (96, 28, 28), dtype=torch.uint8, generator=generator)
digits = utils.Digits(images, torch.arange(96) % 10)


def train(model, loader):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    return utils.train(model, "cpu", loader, optimizer, F.nll_loss, half_precision=False)


torch.manual_seed(rank)  # what is wrapped takes over the first one's weights
together = processes.wrap(Net())
loader = processes.shard(DataLoader(digits, 32, shuffle=True))
loader.sampler.shuffle = False  # for a comparison with one process
with processes.only_the_first_prints():
    result = processes.average(train(together, loader))
    print("only the first says this")
weights = [parameter.detach().clone() for parameter in together.parameters()]

# As on two machines: each has a file of its own, and only that of the first counts.
path = f"{folder}/machine {rank}/a.pt"
optimizer = torch.optim.SGD(together.parameters(), lr=0.5)
history = utils.History(together, optimizer)
for _ in resume(history, 2, path):
    history.add((50.0, 1.0), (50.0, 1.0))
again = processes.wrap(Net())
history = utils.History(again, torch.optim.SGD(again.parameters(), lr=0.5))
for _ in resume(history, 3, path):
    break
gap = (processes.unwrap(again).conv1.weight - weights[0]).abs().max().item()
torch.distributed.barrier()
processes.leave()

torch.manual_seed(0)
alone = Net()
# The processes take turns: together they have seen the digits in their own order.
in_order = DataLoader(digits, 32, sampler=SequentialSampler(digits))
report = {
    "together": result,
    "alone": train(alone, in_order),
    "gap": max((a - b).abs().max().item() for a, b in zip(weights, alone.parameters())),
    "moved": (weights[0] - Net().conv1.weight).abs().max().item(),
    "resumed": [history.done, gap],
}
with open(f"{folder}/{rank}.json", "w") as file:
    json.dump(report, file)
