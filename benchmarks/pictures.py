"""Pictures of what was measured: several seeds of each network, `NetGAP` without its ingredients.

The figures are read from the folder `benchmarks/results`.
"""

import operator
import statistics

import matplotlib.pyplot as plt

from benchmarks import report
from utils import show_figure

__all__ = ["get_measurements", "plot_seeds", "plot_accuracy_and_size", "get_ablation"]

# A row this many points below the best is text at the edge: its dots would stretch the axis.
FAR_BELOW = 2


def get_measurements():
    """The accuracies on MNIST's test set: (ours, published), two lists, smallest network first.

    Each of our rows has the network, the name of its recipe if it is not the usual one, the
    numbers of parameters and epochs, and the accuracies of all seeds. Each published row has the
    number of parameters, one accuracy, and its kind.
    """
    if not (report.RESULTS / "published.json").exists():
        print(
            f"There are no measurements in {report.RESULTS}. "
            "They are part of the course's repository."
        )
        return [], []
    ours = []
    for name in report.TABLE:
        record = report.read(f"accuracy-{name}")
        network, _, recipe = name.partition("-")
        row = {
            "network": network,
            "recipe": recipe,
            "parameters": record["parameters"],
            "epochs": record["recipe"]["epochs"],
            "accuracies": report.accuracies(record),
        }
        ours.append(row)
    by_size = operator.itemgetter("parameters")
    return sorted(ours, key=by_size), sorted(report.read("published"), key=by_size)


def get_ablation():
    """The validation accuracies of `NetGAP` without each ingredient, as rows for `plot_seeds`."""
    path = report.RESULTS / "ablation.json"
    if not path.exists():
        print(f"{path} does not exist. It is part of the course's repository.")
        return []
    record = report.read("ablation")
    rows = {}
    for run in record["runs"]:
        variant = run["variant"]
        if variant not in rows:
            rows[variant] = {
                "network": variant,
                "recipe": "",
                "epochs": record["recipe"]["epochs"],
                "parameters": run["parameters"],
                "accuracies": [],
            }
        rows[variant]["accuracies"].append(100 * run["correct"] / run["images"])
    return list(rows.values())


def plot_seeds(ours, digits="test", save=None):
    """A row for each network: the accuracy of every seed, and their mean ± standard deviation."""
    if not ours:
        return
    figure, ax = plt.subplots(figsize=(9, 1.2 + 0.75 * len(ours)), layout="constrained")
    best = max(max(row["accuracies"]) for row in ours)
    labels = []
    for height, row in enumerate(ours):
        plot_row(ax, height, row["accuracies"], best)
        name = f"{row['network']}, {row['recipe']} recipe" if row["recipe"] else row["network"]
        labels.append(f"{name}\n{row['parameters']:,} parameters, {row['epochs']} epochs")
    ax.set_yticks(range(len(ours)), labels)
    ax.set_ylim(-0.5, len(ours) - 0.3)
    ax.set_xlabel(f"accuracy on {digits} digits after the last epoch (%)")
    ax.set_title("Every dot is one seed; the diamonds are means, with one standard deviation")
    ax.grid(axis="x", alpha=0.3)
    show_figure(figure, save)


def plot_row(ax, height, accuracies, best):
    """A dot for each seed, a diamond for their mean; text alone if all are far below the best."""
    mean = statistics.mean(accuracies)
    text = report.mean_and_spread(accuracies)
    if mean < best - FAR_BELOW:
        left_edge = ax.get_yaxis_transform()  # x from 0 at the left edge to 1
        ax.text(0.01, height, f"◀ {text}", va="center", fontsize=10, transform=left_edge)
        return
    spread = get_spread(accuracies)
    heights = [height] * len(accuracies)
    ax.errorbar(mean, height, xerr=spread, fmt="D", color="tab:blue", capsize=5, zorder=2)
    ax.scatter(accuracies, heights, s=40, color="tab:orange", alpha=0.6, zorder=3)
    ax.text(mean, height + 0.22, text, ha="center", fontsize=10)


def get_spread(accuracies):
    """The standard deviation; 0 for a single seed."""
    return statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0


def plot_accuracy_and_size(ours, published, save=None):
    """Test accuracy against the number of parameters: ours with error bars, and published ones."""
    if not ours:
        return
    figure, ax = plt.subplots(figsize=(9, 5), layout="constrained")
    usual = [row for row in ours if not row["recipe"]]
    plot_ours(ax, usual, neighbours=[row["parameters"] for row in [*usual, *published]])
    plot_published(ax, published)
    ax.set_xscale("log")
    ticks = [500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000]
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.minorticks_off()
    ax.set(xlabel="parameters", ylabel="test accuracy (%)", xlim=(400, 1_500_000))
    ax.set_title("Accuracy and size: the last epoch, mean ± standard deviation over seeds")
    ax.legend(loc="lower right")
    ax.grid(alpha=0.3)
    show_figure(figure, save)


def plot_ours(ax, rows, neighbours):
    """Our networks, joined by a line; a name stands on the left if a dot is near on the right."""
    sizes = [row["parameters"] for row in rows]
    means = [statistics.mean(row["accuracies"]) for row in rows]
    ax.plot(sizes, means, color="tab:blue", alpha=0.3)
    for row, size, mean in zip(rows, sizes, means):
        spread = get_spread(row["accuracies"])
        ax.errorbar(size, mean, yerr=spread, fmt="o", color="tab:blue", capsize=4)
        is_crowded = any(size < neighbour < 1.5 * size for neighbour in neighbours)
        ax.annotate(
            f"{row['network']}\n{mean:.2f} %",
            (size, mean),
            xytext=(-9 if is_crowded else 9, 0),
            textcoords="offset points",
            ha="right" if is_crowded else "left",
            va="center",
            weight="bold",
        )


def plot_published(ax, published):
    """A marker for each published figure, of another shape for each kind of figure."""
    kinds = sorted({row["kind"] for row in published})
    for kind, marker in zip(kinds, "x+1"):
        rows = [row for row in published if row["kind"] == kind]
        sizes = [row["parameters"] for row in rows]
        accuracies = [row["accuracy"] for row in rows]
        label = f"published, {kind}"
        ax.scatter(sizes, accuracies, s=70, marker=marker, color="tab:red", label=label)
