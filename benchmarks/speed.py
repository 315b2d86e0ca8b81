"""How fast the course trains, against the conventional way (conventional.py), on the CPU.

    python -m benchmarks.speed --net NetGAP   images per second, evaluation, start, memory
    python -m benchmarks.speed --race         the short recipe against a conventional training
    python -m benchmarks.speed --lessons      the long trainings of both lessons, each both ways

The ways take turns, each time in a process of its own; the result is their ratio.
Each finished measurement is saved at once: after an interruption the same command continues there.
Nothing else should run on the machine meanwhile. MNIST is downloaded if it is missing.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import optim
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import utils
from benchmarks import conventional, records, report, training
from course.learning_rate import repeated
from course.recipes import RECIPES, PlainRecipe, build, fit
from model import NetGAP

ROOT = Path(__file__).resolve().parent.parent
WAYS = ["ours", "ours, 32 bits", "conventional"]
BOTH_WAYS = ["ours", "conventional"]
WARM_UP = 10  # batches before the clock starts
GOAL = 99.4  # per cent: where the race ends
NAMES = {
    "images_per_second": "training, images a second",
    "test_seconds": "testing 10,000 images, seconds",
    "first_batch_seconds": "start to first step, seconds",
    "peak_memory_mb": "peak memory, MB",
}


# --- One way, measured in a process of its own ---------------------------------------------------


class Watch:
    """A loader that ends after `batches` batches and notes when each was asked for."""

    def __init__(self, loader, batches):
        self.loader = loader
        self.batches = batches

    def __len__(self):
        return self.batches

    def __iter__(self):
        self.asked = [time.time()]
        for batch in repeated(self.loader, self.batches):
            yield batch
            self.asked.append(time.time())


def get_loaders(way, recipe):
    """The loaders of the training and test digits."""
    if way != "conventional":
        return training.loaders(recipe)
    if isinstance(recipe, PlainRecipe):
        varied = conventional.as_in_lesson_5()
    else:
        varied = conventional.as_in_lesson_6(recipe)
    return conventional.loaders(os.environ["MNIST_ROOT"], recipe.batch_size, varied)


def get_functions(way, recipe):
    """The functions (train, test)."""
    if way == "conventional":
        return conventional.train, conventional.test
    half = recipe.half_precision and way == "ours"
    return functools.partial(utils.train, half_precision=half), utils.test


def measure(way, net, batches, started):
    """Train for some batches, then test: what that took, as a dictionary."""
    recipe = RECIPES[net]
    train_loader, test_loader = get_loaders(way, recipe)
    train, test = get_functions(way, recipe)
    torch.manual_seed(0)
    model = build(net, recipe)
    optimizer = recipe.optimizer(model)
    optimizer.param_groups[0]["lr"] = recipe.peak / 10
    scheduler = optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    watch = Watch(train_loader, WARM_UP + batches)
    train(model, "cpu", watch, optimizer, F.nll_loss, scheduler)
    seconds = watch.asked[-1] - watch.asked[WARM_UP]
    test_start = time.time()
    test(model, "cpu", test_loader, F.nll_loss)
    test_seconds = time.time() - test_start
    memory = peak_memory()  # before the large product needs some
    return {
        "images_per_second": batches * recipe.batch_size / seconds,
        "first_batch_seconds": watch.asked[1] - started,
        "test_seconds": test_seconds,
        "image_gflop": operations(model) / 1e9,
        "matrix_gflops": speed_of_a_large_product() / 1e9,
        "peak_memory_mb": memory,
    }


def operations(model):
    """The additions and multiplications of training for one image, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        model.train()(torch.zeros(2, 1, 28, 28)).sum().backward()
    return counter.get_total_flops() / 2


def speed_of_a_large_product(size=4096):
    """Operations a second of the best of a few products of large 32-bit matrices."""
    a = torch.randn(size, size)
    b = torch.randn(size, size)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def peak_memory():
    """The most megabytes that one process has held: this one, or one of its workers."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest_worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux kilobytes
    return max(own, largest_worker) / unit


def race(way, seed):
    """A whole training of NetGAP: how long it takes, and the accuracies on the test digits."""
    result = race_ours(seed) if way == "ours" else race_conventional(seed)
    return {"seed": seed, **result}


def race_ours(seed):
    """The short recipe, tested once."""
    recipe = RECIPES["NetGAP-short"]
    train_loader, test_loader = training.loaders(recipe)
    model, seconds = training.train_seed("NetGAP-short", recipe, seed, train_loader)
    accuracy, _ = utils.test(model, "cpu", test_loader, F.nll_loss)
    return {"seconds": seconds, "epochs": recipe.epochs, "accuracies": [accuracy]}


def race_conventional(seed):
    """A plain recipe, tested after each epoch, until one reaches the goal; at most 20 epochs."""
    varied = conventional.as_in_lesson_5()
    train_loader, test_loader = conventional.loaders(os.environ["MNIST_ROOT"], 128, varied)
    torch.manual_seed(seed)
    model = NetGAP()
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    seconds = 0.0
    accuracies = []
    while len(accuracies) < 20 and max(accuracies, default=0) < GOAL:
        start = time.perf_counter()
        conventional.train(model, "cpu", train_loader, optimizer, F.nll_loss)
        seconds += time.perf_counter() - start
        accuracy, _ = conventional.test(model, "cpu", test_loader, F.nll_loss)
        accuracies.append(accuracy)
    return {"seconds": seconds, "epochs": len(accuracies), "accuracies": accuracies}


def whole(way, name):
    """A whole training of a lesson with seed 0, and a test after each epoch, as in the lesson."""
    start = time.perf_counter()
    recipe = RECIPES[name]
    train_loader, test_loader = get_loaders(way, recipe)
    torch.manual_seed(0)
    model = build(name, recipe)
    history = fit(model, recipe, train_loader, test_loader, ways=get_functions(way, recipe))
    seconds = time.perf_counter() - start
    return {"training": name, "seconds": seconds, "accuracy": history.curves["test_acc"][-1]}


def child(turn, started):
    """Run in a process of its own: measure, and print the result as one line of JSON."""
    kind, *arguments = json.loads(turn)
    if kind == "race":
        result = race(*arguments)
    elif kind == "whole":
        result = whole(*arguments)
    else:
        result = measure(*arguments, float(started))
    print(json.dumps(result))


# --- All ways in turn ----------------------------------------------------------------------------


def in_a_process(turn):
    """Run this file for one measurement, such as ["race", "ours", 0]; return its result."""
    command = [sys.executable, "-m", "benchmarks.speed", "--child", json.dumps(turn)]
    done = subprocess.run(
        [*command, str(time.time())],
        capture_output=True,
        text=True,
        env=os.environ | {"DEVICE": "cpu"},
        cwd=ROOT,
    )
    if done.returncode:
        sys.exit(f"{done.stderr}\nthe measurement {turn} failed")
    return json.loads(done.stdout.splitlines()[-1])  # above it stands what training has printed


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--net", choices=RECIPES, help="the network to measure")
    what.add_argument(
        "--race", action="store_true", help="the short recipe against a conventional training"
    )
    what.add_argument(
        "--lessons", action="store_true", help="the long trainings of both lessons, both ways"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="turns, or races (default: 5)"
    )
    parser.add_argument(
        "--batches", type=int, default=120, metavar="N", help="batches a turn (default: 120)"
    )
    parser.add_argument(
        "--out", type=Path, default=report.RESULTS, help="folder of results (default: %(default)s)"
    )
    args = parser.parse_args()
    if args.rounds < 1 or not 1 <= args.batches <= 400:
        parser.error("--rounds must be at least 1, and --batches from 1 to 400")
    if utils.is_smoke_test():
        parser.error("SMOKE_TEST is set: its few digits say nothing about speed")
    return args


def plan(args):
    """What to measure: a name for it, what all turns have in common, and the turns."""
    if args.lessons:
        name = "lessons"
        nets = list(report.TRAININGS)
        identity = {"recipes": {net: asdict(RECIPES[net]) for net in nets}}
        turns = [["whole", way, net] for net in nets for way in BOTH_WAYS]
    elif args.race:
        name = "race"
        identity = {"network": "NetGAP", "recipe": asdict(RECIPES["NetGAP-short"])}
        turns = [["race", way, seed] for seed in range(args.rounds) for way in BOTH_WAYS]
    else:
        name = args.net
        identity = {"network": name, "recipe": asdict(RECIPES[name])}
        identity |= {"batches": args.batches, "memory": "of the largest process"}
        turns = [["batches", way, name, args.batches] for way in WAYS] * args.rounds
    identity |= {"versions": records.versions(), "machine": records.machine()}
    return name, identity, turns


def run_missing(turns, record, path):
    """Measure the turns that the record lacks, and save each to its file."""
    runs = record["runs"]
    missing = turns[len(runs) :]
    for turn in tqdm(missing, desc="turns", initial=len(runs), total=len(turns)):
        way = turn[1]
        runs.append({"way": way} | in_a_process(turn))
        records.save(path, record)


def table(runs):
    """The medians of each way and their ratios, as lines of a table."""
    ways = report.medians(runs)
    ours = ways["ours"]
    other = ways["conventional"]
    head = "".join(f"{way:>15}" for way in ways)
    lines = [f"{'median':<32}{head}{'ours : conventional':>21}"]
    for name, text in NAMES.items():
        values = "".join(f"{figures[name]:>15,.1f}" for figures in ways.values())
        ratio = f"{ours[name] / other[name]:.2f}" if other[name] else "–"
        lines.append(f"{text:<32}{values}{ratio:>21}")
    for way in ["ours", "ours, 32 bits"]:
        share = report.matrix_share(ways[way])
        lines.append(f"{way}: {share:.0%} of what a large 32-bit matrix product reaches")
    return lines


def race_lines(runs):
    """A line for each race."""
    lines = []
    for run in runs:
        reached = f"test accuracy {run['accuracies'][-1]:.2f} %"
        result = f"{run['epochs']} epochs in {run['seconds']:.0f} s, {reached}"
        lines.append(f"seed {run['seed']}, {run['way']}: {result}")
    return lines


def main():
    args = parse_arguments()
    train_data, _ = utils.get_trainloader()
    if train_data.source != "MNIST":
        print("Speed is measured on MNIST only: point MNIST_ROOT to a copy.")
        return
    os.environ["MNIST_ROOT"] = str(Path(utils.get_root()).resolve())
    name, identity, turns = plan(args)
    path = args.out / f"speed-{name}.json"
    record = records.load(path, identity)
    run_missing(turns, record, path)
    if args.lessons:
        lines = report.lessons_table(record)
    elif args.race:
        lines = race_lines(record["runs"])
    else:
        lines = table(record["runs"])
    print("\n".join(lines))
    print(f"saved to {path}")


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["--child"]:
            child(*sys.argv[2:])
        else:
            main()
    except KeyboardInterrupt:
        sys.exit("\nStopped; the same command continues after the last complete measurement.")
