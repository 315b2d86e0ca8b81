"""The tables and pictures of lesson 6, part 1: the 2-2-2 network, and how its error falls."""

import math

import matplotlib.pyplot as plt
import numpy as np

from utils import show_figure

__all__ = ["print_table", "draw_network", "plot_errors", "plot_landscape"]


def print_table(headings, rows, decimals=4):
    """Print rows of numbers below their headings; whole numbers and words stay as they are."""
    table = [headings]
    for row in rows:
        table.append([f"{cell:.{decimals}f}" if isinstance(cell, float) else cell for cell in row])
    widths = [max(len(str(cell)) for cell in column) for column in zip(*table)]
    for row in table:
        cells = [f"{cell!s:>{width}}" for cell, width in zip(row, widths)]
        print("  ".join(cells))


NODES = {  # where each one stands
    "i1": (0, 0),
    "i2": (0, -1),
    "h1": (1, 0),
    "h2": (1, -1),
    "o1": (2, 0),
    "o2": (2, -1),
}
CONNECTIONS = [  # of w1, w2, ..., w8: from which node to which
    ("i1", "h1"),
    ("i2", "h1"),
    ("i1", "h2"),
    ("i2", "h2"),
    ("h1", "o1"),
    ("h2", "o1"),
    ("h1", "o2"),
    ("h2", "o2"),
]
COLOURS = {"i": "tab:blue", "h": "tab:green", "o": "tab:orange"}


def draw_network(inputs, weights, targets, paths=(), save=None):
    """The 2-2-2 network of lesson 6: its nodes, and every weight on its connection.

    paths: weights to show in colour, such as [["w1", "w5"], ["w1", "w7"]]: a colour for each path
    """
    figure, ax = plt.subplots(figsize=(9, 4), layout="constrained")
    for number, (start, end) in enumerate(CONNECTIONS):
        draw_connection(ax, NODES[start], NODES[end], f"w{number + 1} = {weights[number]:.2f}")
    for number, path in enumerate(paths):
        draw_path(ax, path, shift=0.05 * number, colour=f"C{number + 3}")
    values = {"i1": inputs[0], "i2": inputs[1]}
    for name, (x, y) in NODES.items():
        label = f"{name}\n{values[name]:.2f}" if name in values else name
        ax.scatter(x, y, s=2200, color=COLOURS[name[0]], edgecolors="black", zorder=2)
        ax.text(x, y, label, ha="center", va="center", color="white", weight="bold", zorder=3)
    for number, target in enumerate(targets):
        ax.text(2.2, -number, f"target t{number + 1} = {target:.2f}", va="center")
    ax.set(xlim=(-0.3, 2.8), ylim=(-1.4, 0.4))
    ax.axis("off")
    show_figure(figure, save)


def draw_connection(ax, start, end, label):
    """A line between two nodes, with a label after 30 % of the way, where no two labels meet."""
    x1, y1 = start
    x2, y2 = end
    ax.plot([x1, x2], [y1, y2], color="grey", zorder=1)
    x = x1 + 0.3 * (x2 - x1)
    y = y1 + 0.3 * (y2 - y1)
    ax.text(x, y, label, ha="center", va="center", fontsize=10, backgroundcolor="white")


def draw_path(ax, path, shift, colour):
    """Colour the connections of some weights; `shift` keeps paths apart that share one."""
    for name in path:
        start, end = CONNECTIONS[int(name[1:]) - 1]
        x1, y1 = NODES[start]
        x2, y2 = NODES[end]
        ax.plot([x1, x2], [y1 + shift, y2 + shift], color=colour, linewidth=4, alpha=0.6, zorder=1)


def plot_errors(errors_by_rate, save=None):
    """The error against the steps, a panel for each learning rate."""
    rows = math.ceil(len(errors_by_rate) / 3)
    size = (11, 3.2 * rows)
    figure, axes = plt.subplots(
        rows, 3, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (rate, errors) in zip(axes.flat, errors_by_rate.items()):
        ax.plot(errors, color="tab:red")
        ax.set(title=f"learning rate {rate}: E = {errors[-1]:.4f}", xlabel="step", ylabel="error E")
        ax.label_outer()
        ax.grid(alpha=0.3)
    for ax in axes.flat[len(errors_by_rate) :]:
        ax.axis("off")
    show_figure(figure, save)


def plot_landscape(error, paths, save=None):
    """The error as a landscape over w5 and w7, and the way that some descents take through it.

    error: a function of w5 and w7
    paths: for each learning rate, the list of (w5, w7) after each step
    """
    points = [point for path in paths.values() for point in path]
    w5 = np.linspace(min(x for x, _ in points) - 0.5, max(x for x, _ in points) + 0.5, 60)
    w7 = np.linspace(min(y for _, y in points) - 0.5, max(y for _, y in points) + 0.5, 60)
    heights = [[error(x, y) for x in w5] for y in w7]
    size = (4.5 * len(paths), 4)
    figure, axes = plt.subplots(1, len(paths), figsize=size, squeeze=False, layout="constrained")
    for ax, (rate, path) in zip(axes.flat, paths.items()):
        filled = ax.contourf(w5, w7, heights, levels=20, cmap="viridis")
        xs, ys = zip(*path)
        ax.plot(xs, ys, "o-", color="tab:red", markersize=3)
        ax.plot(xs[0], ys[0], "o", color="white", markeredgecolor="black")
        ax.set(title=f"learning rate {rate}", xlabel="w5", ylabel="w7")
    figure.colorbar(filled, ax=axes, label="error E")
    show_figure(figure, save)
