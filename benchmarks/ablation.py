"""Train `NetGAP` with one ingredient left out at a time: short runs, measured on validation digits.

    python -m benchmarks.ablation --seeds 3

Each finished run is saved at once: after an interruption the same command continues there. The
course's environment variables apply: MNIST_ROOT, DEVICE, SMOKE_TEST, and EPOCHS (with another
folder in --out).
"""

import argparse
import copy
import functools
import sys
from dataclasses import asdict, replace
from pathlib import Path

from torch import nn
from tqdm import tqdm

import utils
from benchmarks import records, report, training
from course.recipes import Recipe

EPOCHS = 5
VARIANTS = {  # and what each lacks
    "NetGAP": None,
    "without batch norm, peak 0.01": "batch norm",  # with 0.1 none of three seeds learned
    "without dropout": "dropout",
    "without average pooling": "average pooling",
    "without augmentation": "augmentation",
}


def leave_out(ingredient, model):
    """A copy of a `NetGAP` without "batch norm", "dropout" or "average pooling"."""
    model = copy.deepcopy(model)
    if ingredient == "average pooling":
        replace_pooling(model)
    elif ingredient == "batch norm":
        remove_layers(model, nn.BatchNorm2d)
    elif ingredient == "dropout":
        remove_layers(model, nn.Dropout)
    else:
        choices = "'batch norm', 'dropout' or 'average pooling'"
        raise ValueError(f"{ingredient!r} cannot be left out: choose {choices}")
    return model


def replace_pooling(model):
    """Put a linear layer in place of average pooling and the 1×1 convolution before it."""
    cells = model.average.kernel_size**2
    inputs = model.classes.in_channels * cells
    linear = nn.Linear(inputs, model.classes.out_channels)
    model.classes = nn.Flatten()
    model.average = linear


def remove_layers(model, kind):
    """Put a layer that does nothing in place of each layer of this kind."""
    for block in model.children():
        for name, layer in block.named_children():
            if isinstance(layer, kind):
                setattr(block, name, nn.Identity())


def train_variant(variant, recipe, seed, train_loader):
    """Train a `NetGAP` that lacks what the variant lacks: (network, seconds)."""
    part = VARIANTS[variant]
    change = None
    train_loader.dataset.transform = recipe.augmentation()
    if part == "augmentation":
        train_loader.dataset.transform = utils.Normalize()
    elif part is not None:
        change = functools.partial(leave_out, part)
    if part == "batch norm":
        recipe = replace(recipe, peak=0.01)
    return training.train_seed("NetGAP", recipe, seed, train_loader, change)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="seeds 0 to N-1 (default: 3)"
    )
    parser.add_argument(
        "--out", type=Path, default=report.RESULTS, help="folder of results (default: %(default)s)"
    )
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error("--seeds must be at least 1")
    return args


def get_identity(recipe, train_loader, other_loader):
    """What all runs of one file have in common."""
    return {
        "data": train_loader.dataset.source,
        "measured_on": f"{len(other_loader.dataset):,} validation digits",
        "recipe": asdict(recipe),
        "versions": records.versions(),
        "machine": records.machine(utils.device),
    }


def train_missing(seeds, recipe, path):
    """Train what the file lacks, and save each run to it; return the record of all runs."""
    train_loader, other_loader = training.loaders(recipe, validate=True)
    record = records.load(path, get_identity(recipe, train_loader, other_loader))
    done = {(finished["variant"], finished["seed"]) for finished in record["runs"]}
    wanted = [(variant, seed) for seed in range(seeds) for variant in VARIANTS]
    missing = [pair for pair in wanted if pair not in done]
    for variant, seed in tqdm(missing, unit="run"):
        model, seconds = train_variant(variant, recipe, seed, train_loader)
        finished = {
            "variant": variant,
            "parameters": training.count_parameters(model),
            "seed": seed,
            **training.measure(model, other_loader),
            "seconds": round(seconds, 1),
        }
        record["runs"].append(finished)
        records.save(path, record)
    return record


def show(record):
    """Print the mean accuracy of each variant."""
    for variant in VARIANTS:
        runs = [run for run in record["runs"] if run["variant"] == variant]
        print(f"{variant:<30} {report.mean_and_spread(report.accuracies({'runs': runs}))}")


def main():
    args = parse_arguments()
    recipe = Recipe(utils.get_epochs(EPOCHS))  # so few epochs get less variation than a lesson
    path = args.out / "ablation.json"
    show(train_missing(args.seeds, recipe, path))
    print(f"saved to {path}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped; the same command continues after the last complete run.")
