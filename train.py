"""Train a network with its recipe in a terminal: what the notebooks do, and what the figures were made with.

    python train.py --net NetGAP
    python train.py --net NetGAP --epochs 3 --seed 1 --checkpoint /some/folder/mine.pt
    torchrun --nproc-per-node 2 train.py --net NetGAP

The training is kept in the checkpoint after each epoch, and the same command goes on from there.
Under torchrun the processes, on one machine or many, share the digits of each batch; with
--max-restarts a worker that was killed costs one epoch at most. The environment variables of the
course apply: MNIST_ROOT, DEVICE, SMOKE_TEST, EPOCHS.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn, optim

import model as networks
import utils
from recipes import RECIPES


def build(name, recipe):
    """A fresh network of the class `name`; what follows the first dash names only the recipe."""
    network = getattr(networks, name.split("-")[0])
    return network(recipe.dropout) if "dropout" in network.__init__.__code__.co_varnames else network()


def varied(recipe):
    """How much training digits vary."""
    return utils.Augment(recipe.degrees, recipe.shift, recipe.zoom, crop=0, smooth=True)


def prepare(model, recipe, steps):
    """What a recipe trains a model with: optimizer, scheduler and criterion."""
    optimizer = optim.SGD(
        model.parameters(), recipe.peak, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
    )
    scheduler = optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak, total_steps=steps)
    return optimizer, scheduler, nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)


def train_network(name, recipe, seed, checkpoint):
    """Train a network, or go on with it; return the line for the table of results."""
    device, number, count = utils.device, utils.process_number(), utils.process_count()
    share = recipe.batch_size // count  # of each batch
    if share * count != recipe.batch_size:
        raise ValueError(
            f"a batch of {recipe.batch_size} digits cannot be shared equally by {count} processes"
        )
    utils.seed_everything(seed)
    model = build(name, recipe).to(device)
    if count > 1:
        model = nn.parallel.DistributedDataParallel(model)  # all begin with the weights of the first
        torch.manual_seed(seed + 1000 * number)  # but each draws variations of its own
    _, train_loader = utils.get_trainloader(share, varied(recipe))
    test_data, test_loader = utils.get_testloader(1000)
    optimizer, scheduler, criterion = prepare(model, recipe, recipe.epochs * len(train_loader))
    history = utils.History(model, optimizer, scheduler)
    for _ in history.epochs(recipe.epochs, checkpoint):
        trained = utils.train(
            model, device, train_loader, optimizer, criterion, scheduler, recipe.half_precision
        )
        history.add(trained, utils.test(model, device, test_loader, nn.NLLLoss(), quiet=True))
    accuracy = history.curves["test_acc"][-1]
    return utils.result(model, test_data, history.done, accuracy, history.seconds)


def default_checkpoint(net, seed):
    """A file for each seed, so that none goes on with another's training."""
    return Path(__file__).resolve().parent / "runs" / (f"{net}-seed{seed}.pt" if seed else f"{net}.pt")


def join_the_others():
    """Under torchrun: get to know the other processes."""
    if "LOCAL_RANK" not in os.environ:
        return
    is_cuda = utils.device.type == "cuda"
    if is_cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, number, count = next(torch.distributed.rendezvous("env://"))
    # Each attempt has a place of its own in the store: there, workers that died cannot be found.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = torch.distributed.PrefixStore(f"attempt {attempt}", store)
    torch.distributed.init_process_group(
        "nccl" if is_cuda else "gloo", store=store, rank=number, world_size=count
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--net", required=True, choices=RECIPES, help="the network, or its short recipe")
    parser.add_argument("--epochs", type=int, metavar="N", help="instead of the recipe's own number")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all random numbers (default: 0)")
    parser.add_argument("--checkpoint", type=Path, help="file to keep it in (default: runs/NET[-seedN].pt)")
    wish = parser.parse_args()
    if wish.epochs is not None and wish.epochs < 1:
        parser.error("--epochs must be at least 1")
    recipe = RECIPES[wish.net]
    checkpoint = wish.checkpoint or default_checkpoint(wish.net, wish.seed)
    join_the_others()
    try:
        recipe = replace(recipe, epochs=wish.epochs or utils.get_epochs(recipe.epochs))
        result = train_network(wish.net, recipe, wish.seed, checkpoint)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    if utils.is_first_process():
        print(f"\n{wish.net}: {recipe.describe()}\n")
        utils.print_results([result])
        print(f"\nThe trained weights are in {checkpoint}; delete it to start anew.")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped; the same command goes on after the last whole epoch.")
