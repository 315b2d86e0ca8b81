"""The tables of benchmarks/README.md, in Markdown, out of the measured results.

    python -m benchmarks.report

The tests check that every line printed here stands in that page.
"""

import json
import math
import statistics
from pathlib import Path

from course.recipes import RECIPES

RESULTS = Path(__file__).resolve().parent / "results"
LESSON_NETWORKS = ["Net", "NetGAP", "NetFC"]
TRAININGS = {"Net-plain": "lesson 5", "NetGAP": "lesson 6", "NetFC": "lesson 6"}
# Student's t for 95 %, by the number of seeds: 2 to 20. For more seeds it is hardly smaller.
STUDENT = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14]
STUDENT += [2.13, 2.12, 2.11, 2.10, 2.09]


def has_results(name):
    return (RESULTS / f"accuracy-{name}.json").exists()


# A new network has a recipe first, and results when it has been measured. A name with a dash is
# another recipe for one of them.
NETWORKS = [name for name in RECIPES if "-" not in name and has_results(name)]
TABLE = [*NETWORKS, "NetGAP-short"]  # the rows of the table of accuracies


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def accuracies(record):
    """The accuracy of each run, in per cent."""
    return [100 * run["correct"] / run["images"] for run in record["runs"]]


def mean_and_spread(accuracies):
    """The mean, with the standard deviation if there are several."""
    spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
    return f"{statistics.mean(accuracies):.2f}{spread} %"


def interval(accuracies):
    """The 95 % confidence interval of the mean: the range for the mean of all possible seeds."""
    seeds = len(accuracies)
    reach = STUDENT[min(seeds, 20) - 2] * statistics.stdev(accuracies) / math.sqrt(seeds)
    mean = statistics.mean(accuracies)
    return f"{mean - reach:.2f} to {mean + reach:.2f} %"


def table_row(*cells):
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def table_head(*names):
    """The first two lines of a table."""
    return [table_row(*names), "|" + "---|" * len(names)]


# --- Accuracy ----------------------------------------------------------------------------------


def accuracy_table():
    """What the networks reach, with the published figures beside it."""
    published = {row["network"]: row for row in read("published") if "network" in row}
    lines = table_head(
        "network",
        "parameters",
        "epochs",
        "seeds",
        "test accuracy",
        "95 % interval of the mean",
        "published, best epoch of one run",
    )
    for name in TABLE:
        record = read(f"accuracy-{name}")
        network, _, kind = name.partition("-")
        row = table_row(
            f"`{network}`, {kind} recipe" if kind else f"`{network}`",
            f"{record['parameters']:,}",
            record["recipe"]["epochs"],
            len(record["runs"]),
            f"**{mean_and_spread(accuracies(record))}**",
            interval(accuracies(record)),
            f"{published[name]['accuracy']:.2f} %" if name in published else "–",
        )
        lines.append(row)
    return lines


def search_table(name="search"):
    """What was tried to find the recipes, on validation digits."""
    lines = table_head("network", "tried", "epochs", "seeds", "validation accuracy")
    for row in read(name):
        result = mean_and_spread(row["accuracies"])
        seeds = len(row["accuracies"])
        lines.append(table_row(row["network"], row["tried"], row["epochs"], seeds, result))
    return lines


def superseded_table():
    """Test results of earlier recipes: the test digits were seen with these, too."""
    lines = table_head("network", "where its recipe was different", "seeds", "test accuracy")
    for path in sorted((RESULTS / "superseded").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        before = record["recipe"]
        now = read(path.stem)["recipe"]
        changed = [name for name in now if before[name] != now[name]]
        changes = ", ".join(f"{name.replace('_', ' ')} {before[name]}" for name in changed)
        result = mean_and_spread(accuracies(record))
        lines.append(table_row(f"`{record['network']}`", changes, len(record["runs"]), result))
    return lines


def few_table():
    """What the networks reach without MNIST."""
    lines = table_head("network", "epochs", "batches of", "peak", "seeds", "accuracy")
    for name in LESSON_NETWORKS:
        record = read(f"accuracy-{name}-few")
        recipe = record["recipe"]
        row = table_row(
            f"`{name}`",
            recipe["epochs"],
            recipe["batch_size"],
            recipe["peak"],
            len(record["runs"]),
            mean_and_spread(accuracies(record)),
        )
        lines.append(row)
    return lines


# --- Speed -------------------------------------------------------------------------------------


def runs_of(runs, way):
    return [run for run in runs if run["way"] == way]


def medians(runs):
    """For each way of training, the median of each thing that was measured."""
    found = {}
    for way in dict.fromkeys(run["way"] for run in runs):
        turns = runs_of(runs, way)
        names = [name for name in turns[0] if name != "way"]
        found[way] = {name: statistics.median(turn[name] for turn in turns) for name in names}
    return found


def matrix_share(figures):
    """The share of a large 32-bit matrix product's speed that training reaches."""
    return figures["images_per_second"] * figures["image_gflop"] / figures["matrix_gflops"]


def speed_table():
    """Images a second and what else was measured, against the conventional way."""
    lines = table_head(
        "network",
        "images a second",
        "with 32 bits only",
        "conventional way",
        "**ratio**",
        "quartiles (turns)",
        "testing",
        "to the first step",
        "memory",
    )
    for name in LESSON_NETWORKS:
        runs = read(f"speed-{name}")["runs"]
        ways = medians(runs)
        ours = ways["ours"]
        other = ways["conventional"]
        low, ratio, high = quartiles_of_the_ratio(runs)
        row = table_row(
            f"`{name}`",
            f"{ours['images_per_second']:,.0f}",
            f"{ways['ours, 32 bits']['images_per_second']:,.0f}",
            f"{other['images_per_second']:,.0f}",
            f"**{ratio:.1f}**",
            f"{low:.2f} to {high:.2f} ({len(runs_of(runs, 'ours'))})",
            f"{ours['test_seconds'] / other['test_seconds']:.2f}",
            f"{ours['first_batch_seconds'] / other['first_batch_seconds']:.2f}",
            f"{ours['peak_memory_mb'] / other['peak_memory_mb']:.2f}",
        )
        lines.append(row)
    return lines


def quartiles_of_the_ratio(runs):
    """How many times as fast as the conventional way ours is, turn by turn: three quartiles."""
    ratios = []
    for ours, other in zip(runs_of(runs, "ours"), runs_of(runs, "conventional")):
        ratios.append(ours["images_per_second"] / other["images_per_second"])
    return statistics.quantiles(ratios, n=4, method="inclusive")


def matrix_line():
    ways = medians(read("speed-Net")["runs"])
    half = 100 * matrix_share(ways["ours"])
    exact = 100 * matrix_share(ways["ours, 32 bits"])
    return (
        f"Per operation, `Net` trains at {half:.0f} % of the speed of a large "
        f"32-bit matrix product ({exact:.0f} % with 32 bits only)."
    )


def race_line():
    """The short recipe against a conventional training, in two sentences."""
    runs = read("speed-race")["runs"]
    ours = runs_of(runs, "ours")
    other = runs_of(runs, "conventional")
    reached = mean_and_spread([run["accuracies"][-1] for run in ours])
    best = mean_and_spread([max(run["accuracies"]) for run in other])
    our_seconds = statistics.median(run["seconds"] for run in ours)
    other_seconds = statistics.median(run["seconds"] for run in other)
    return (
        f"The short recipe trains `NetGAP` to {reached} in {our_seconds:.0f} s "
        f"(seeds: {len(ours)}; times are medians). "
        "The conventional training, stopped at 99.4 % or after 20 epochs, "
        f"takes {other_seconds:,.0f} s ({other_seconds / our_seconds:.1f} times as long), "
        f"and its best epoch reaches {best}."
    )


def lessons_table(record=None):
    """How long the lessons' trainings take, ours and the conventional way."""
    record = record or read("speed-lessons")
    lines = table_head(
        "training",
        "epochs",
        "ours",
        "conventional way",
        "**ratio**",
        "accuracy, ours",
        "conventional way",
    )
    runs = {(run["training"], run["way"]): run for run in record["runs"]}
    for name, lesson in TRAININGS.items():
        epochs = record["recipes"][name]["epochs"]
        ours = runs[name, "ours"]
        other = runs[name, "conventional"]
        row = table_row(
            f"`{name.split('-')[0]}`, {lesson}",
            *time_and_ratio(epochs, ours["seconds"], other["seconds"]),
            f"{ours['accuracy']:.2f} %",
            f"{other['accuracy']:.2f} %",
        )
        lines.append(row)
    epochs = sum(record["recipes"][name]["epochs"] for name in TRAININGS)
    our_seconds = sum(runs[name, "ours"]["seconds"] for name in TRAININGS)
    other_seconds = sum(runs[name, "conventional"]["seconds"] for name in TRAININGS)
    total = table_row("both lessons", *time_and_ratio(epochs, our_seconds, other_seconds))
    return [*lines, f"{total} | |"]


def time_and_ratio(epochs, our_seconds, other_seconds):
    """The four cells in the middle of a row of lessons_table."""
    return (
        epochs,
        f"{our_seconds / 60:.1f} min",
        f"{other_seconds / 60:.1f} min",
        f"**{other_seconds / our_seconds:.1f}**",
    )


def main():
    parts = [
        accuracy_table(),
        speed_table(),
        [matrix_line()],
        [race_line()],
        lessons_table(),
        search_table(),
        superseded_table(),
        few_table(),
        search_table("search-few"),
    ]
    for part in parts:
        print("\n".join(part), end="\n\n")


if __name__ == "__main__":
    main()
