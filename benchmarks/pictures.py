"""Pictures of what was measured: several seeds of each network, and `NetGAP` without its ingredients.

The figures are read from the folder `benchmarks/results`.
"""

import json
import operator
import statistics
from pathlib import Path

import matplotlib.pyplot as plt

from utils import show_figure

__all__ = ["get_measurements", "plot_seeds", "plot_accuracy_and_size", "get_ablation"]

# A row this many points below the best is shown as text at the edge: its dots would stretch the axis.
FAR_BELOW = 2
RESULTS = Path(__file__).resolve().parent / "results"


def get_measurements():
    """The accuracies on MNIST's test set: (ours, published), each a list with the smallest network first.

    Each of our rows has the network, the name of its recipe if it is not the usual one, the numbers of
    parameters and epochs, and the accuracies of all seeds. Each published row has the number of
    parameters, one accuracy, and its kind.
    """
    if not (RESULTS / "published.json").exists():
        print(f"There are no measurements in {RESULTS}. They are part of the course's repository.")
        return [], []
    ours = []
    for path in RESULTS.glob("accuracy-*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        network, _, recipe = record["network"].partition("-")
        if record["data"] != "MNIST" or recipe.startswith("plain"):
            continue  # other digits, or lesson 5's recipe
        ours.append(
            {
                "network": network,
                "recipe": recipe,
                "parameters": record["parameters"],
                "epochs": record["recipe"]["epochs"],
                "accuracies": [100 * run["correct"] / run["images"] for run in record["runs"]],
            }
        )
    published = json.loads((RESULTS / "published.json").read_text(encoding="utf-8"))
    by_size = operator.itemgetter("parameters")
    return sorted(ours, key=by_size), sorted(published, key=by_size)


def _mean_and_spread(values):
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def plot_seeds(ours, digits="test", save=None):
    """Draw one row for each network: the accuracy of every seed, and their mean ± standard deviation."""
    if not ours:
        return
    figure, ax = plt.subplots(figsize=(9, 1.2 + 0.75 * len(ours)), layout="constrained")
    best = max(max(row["accuracies"]) for row in ours)
    for height, row in enumerate(ours):
        mean, spread = _mean_and_spread(row["accuracies"])
        text = f"{mean:.2f} ± {spread:.2f} %" if spread else f"{mean:.2f} %"
        if mean < best - FAR_BELOW:
            left = ax.get_yaxis_transform()  # x from 0 at the left edge to 1
            ax.text(0.01, height, f"◀ {text}", va="center", fontsize=10, transform=left)
            continue
        points = row["accuracies"], [height] * len(row["accuracies"])
        ax.errorbar(mean, height, xerr=spread, fmt="D", color="tab:blue", capsize=5, zorder=2)
        ax.scatter(*points, s=40, color="tab:orange", alpha=0.6, zorder=3)
        ax.text(mean, height + 0.22, text, ha="center", fontsize=10)
    names = [
        f"{row['network']}, {row['recipe']} recipe" if row["recipe"] else row["network"]
        for row in ours
    ]
    sizes = [f"{row['parameters']:,} parameters, {row['epochs']} epochs" for row in ours]
    ax.set_yticks(range(len(ours)), [f"{name}\n{size}" for name, size in zip(names, sizes)])
    ax.set(
        xlabel=f"accuracy on {digits} digits after the last epoch (%)", ylim=(-0.5, len(ours) - 0.3)
    )
    ax.set_title("Every dot is one seed; the diamonds are means, with one standard deviation")
    ax.grid(axis="x", alpha=0.3)
    show_figure(figure, save)


def plot_accuracy_and_size(ours, published, save=None):
    """Draw test accuracy against the number of parameters: ours with error bars, and published figures."""
    if not ours:
        return
    figure, ax = plt.subplots(figsize=(9, 5), layout="constrained")
    usual = [row for row in ours if not row["recipe"]]
    reached = [_mean_and_spread(row["accuracies"]) for row in usual]
    ax.plot(
        [row["parameters"] for row in usual],
        [mean for mean, _ in reached],
        color="tab:blue",
        alpha=0.3,
    )
    all_sizes = [row["parameters"] for row in [*usual, *published]]
    for row, (mean, spread) in zip(usual, reached):
        ax.errorbar(row["parameters"], mean, yerr=spread, fmt="o", color="tab:blue", capsize=4)
        is_crowded = any(row["parameters"] < size < 1.5 * row["parameters"] for size in all_sizes)
        side = (
            {"xytext": (-9, 0), "ha": "right"} if is_crowded else {"xytext": (9, 0), "ha": "left"}
        )
        point, text = (row["parameters"], mean), f"{row['network']}\n{mean:.2f} %"
        ax.annotate(text, point, textcoords="offset points", va="center", weight="bold", **side)
    for kind, marker in zip(sorted({row["kind"] for row in published}), "x+1"):
        rows = [row for row in published if row["kind"] == kind]
        sizes, accuracies = [row["parameters"] for row in rows], [row["accuracy"] for row in rows]
        ax.scatter(
            sizes, accuracies, s=70, marker=marker, color="tab:red", label=f"published, {kind}"
        )
    ax.set_xscale("log")
    ticks = [500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000]
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.minorticks_off()
    ax.set(xlabel="parameters", ylabel="test accuracy (%)", xlim=(400, 1_500_000))
    ax.set_title("Accuracy and size: the last epoch, mean ± standard deviation over seeds")
    ax.legend(loc="lower right")
    ax.grid(alpha=0.3)
    show_figure(figure, save)


def get_ablation():
    """The validation accuracies of `NetGAP` without each of its ingredients, as rows for `plot_seeds`."""
    path = RESULTS / "ablation.json"
    if not path.exists():
        print(f"{path} does not exist. It is part of the course's repository.")
        return []
    record = json.loads(path.read_text(encoding="utf-8"))
    rows = {}
    for run in record["runs"]:
        row = {"network": run["variant"], "recipe": "", "epochs": record["recipe"]["epochs"]}
        row = rows.setdefault(
            run["variant"], row | {"parameters": run["parameters"], "accuracies": []}
        )
        row["accuracies"].append(100 * run["correct"] / run["images"])
    return list(rows.values())
