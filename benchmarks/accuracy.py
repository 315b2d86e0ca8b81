"""Train a network with its recipe and several seeds, and report the accuracy after the last epoch.

    python -m benchmarks.accuracy --net NetGAP --seeds 5
    python -m benchmarks.accuracy --net NetGAP --seeds 2 --validate --change epochs=18 peak=0.2

Each finished run is saved to the folder of results at once: after an interruption the same command
continues there.
The environment variables of the course apply: MNIST_ROOT, DEVICE, SMOKE_TEST and EPOCHS. With the
last two, results are of another kind, so name another folder with --out.
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


def make_parser():
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
        help="train on 5/6 of the training digits, measure on the others;\n"
        "the test digits stay untouched",
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
    return parser


def parse_arguments():
    """The arguments of the command line, and the recipe that they ask for."""
    parser = make_parser()
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error("--seeds must be at least 1")
    if utils.is_smoke_test() and args.out == report.RESULTS:
        parser.error("SMOKE_TEST is set: its few digits are no result, so name a folder with --out")
    if args.change and not args.validate:
        parser.error("a recipe is chosen on validation digits: --change needs --validate")
    try:
        args.recipe = get_recipe(args.net, args.change)
    except ValueError as error:
        parser.error(str(error))
    return args


def get_recipe(net, changes):
    """The network's recipe with some changes; ValueError says what is wrong with them."""
    recipe = change_recipe(RECIPES[net], changes)
    epochs = utils.get_epochs(recipe.epochs)
    if epochs != recipe.epochs and any(change.startswith("epochs=") for change in changes):
        raise ValueError(
            "--change epochs, and EPOCHS or SMOKE_TEST, contradict each other: leave one out"
        )
    recipe = replace(recipe, epochs=epochs)
    recipe.augmentation()  # refuses what no picture can be varied by
    training.build(net, recipe)  # refuses dropout for a network that has none
    return recipe


def change_recipe(recipe, changes):
    """The recipe with changes such as "peak=0.2"."""
    for change in changes:
        name, _, text = change.partition("=")
        recipe = replace(recipe, **{name: read_value(recipe, name, text)})
    return recipe


NEEDS = {int: "a whole number, 1 or more", float: "a number, 0 or more", bool: "True or False"}


def read_value(recipe, name, text):
    """The new value of a setting of the recipe, which must be of the setting's kind."""
    kinds = {field.name: field.type for field in fields(recipe)}
    if name not in kinds:
        raise ValueError(f"a recipe has no {name!r}: choose from {', '.join(kinds)}")
    kind = kinds[name]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        value = None
    if not is_possible(value, kind):
        raise ValueError(f"{text!r} is no value for {name}: it needs {NEEDS[kind]}")
    return kind(value)


def is_possible(value, kind):
    """Whether a setting of this kind can have this value."""
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and value >= 1
    return isinstance(value, (int, float)) and value >= 0


def get_identity(args, train_loader, other_loader):
    """What all runs of one file have in common."""
    kind = "validation" if args.validate else "test"
    return {
        "network": args.net,
        "parameters": training.count_parameters(training.build(args.net, args.recipe)),
        "data": train_loader.dataset.source,
        "measured_on": f"{len(other_loader.dataset):,} {kind} digits",
        "recipe": asdict(args.recipe),
        "versions": records.versions(),
        "machine": records.machine(utils.device),
    }


def train_missing(args, path):
    """Train the seeds that the file lacks, and save each run to it; return the record of all."""
    train_loader, other_loader = training.loaders(args.recipe, args.validate)
    record = records.load(path, get_identity(args, train_loader, other_loader))
    done = {finished["seed"] for finished in record["runs"]}
    if args.weights and 0 in done:
        print(f"Seed 0 is in {path} already, so {args.weights} is left as it is.")
    print(f"{args.net}: {args.recipe.describe()}")
    missing = [seed for seed in range(args.seeds) if seed not in done]
    for seed in tqdm(missing, desc=args.net, unit="seed"):
        model, seconds = training.train_seed(args.net, args.recipe, seed, train_loader)
        finished = {
            "seed": seed,
            **training.measure(model, other_loader),
            "seconds": round(seconds, 1),
        }
        record["runs"].append(finished)
        record["runs"].sort(key=lambda run: run["seed"])
        if seed == 0 and args.weights:
            with replacing(args.weights) as file:
                torch.save(model.state_dict(), file)
        records.save(path, record)
    return record


def show(record):
    """Print a line for each run, then their mean and standard deviation."""
    accuracies = report.accuracies(record)
    for run, accuracy in zip(record["runs"], accuracies):
        result = f"{accuracy:.2f} %  loss {run['loss']:.4f}  {run['seconds']:.0f} s"
        print(f"seed {run['seed']}: {result}")
    spread = f" ± {statistics.stdev(accuracies):.3f}" if len(accuracies) > 1 else ""
    print(
        f"{record['network']}, {record['parameters']:,} parameters, {record['measured_on']}: "
        f"{statistics.mean(accuracies):.3f}{spread} % over {len(accuracies)} seed(s)"
    )


def main():
    args = parse_arguments()
    name = "-".join(["validation" if args.validate else "accuracy", args.net, *args.change])
    path = args.out / f"{name}.json"
    show(train_missing(args, path))
    print(f"saved to {path}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped; the same command continues after the last complete run.")
