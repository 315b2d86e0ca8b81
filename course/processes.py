"""Several processes under torchrun train one network together: each takes a shard of the digits.

Only train.py, recipes.py and checkpoints.py deal with several processes; without torchrun, the
functions here change nothing.
"""

import contextlib
import os

import torch
from torch import distributed, nn
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

import utils


def join():
    """Connect to the other processes that torchrun has started."""
    if "LOCAL_RANK" not in os.environ:
        return
    if utils.device.type == "mps":
        raise ValueError("several processes cannot share Apple's MPS: set DEVICE=cpu")
    backend = "gloo"
    if utils.device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "nccl"
    store, rank, world_size = next(distributed.rendezvous("env://"))
    # Each attempt has its own place in the store, where it cannot meet workers that have died.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = distributed.PrefixStore(f"attempt {attempt}", store)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size)


def leave():
    """Disconnect from the other processes."""
    if is_one_of_several():
        distributed.destroy_process_group()


def is_one_of_several():
    return distributed.is_available() and distributed.is_initialized()


def rank():
    """The number of this process among those that train together; 0 if it is alone."""
    return distributed.get_rank() if is_one_of_several() else 0


def world_size():
    """How many processes train together."""
    return distributed.get_world_size() if is_one_of_several() else 1


def is_first():
    """Whether this process is alone, or the one that prints and writes files."""
    return rank() == 0


@contextlib.contextmanager
def only_the_first_prints():
    """In this block the other processes print nothing, except errors."""
    if is_first():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def gather(value):
    """A list with the value of each process."""
    if not is_one_of_several():
        return [value]
    values = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def wrap(model):
    """The model; one of several processes takes the first one's weights, and shares gradients."""
    return nn.parallel.DistributedDataParallel(model) if is_one_of_several() else model


def unwrap(model):
    """The network itself, without what compiles it or shares its work."""
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        return model.module
    return model


def shard(loader, seed=0):
    """A loader of this process's part of the shuffled digits; alone, it is the loader itself.

    All parts have the same size, so the mean of their gradients is that of the whole batch. Where
    the digits do not divide evenly, a few are repeated. All processes must give the same seed.
    """
    if not is_one_of_several():
        return loader
    batch_size = loader.batch_size // world_size()
    if batch_size * world_size() != loader.batch_size:
        raise ValueError(
            f"{world_size()} processes cannot share a batch of {loader.batch_size} digits equally"
        )
    sampler = DistributedSampler(loader.dataset, seed=seed)
    return DataLoader(loader.dataset, batch_size, sampler=sampler)


def average(measured):
    """The means of (accuracy, loss) over all processes, whose parts have the same size."""
    accuracies, losses = zip(*gather(measured))
    return sum(accuracies) / world_size(), sum(losses) / world_size()
