"""Train a network in a terminal, with the recipe behind the README's results.

    python train.py --net NetGAP
    python train.py --net NetGAP --epochs 3 --seed 1 --checkpoint /some/folder/mine.pt
    torchrun --nproc-per-node 2 train.py --net NetGAP

The run is saved to the checkpoint after each epoch, and the same command goes on from there.
Under torchrun the processes, on one machine or many, share the digits of each batch; with
--max-restarts a worker that is killed costs at most one epoch. The course's environment variables
apply: MNIST_ROOT, DEVICE, SMOKE_TEST, EPOCHS.
"""

import os

if os.environ.get("RANK", "0") != "0":  # only the first process shows progress bars
    os.environ["TQDM_DISABLE"] = "1"  # tqdm reads this when it is imported

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

import utils
from course import processes
from course.checkpoints import seed_everything
from course.recipes import RECIPES, build, fit


def train_network(name, recipe, seed, checkpoint):
    """Train a network, or go on with an earlier run; return the row for the table of results."""
    seed_everything(seed)
    model = processes.wrap(build(name, recipe).to(utils.device))
    if processes.rank() > 0:
        torch.manual_seed(seed + 1000 * processes.rank())  # each draws its own variations
    _, train_loader = utils.get_trainloader(recipe.batch_size, recipe.augmentation())
    test_data, test_loader = utils.get_testloader(1000)
    train_loader = processes.shard(train_loader, seed)
    settings = f"seed {seed}, {recipe.describe()}"
    history = fit(model, recipe, train_loader, test_loader, checkpoint, settings)
    accuracy = history.curves["test_acc"][-1]
    network = processes.unwrap(model)
    return utils.result(network, test_data, history.done, accuracy, history.seconds)


def default_checkpoint(net, seed):
    """A file for each network and seed, so that no run goes on with another one's."""
    name = f"{net}-seed{seed}.pt" if seed else f"{net}.pt"
    return Path(__file__).resolve().parent / "runs" / name


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--net",
        required=True,
        choices=RECIPES,
        help="the network, with its best recipe (-short: a short one, -plain: lesson 5's,\n"
        "-plain-32: without half precision, -few: for the digits that a package ships)",
    )
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="number of epochs (default: the recipe's)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the random numbers (default: 0)"
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="file for the checkpoint (default: runs/NET[-seedN].pt)"
    )
    args = parser.parse_args()
    if args.epochs is not None and args.epochs < 1:
        parser.error("--epochs must be at least 1")
    if not 0 <= args.seed < 2**32:
        parser.error("--seed must be a number from 0 to 4294967295")
    if args.checkpoint is not None and args.checkpoint.is_dir():
        parser.error(f"--checkpoint must name a file, and {args.checkpoint.resolve()} is a folder")
    return args


def main():
    args = parse_arguments()
    recipe = RECIPES[args.net]
    checkpoint = args.checkpoint or default_checkpoint(args.net, args.seed)
    try:
        processes.join()
        with processes.only_the_first_prints():
            recipe = replace(recipe, epochs=args.epochs or utils.get_epochs(recipe.epochs))
            result = train_network(args.net, recipe, args.seed, checkpoint)
            print(f"\n{args.net}: {recipe.describe()}\n")
            utils.print_results([result])
            print(f"\nThe trained weights are in {checkpoint}; delete it to start over.")
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    processes.leave()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped; the same command goes on after the last complete epoch.")
