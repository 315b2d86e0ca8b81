"""How fast the course trains, against the conventional way (conventional.py), on the CPU.

    python -m benchmarks.speed --net NetGAP      images per second, evaluation, start, memory
    python -m benchmarks.speed --race            NetGAP's short recipe against a conventional training
    python -m benchmarks.speed --lessons         the long trainings of both lessons, each both ways

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
import threading
import time
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import optim
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import model as networks
import utils
from benchmarks import conventional, records, report, training
from course.learning_rate import repeated
from course.recipes import RECIPES, PlainRecipe, build

ROOT = Path(__file__).resolve().parent.parent
WAYS = ["ours", "ours, 32 bits", "conventional"]
BOTH = ["ours", "conventional"]
WARM_UP = 10  # batches before the clock starts
GOAL = 99.4  # per cent: where the race ends


# --- One way, measured in a process of its own ---------------------------------------------------


class Watch:
    """A loader that ends after `batches` batches and notes when each was asked for."""

    def __init__(self, loader, batches):
        self.loader, self.batches = loader, batches

    def __len__(self):
        return self.batches

    def __iter__(self):
        batches = repeated(self.loader, self.batches)
        self.asked = []
        for _ in range(self.batches):
            self.asked.append(time.time())
            yield next(batches)
        self.asked.append(time.time())


def set_up(way, name):
    """One way of doing it: two loaders, and its functions `train` and `test`."""
    recipe = RECIPES[name]
    if way == "conventional":
        plain = isinstance(recipe, PlainRecipe)
        varied = conventional.as_in_lesson_5() if plain else conventional.as_in_lesson_6(recipe)
        loaders = conventional.loaders(os.environ["MNIST_ROOT"], recipe.batch_size, varied)
        return *loaders, conventional.train, conventional.test
    half = recipe.half_precision and way == "ours"
    return (
        *training.loaders(recipe),
        functools.partial(utils.train, half_precision=half),
        utils.test,
    )


def measure(way, net, batches, started):
    """Train for some batches, then test: what that took, as a dictionary."""
    train_loader, test_loader, train, test = set_up(way, net)
    recipe = RECIPES[net]
    torch.manual_seed(0)
    model = getattr(networks, net)()
    optimizer = optim.SGD(
        model.parameters(),
        recipe.peak / 10,
        momentum=0.9,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )
    scheduler = optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    watch = Watch(train_loader, WARM_UP + batches)
    train(model, "cpu", watch, optimizer, F.nll_loss, scheduler)
    first, start, end = watch.asked[1], watch.asked[WARM_UP], watch.asked[-1]
    test_start = time.time()
    test(model, "cpu", test_loader, F.nll_loss)
    return {
        "images_per_second": batches * recipe.batch_size / (end - start),
        "first_batch_seconds": first - started,
        "test_seconds": time.time() - test_start,
        "image_gflop": operations(model) / 1e9,
        "matrix_gflops": speed_of_a_large_product() / 1e9,
    }


def operations(model):
    """The additions and multiplications that training does for one image, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        model.train()(torch.zeros(2, 1, 28, 28)).sum().backward()
    return counter.get_total_flops() / 2


def speed_of_a_large_product(size=4096):
    """Operations a second of the best of a few products of large 32-bit matrices."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def race(way, seed):
    """A whole training of NetGAP; the conventional one ends with the first epoch that reaches the goal."""
    if way == "ours":
        recipe = RECIPES["NetGAP-short"]
        train_loader, test_loader = training.loaders(recipe)
        model, seconds = training.train_seed("NetGAP-short", recipe, seed, train_loader)
        accuracy, _ = utils.test(model, "cpu", test_loader, F.nll_loss)
        return {"seed": seed, "seconds": seconds, "epochs": recipe.epochs, "accuracies": [accuracy]}

    varied = conventional.as_in_lesson_5()
    train_loader, test_loader = conventional.loaders(os.environ["MNIST_ROOT"], 128, varied)
    torch.manual_seed(seed)
    model = networks.NetGAP()
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    seconds, accuracies = 0.0, []
    while len(accuracies) < 20 and max(accuracies, default=0) < GOAL:
        start = time.perf_counter()
        conventional.train(model, "cpu", train_loader, optimizer, F.nll_loss)
        seconds += time.perf_counter() - start
        accuracies.append(conventional.test(model, "cpu", test_loader, F.nll_loss)[0])
    return {"seed": seed, "seconds": seconds, "epochs": len(accuracies), "accuracies": accuracies}


def whole(way, name):
    """A whole training of a lesson with seed 0, and a test after each epoch, as the lesson does it."""
    start = time.perf_counter()
    train_loader, test_loader, train, test = set_up(way, name)
    recipe = RECIPES[name]
    torch.manual_seed(0)
    model = build(name, recipe)
    optimizer, criterion = recipe.optimizer(model), recipe.criterion()
    scheduler = recipe.scheduler(optimizer, recipe.epochs * len(train_loader))
    for _ in range(recipe.epochs):
        train(model, "cpu", train_loader, optimizer, criterion, scheduler)
        accuracy, _ = test(model, "cpu", test_loader, criterion)
    return {"training": name, "seconds": time.perf_counter() - start, "accuracy": accuracy}


# --- All ways in turn ----------------------------------------------------------------------------


def memory_of(pid):
    """Megabytes that a process and its children hold (Linux; 0 elsewhere, and once they are gone)."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):  # what several processes share is divided among them
                total = int(line.split()[1]) / 1024
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            total += memory_of(child)
    except OSError:
        pass
    return total


def in_a_process(*arguments):
    """Run this file for one measurement; return its result with the largest memory seen meanwhile."""
    environment = os.environ | {"DEVICE": "cpu"}
    command = [
        sys.executable,
        "-m",
        "benchmarks.speed",
        "--child",
        *map(str, arguments),
        str(time.time()),
    ]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    peak = 0.0

    def look():
        nonlocal peak
        while child.poll() is None:
            peak = max(peak, memory_of(child.pid))
            time.sleep(0.25)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    output, errors = child.communicate()
    watcher.join()
    if child.returncode:
        sys.exit(f"{errors}\nthe measurement {arguments} failed")
    return json.loads(output.splitlines()[-1]) | {"peak_memory_mb": peak}


def table(runs):
    """The medians of each way and their ratios, as lines of a table."""
    ways = report.medians(runs)
    ours, conventional = ways["ours"], ways["conventional"]
    lines = [
        f"{'median':<32}" + "".join(f"{way:>15}" for way in ways) + f"{'ours : conventional':>21}"
    ]
    for name, text in NAMES.items():
        values = "".join(f"{figures[name]:>15,.1f}" for figures in ways.values())
        ratio = f"{ours[name] / conventional[name]:.2f}" if conventional[name] else "–"
        lines.append(f"{text:<32}{values}{ratio:>21}")
    for way in WAYS[:2]:
        share = report.matrix_share(ways[way])
        lines.append(f"{way}: {share:.0%} of what a large 32-bit matrix product reaches")
    return "\n".join(lines)


NAMES = {
    "images_per_second": "training, images a second",
    "test_seconds": "testing 10,000 images, seconds",
    "first_batch_seconds": "start to first step, seconds",
    "peak_memory_mb": "peak memory, MB",
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--net", choices=report.NETWORKS, help="the network to measure")
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
    parser.add_argument("--out", type=Path, help="folder of results (default: benchmarks/results)")
    args = parser.parse_args()
    if args.rounds < 1 or not 1 <= args.batches <= 400:
        parser.error("--rounds must be at least 1, and --batches from 1 to 400")
    if utils.is_smoke_test():
        parser.error("SMOKE_TEST is set: its few digits say nothing about speed")

    train_data, _ = utils.get_trainloader()
    if train_data.source != "MNIST":
        print("Speed is measured on MNIST only: point MNIST_ROOT to a copy.")
        return
    os.environ["MNIST_ROOT"] = str(Path(utils.get_root()).resolve())
    if args.lessons:
        name = "lessons"
        identity = {
            "recipes": {training: asdict(RECIPES[training]) for training in report.TRAININGS}
        }
        turns = [("whole", way, training) for training in report.TRAININGS for way in BOTH]
    elif args.race:
        name = "race"
        identity = {"network": "NetGAP", "recipe": asdict(RECIPES["NetGAP-short"])}
        turns = [("race", way, seed) for seed in range(args.rounds) for way in BOTH]
    else:
        name = args.net
        identity = {"network": name, "recipe": asdict(RECIPES[name]), "batches": args.batches}
        turns = [("batches", way, name, args.batches) for way in WAYS] * args.rounds
    identity |= {"versions": records.versions(), "machine": records.machine()}
    path = (args.out or report.RESULTS) / f"speed-{name}.json"
    record = records.load(path, identity)
    runs = record["runs"]
    for turn in tqdm(turns[len(runs) :], desc="turns", initial=len(runs), total=len(turns)):
        runs.append({"way": turn[1]} | in_a_process(*turn))
        records.save(path, record)
    if args.net:
        print(table(runs))
    elif args.race:
        for run in runs:
            print(
                f"seed {run['seed']}, {run['way']}: {run['epochs']} epochs in {run['seconds']:.0f} s, "
                f"test accuracy {run['accuracies'][-1]:.2f} %"
            )
    else:
        print("\n".join(report.lessons_table(record)))
    print(f"saved to {path}")


def child(kind, way, what, *rest):
    """Run in a process of its own: measure, and print the result as one line of JSON."""
    if kind == "race":
        result = race(way, int(what))
    elif kind == "whole":
        result = whole(way, what)
    else:
        batches, started = rest
        result = measure(way, what, int(batches), float(started))
    print(json.dumps(result))


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["--child"]:
            child(*sys.argv[2:])
        else:
            main()
    except KeyboardInterrupt:
        sys.exit("\nStopped; the same command continues after the last complete measurement.")
