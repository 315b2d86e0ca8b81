"""Train `NetGAP` with one ingredient left out at a time: short runs, measured on the validation set.

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
from benchmarks.accuracy import measure
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
    """A copy of a `NetGAP` without one ingredient: "batch norm", "dropout" or "average pooling".

    A linear layer replaces average pooling and the 1×1 convolution before it.
    """
    model = copy.deepcopy(model)
    if ingredient == "average pooling":
        numbers = model.classes.in_channels * model.average.kernel_size**2
        model.classes, model.average = nn.Flatten(), nn.Linear(numbers, model.classes.out_channels)
        return model
    kinds = {"batch norm": nn.BatchNorm2d, "dropout": nn.Dropout}
    if ingredient not in kinds:
        choices = "'batch norm', 'dropout' or 'average pooling'"
        raise ValueError(f"{ingredient!r} cannot be left out: choose {choices}")
    for block in model.children():
        for name, layer in block.named_children():
            if isinstance(layer, kinds[ingredient]):
                setattr(block, name, nn.Identity())
    return model


def train_variant(variant, recipe, seed, train_loader):
    """Train a `NetGAP` that lacks what the variant lacks."""
    part = VARIANTS[variant]
    if part == "batch norm":
        recipe = replace(recipe, peak=0.01)
    train_loader.dataset.transform = (
        utils.Normalize() if part == "augmentation" else recipe.augmentation()
    )
    change = None if part in (None, "augmentation") else functools.partial(leave_out, part)
    return training.train_seed("NetGAP", recipe, seed, train_loader, change)


def main():
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
    recipe = Recipe(utils.get_epochs(EPOCHS))  # so few epochs get less variation than a lesson
    train_loader, other_loader = training.loaders(recipe, validate=True)
    path = args.out / "ablation.json"
    identity = {
        "data": train_loader.dataset.source,
        "measured_on": f"{len(other_loader.dataset):,} validation digits",
        "recipe": asdict(recipe),
        "versions": records.versions(),
        "machine": records.machine(utils.device),
    }
    record = records.load(path, identity)
    done = {(run["variant"], run["seed"]) for run in record["runs"]}
    wanted = [(variant, seed) for seed in range(args.seeds) for variant in VARIANTS]
    for variant, seed in tqdm([pair for pair in wanted if pair not in done], unit="run"):
        model, seconds = train_variant(variant, recipe, seed, train_loader)
        correct, images, loss = measure(model, other_loader)
        count = sum(parameter.numel() for parameter in model.parameters())
        run = {
            "variant": variant,
            "parameters": count,
            "seed": seed,
            "correct": correct,
            "images": images,
        }
        record["runs"].append(run | {"loss": loss, "seconds": round(seconds, 1)})
        records.save(path, record)
    for variant in VARIANTS:
        runs = [run for run in record["runs"] if run["variant"] == variant]
        print(f"{variant:<30} {report.mean_and_spread(report.accuracies({'runs': runs}))}")
    print(f"saved to {path}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped; the same command continues after the last complete run.")
