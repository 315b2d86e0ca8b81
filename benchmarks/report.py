"""The tables of the README and of the search, in Markdown, out of the measured results.

    python -m benchmarks.report

The tests check that every line printed here stands in README.md or in benchmarks/README.md.
"""

import json
import math
import statistics
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
LESSONS = ["Net", "NetGAP", "NetFC"]  # the networks of the lessons
NETWORKS = [*LESSONS, "NetMini", "NetMicro"]
TRAININGS = {"Net-plain": "lesson 5", "NetGAP": "lesson 6", "NetFC": "lesson 6"}
# Student's t for 95 %, by the number of seeds: 2 to 20. For more seeds it is hardly smaller.
STUDENT = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14]
STUDENT += [2.13, 2.12, 2.11, 2.10, 2.09]


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def mean_and_spread(accuracies):
    spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
    return f"{statistics.mean(accuracies):.2f}{spread} %"


def interval(accuracies):
    """The 95 % confidence interval of the mean: the range for the mean of all possible seeds."""
    seeds = len(accuracies)
    reach = STUDENT[min(seeds, 20) - 2] * statistics.stdev(accuracies) / math.sqrt(seeds)
    mean = statistics.mean(accuracies)
    return f"{mean - reach:.2f} to {mean + reach:.2f} %"


def accuracies(record):
    return [100 * run["correct"] / run["images"] for run in record["runs"]]


def accuracy_table():
    """What the networks reach, with the published figures beside it."""
    published = {row["network"]: row for row in read("published") if "network" in row}
    lines = [
        "| network | parameters | epochs | seeds | test accuracy | 95 % interval of the mean "
        "| published, best epoch of one run |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in [*NETWORKS, "NetGAP-short"]:
        record = read(f"accuracy-{name}")
        network, _, kind = name.partition("-")
        other = f"{published[name]['accuracy']:.2f} %" if name in published else "–"
        lines.append(
            f"| `{network}`{', ' + kind + ' recipe' if kind else ''} | {record['parameters']:,} "
            f"| {record['recipe']['epochs']} | {len(record['runs'])} "
            f"| **{mean_and_spread(accuracies(record))}** | {interval(accuracies(record))} | {other} |"
        )
    return lines


def medians(runs):
    """For each way of training, the median of each thing that was measured."""
    by_way = {}
    for run in runs:
        by_way.setdefault(run["way"], []).append(run)
    return {
        way: {
            name: statistics.median(run[name] for run in turns)
            for name in turns[0]
            if name != "way"
        }
        for way, turns in by_way.items()
    }


def speeds_of(runs, way):
    """How many images a second one way trained with, turn by turn."""
    return [run["images_per_second"] for run in runs if run["way"] == way]


def matrix_share(figures):
    """The share of a large 32-bit matrix product's speed that training reaches."""
    return figures["images_per_second"] * figures["image_gflop"] / figures["matrix_gflops"]


def speed_table():
    """Images a second and what else was measured, against the conventional way."""
    lines = [
        "| network | images a second | with 32 bits only | conventional way | **ratio** "
        "| quartiles (turns) | testing | to the first step | memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in LESSONS:
        runs = read(f"speed-{name}")["runs"]
        ways = medians(runs)
        ours, exact, other = ways["ours"], ways["ours, 32 bits"], ways["conventional"]
        speeds = [f"{way['images_per_second']:,.0f}" for way in (ours, exact, other)]
        shares = [
            f"{ours[what] / other[what]:.2f}"
            for what in ["test_seconds", "first_batch_seconds", "peak_memory_mb"]
        ]
        by_turn = [a / b for a, b in zip(speeds_of(runs, "ours"), speeds_of(runs, "conventional"))]
        low, ratio, high = statistics.quantiles(by_turn, n=4, method="inclusive")
        quartiles = f"{low:.2f} to {high:.2f} ({len(by_turn)})"
        lines.append(
            f"| `{name}` | {' | '.join(speeds)} | **{ratio:.1f}** | {quartiles} | {' | '.join(shares)} |"
        )
    return lines


def matrix_line():
    ways = medians(read("speed-Net")["runs"])
    return (
        f"Per operation, `Net` trains at {100 * matrix_share(ways['ours']):.0f} % of the speed of a large "
        f"32-bit matrix product ({100 * matrix_share(ways['ours, 32 bits']):.0f} % with 32 bits only)."
    )


def race_line():
    """The short recipe against a conventional training, in two sentences."""
    runs = read("speed-race")["runs"]
    ours, other = [[run for run in runs if run["way"] == way] for way in ["ours", "conventional"]]
    last = [run["accuracies"][-1] for run in ours]
    best = [max(run["accuracies"]) for run in other]
    seconds, theirs = [statistics.median(run["seconds"] for run in side) for side in (ours, other)]
    return (
        f"The short recipe trains `NetGAP` to {mean_and_spread(last)} in {seconds:.0f} s "
        f"(seeds: {len(ours)}; times are medians). The conventional training, stopped at 99.4 % or after 20 "
        f"epochs, takes {theirs:,.0f} s ({theirs / seconds:.1f} times as long), and its best epoch reaches "
        f"{mean_and_spread(best)}."
    )


def lessons_table(record=None):
    """How long the lessons' trainings take, ours and the conventional way."""
    record = record or read("speed-lessons")
    lines = [
        "| training | epochs | ours | conventional way | **ratio** | accuracy, ours | conventional way |",
        "|---|---|---|---|---|---|---|",
    ]
    runs = {(run["training"], run["way"]): run for run in record["runs"]}
    total = [0, 0, 0]
    for name, lesson in TRAININGS.items():
        ours, other = runs[name, "ours"], runs[name, "conventional"]
        numbers = [record["recipes"][name]["epochs"], ours["seconds"], other["seconds"]]
        total = [a + b for a, b in zip(total, numbers)]
        accuracies = " | ".join(f"{run['accuracy']:.2f} %" for run in (ours, other))
        lines.append(
            f"| `{name.split('-')[0]}`, {lesson} {time_and_ratio(*numbers)} | {accuracies} |"
        )
    return [*lines, f"| both lessons {time_and_ratio(*total)} | | |"]


def time_and_ratio(epochs, seconds, other):
    """The middle of a row of lessons_table."""
    minutes = [f"{each / 60:.1f} min" for each in (seconds, other)]
    return f"| {epochs} | {' | '.join(minutes)} | **{other / seconds:.1f}**"


def superseded_table():
    """Test results of earlier recipes: the test digits were seen with these, too."""
    lines = [
        "| network | where its recipe was different | seeds | test accuracy |",
        "|---|---|---|---|",
    ]
    for path in sorted((RESULTS / "superseded").glob("*.json")):
        old = json.loads(path.read_text(encoding="utf-8"))
        now = read(path.stem)["recipe"]
        changes = [
            f"{name.replace('_', ' ')} {old['recipe'][name]}"
            for name in now
            if old["recipe"][name] != now[name]
        ]
        lines.append(
            f"| `{old['network']}` | {', '.join(changes)} | {len(old['runs'])} "
            f"| {mean_and_spread(accuracies(old))} |"
        )
    return lines


def few_table():
    """What the networks reach without MNIST."""
    lines = [
        "| network | epochs | batches of | peak | seeds | accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for name in LESSONS:
        record = read(f"accuracy-{name}-few")
        recipe = record["recipe"]
        lines.append(
            f"| `{name}` | {recipe['epochs']} | {recipe['batch_size']} | {recipe['peak']} "
            f"| {len(record['runs'])} | {mean_and_spread(accuracies(record))} |"
        )
    return lines


def search_table(name="search"):
    """What was tried to find the recipes, on validation digits."""
    lines = ["| network | tried | epochs | seeds | validation accuracy |", "|---|---|---|---|---|"]
    for row in read(name):
        lines.append(
            f"| {row['network']} | {row['tried']} | {row['epochs']} | {len(row['accuracies'])} "
            f"| {mean_and_spread(row['accuracies'])} |"
        )
    return lines


if __name__ == "__main__":
    for part in [
        accuracy_table(),
        speed_table(),
        [matrix_line()],
        [race_line()],
        lessons_table(),
        search_table(),
        superseded_table(),
        few_table(),
        search_table("search-few"),
    ]:
        print("\n".join(part), end="\n\n")
