"""Several processes under torchrun, which train one network together: each takes a share of every batch.

Shares of equal size make the mean of the gradients exact; what the processes measure is put together in
one place, `pooled`. Only train.py and checkpoints.py deal with several processes.
"""

import math
import os
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler

import utils


def join():
    """Connect to the other processes; only the first one keeps printing. A single process does nothing."""
    if "LOCAL_RANK" not in os.environ:
        return
    is_cuda = utils.device.type == "cuda"
    if is_cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    elif utils.device.type == "mps":
        raise ValueError("several processes cannot share Apple's MPS: set DEVICE=cpu")
    store, number, count = next(torch.distributed.rendezvous("env://"))
    # Each attempt has its own place in the store: there, it cannot meet workers that have died.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = torch.distributed.PrefixStore(f"attempt {attempt}", store)
    torch.distributed.init_process_group(
        "nccl" if is_cuda else "gloo", store=store, rank=number, world_size=count
    )
    if not is_first():
        silence()


def silence():
    """Print nothing from now on, except errors."""
    sys.stdout = open(os.devnull, "w")
    show = utils.tqdm.__init__
    utils.tqdm.__init__ = lambda bar, *args, **named: show(bar, *args, **named | {"disable": True})


def leave():
    """Disconnect from the other processes."""
    if is_one_of_several():
        torch.distributed.destroy_process_group()


def is_one_of_several():
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def number():
    """The number of this process among those that train together; 0 if it is alone."""
    return torch.distributed.get_rank() if is_one_of_several() else 0


def count():
    """How many processes train together."""
    return torch.distributed.get_world_size() if is_one_of_several() else 1


def is_first():
    """Whether this process is alone, or the one that prints and writes files."""
    return number() == 0


def from_all(value):
    """A list with the value of each process."""
    values = [value] * count()
    if is_one_of_several():
        torch.distributed.all_gather_object(values, value)
    return values


def together(model):
    """The model, wrapped so that the processes start with the same weights and share their gradients."""
    if not is_one_of_several():
        return model
    # The layout that `utils.fast` chooses: gradients are exchanged in the order they have now.
    return nn.parallel.DistributedDataParallel(model.to(memory_format=torch.channels_last))


def unwrapped(model):
    """The network itself, without what compiles it or shares its work."""
    model = getattr(model, "_orig_mod", model)
    sharing = nn.parallel.DistributedDataParallel, nn.DataParallel
    return model.module if isinstance(model, sharing) else model


class Share(Sampler):
    """The digits assigned to this process: every n-th one, in an order that all processes agree on.

    Shuffled digits are topped up with a few repeated ones, so that all processes take equally many steps.
    """

    def __init__(self, dataset, shuffle):
        self.dataset, self.shuffle = dataset, shuffle

    def __len__(self):
        total = len(self.dataset)
        return math.ceil(total / count()) if self.shuffle else len(range(number(), total, count()))

    def __iter__(self):
        order = list(range(len(self.dataset)))
        if self.shuffle:
            order = from_all(torch.randperm(len(order)).tolist())[0]
            order += order[: -len(order) % count()]
        return iter(order[number() :: count()])


def shared(loader, shuffle):
    """A loader for this process's share of the digits; with one process, the loader itself."""
    if not is_one_of_several():
        return loader
    return DataLoader(loader.dataset, loader.batch_size, sampler=Share(loader.dataset, shuffle))


def pooled(measured, loader):
    """(accuracy in %, mean loss) over all processes, from what each measured on its share."""
    if not is_one_of_several():
        return measured
    accuracy, loss = measured
    images = len(loader.sampler)
    parts = from_all((round(accuracy * images / 100), loss * images, images))
    correct, loss_sum, images = (sum(column) for column in zip(*parts))
    return 100 * correct / images, loss_sum / images
