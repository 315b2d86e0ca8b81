"""Train a network in a terminal, with the recipe behind the README's results.

    python train.py --net NetGAP
    python train.py --net NetGAP --epochs 3 --seed 1 --checkpoint /some/folder/mine.pt
    torchrun --nproc-per-node 2 train.py --net NetGAP

The run is saved to the checkpoint after each epoch, and the same command continues from there.
Under torchrun the processes, on one machine or many, share the digits of each batch; with
--max-restarts a worker that is killed costs at most one epoch. The course's environment variables
apply: MNIST_ROOT, DEVICE, SMOKE_TEST, EPOCHS.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

import utils
from course import processes
from course.checkpoints import kept, seed_everything
from course.recipes import RECIPES, build


def train_network(name, recipe, seed, checkpoint):
    """Train a network, or continue an earlier run; return the row for the table of results."""
    device, count = utils.device, processes.count()
    share = recipe.batch_size // count  # of each batch
    if share * count != recipe.batch_size:
        raise ValueError(f"{count} processes cannot share a batch of {recipe.batch_size} digits equally")
    seed_everything(seed)
    model = processes.together(build(name, recipe).to(device))
    if count > 1:
        torch.manual_seed(seed + 1000 * processes.number())  # each draws its own variations
    _, train_loader = utils.get_trainloader(share, recipe.augmentation())
    test_data, test_loader = utils.get_testloader(1000)
    train_loader = processes.shared(train_loader, shuffle=True)
    test_loader = processes.shared(test_loader, shuffle=False)
    optimizer, criterion = recipe.optimizer(model), recipe.criterion()
    scheduler = recipe.scheduler(optimizer, recipe.epochs * len(train_loader))
    history = utils.History(model, optimizer, scheduler)
    for _ in kept(history, recipe.epochs, checkpoint, f"seed {seed}, {recipe.describe()}"):
        trained = utils.train(
            model, device, train_loader, optimizer, criterion, scheduler, recipe.half_precision
        )
        tested = utils.test(model, device, test_loader, nn.NLLLoss(), quiet=True)
        history.add(processes.pooled(trained, train_loader), processes.pooled(tested, test_loader))
    accuracy = history.curves["test_acc"][-1]
    return utils.result(processes.unwrapped(model), test_data, history.done, accuracy, history.seconds)


def default_checkpoint(net, seed):
    """A file for each seed, so that none continues another's training."""
    return Path(__file__).resolve().parent / "runs" / (f"{net}-seed{seed}.pt" if seed else f"{net}.pt")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--net",
        required=True,
        choices=RECIPES,
        help="the network, with its best recipe (-short: a short one, -plain: lesson 5's, -plain-32:\n"
        "without half precision, -few: for the digits that a package ships)",
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="number of epochs (default: the recipe's)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed for the random numbers (default: 0)"
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="file for the checkpoint (default: runs/NET[-seedN].pt)"
    )
    args = parser.parse_args()
    if args.epochs is not None and args.epochs < 1:
        parser.error("--epochs must be at least 1")
    recipe = RECIPES[args.net]
    checkpoint = args.checkpoint or default_checkpoint(args.net, args.seed)
    try:
        processes.join()
        recipe = replace(recipe, epochs=args.epochs or utils.get_epochs(recipe.epochs))
        result = train_network(args.net, recipe, args.seed, checkpoint)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    print(f"\n{args.net}: {recipe.describe()}\n")
    utils.print_results([result])
    print(f"\nThe trained weights are in {checkpoint}; delete it to start over.")
    processes.leave()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped; the same command continues after the last complete epoch.")
