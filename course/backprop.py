"""The pictures of lesson 6, part 1: the 2-2-2 network, and how its error falls."""

import math

import matplotlib.pyplot as plt

from utils import show_figure

__all__ = ["draw_network", "plot_errors"]


def draw_network(inputs, weights, targets, save=None):
    """The 2-2-2 network of lesson 6: its nodes, and every weight on its connection."""
    columns = [
        (0, [f"i{n}\n{value:.2f}" for n, value in enumerate(inputs, 1)], "tab:blue"),
        (1, ["h1", "h2"], "tab:green"),
        (2, ["o1", "o2"], "tab:orange"),
    ]
    figure, ax = plt.subplots(figsize=(9, 4), layout="constrained")
    for n, weight in enumerate(weights):  # w1 w2 lead to h1, w3 w4 to h2, w5 w6 to o1, w7 w8 to o2
        x, start, end = n // 4, -(n % 2), -(n % 4 // 2)
        ax.plot([x, x + 1], [start, end], color="grey", zorder=1)
        near = 0.3  # of the way, where no two labels meet
        label = f"w{n + 1} = {weight:.2f}"
        height = start + near * (end - start)
        ax.text(
            x + near, height, label, ha="center", va="center", fontsize=10, backgroundcolor="white"
        )
    for x, names, colour in columns:
        for n, name in enumerate(names):
            ax.scatter(x, -n, s=2200, color=colour, edgecolors="black", zorder=2)
            ax.text(x, -n, name, ha="center", va="center", color="white", weight="bold", zorder=3)
    for n, target in enumerate(targets):
        ax.text(2.2, -n, f"target t{n + 1} = {target:.2f}", va="center")
    ax.set(xlim=(-0.3, 2.8), ylim=(-1.4, 0.4))
    ax.axis("off")
    show_figure(figure, save)


def plot_errors(errors_by_rate, save=None):
    """The error against the steps, a panel for each learning rate."""
    rows = math.ceil(len(errors_by_rate) / 3)
    figure, axes = plt.subplots(
        rows,
        3,
        figsize=(11, 3.2 * rows),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, (rate, errors) in zip(axes.flat, errors_by_rate.items()):
        ax.plot(errors, color="tab:red")
        ax.set(title=f"learning rate {rate}: E = {errors[-1]:.4f}", xlabel="step", ylabel="error E")
        ax.label_outer()
        ax.grid(alpha=0.3)
    for ax in axes.flat[len(errors_by_rate) :]:
        ax.axis("off")
    show_figure(figure, save)
