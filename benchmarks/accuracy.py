"""Train a network with its recipe and several seeds, and report the accuracy after the last epoch.

    python -m benchmarks.accuracy --net NetGAP --seeds 5
    python -m benchmarks.accuracy --net NetGAP --seeds 2 --validate --change epochs=18 peak=0.2

Each finished run is saved to the folder of results at once: after an interruption the same command
continues there.
The environment variables of the course apply: MNIST_ROOT, DEVICE, SMOKE_TEST, and EPOCHS (which
changes the recipe, so name another folder with --out).
"""

import argparse
import ast
import statistics
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import torch
from tqdm import tqdm

import utils
from benchmarks import records, report, training
from course.files import replacing
from course.recipes import RECIPES


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--net", required=True, choices=RECIPES, help="the network, or one of its other recipes"
    )
    parser.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="seeds 0 to N-1 (default: 5)"
    )
    parser.add_argument(
        "--validate",
        action="store_true",
        help="train on 5/6 of the training digits, measure on the others;\nthe test digits stay untouched",
    )
    parser.add_argument(
        "--change",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="change the recipe; only with --validate",
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="save the weights of seed 0 to this file"
    )
    parser.add_argument(
        "--out", type=Path, default=report.RESULTS, help="folder of results (default: %(default)s)"
    )
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error("--seeds must be at least 1")
    if args.change and not args.validate:
        parser.error("a recipe is chosen on validation digits: --change needs --validate")
    return args, parser


NEEDS = {int: "a whole number, 1 or more", float: "a number, 0 or more", bool: "True or False"}


def changed(recipe, changes):
    """The recipe with the changes of the command line; ValueError says what is wrong with them."""
    kinds = {field.name: field.type for field in fields(recipe)}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in kinds:
            raise ValueError(f"a recipe has no {name!r}: choose from {', '.join(kinds)}")
        try:
            given = ast.literal_eval(text)
            value = kinds[name](given)
            is_exact = value == given and isinstance(given, bool) == isinstance(
                value, bool
            )  # not 3.7 epochs
            if not is_exact or value < (kinds[name] is int):
                raise ValueError
        except (ValueError, SyntaxError, TypeError):
            raise ValueError(
                f"{text!r} is no value for {name}: it needs {NEEDS[kinds[name]]}"
            ) from None
        recipe = replace(recipe, **{name: value})
    return recipe


def measure(model, loader):
    """(right answers, images, mean loss), computed with full precision."""
    accuracy, loss = utils.test(model, utils.device, loader, torch.nn.NLLLoss(), quiet=True)
    images = len(loader.dataset)
    return round(accuracy * images / 100), images, loss


def show(record):
    """Print a line for each run, then their mean and standard deviation."""
    accuracies = report.accuracies(record)
    for run, accuracy in zip(record["runs"], accuracies):
        print(
            f"seed {run['seed']}: {accuracy:.2f} %  loss {run['loss']:.4f}  {run['seconds']:.0f} s"
        )
    spread = f" ± {statistics.stdev(accuracies):.3f}" if len(accuracies) > 1 else ""
    print(
        f"{record['network']}, {record['parameters']:,} parameters, {record['measured_on']}: "
        f"{statistics.mean(accuracies):.3f}{spread} % over {len(accuracies)} seed(s)"
    )


def main():
    args, parser = parse()
    try:
        recipe = changed(RECIPES[args.net], args.change)
        epochs = utils.get_epochs(recipe.epochs)
        if epochs != recipe.epochs and any(change.startswith("epochs=") for change in args.change):
            raise ValueError(
                "--change epochs, and EPOCHS or SMOKE_TEST, contradict each other: leave one out"
            )
        recipe = replace(recipe, epochs=epochs)
        recipe.augmentation()
        model = training.build(args.net, recipe)
    except ValueError as error:
        parser.error(str(error))
    train_loader, test_loader = training.loaders(recipe, args.validate)
    name = "-".join(["validation" if args.validate else "accuracy", args.net, *args.change])
    path = args.out / f"{name}.json"
    identity = {
        "network": args.net,
        "parameters": sum(p.numel() for p in model.parameters()),
        "data": train_loader.dataset.source,
        "measured_on": f"{len(test_loader.dataset):,} {'validation' if args.validate else 'test'} digits",
        "recipe": asdict(recipe),
        "versions": records.versions(),
        "machine": records.machine(utils.device),
    }
    record = records.load(path, identity)
    done = {run["seed"] for run in record["runs"]}
    if args.weights and 0 in done:
        print(f"Seed 0 is in {path} already, so {args.weights} is left as it is.")
    print(f"{args.net}: {recipe.describe()}")
    for seed in tqdm(range(args.seeds), desc=args.net, unit="seed"):
        if seed in done:
            continue
        model, seconds = training.train_seed(args.net, recipe, seed, train_loader)
        correct, images, loss = measure(model, test_loader)
        record["runs"].append(
            {
                "seed": seed,
                "correct": correct,
                "images": images,
                "loss": loss,
                "seconds": round(seconds, 1),
            }
        )
        record["runs"].sort(key=lambda run: run["seed"])
        if seed == 0 and args.weights:
            with replacing(args.weights) as file:
                torch.save(model.state_dict(), file)
        records.save(path, record)
    show(record)
    print(f"saved to {path}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped; the same command continues after the last complete run.")
