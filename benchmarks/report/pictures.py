"""Pictures of docs/results.md: accuracy on three data sets, ablations, time of an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from statistics import mean

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "car", "font.size": 9, "svg.fonttype": "none"})
from matplotlib import pyplot as plt  # noqa: E402 - the backend is chosen first

RED, BLUE, GREY, LIGHT = "#d1495b", "#2e6f95", "#9aa5b1", "#d5dbe1"
Seeds = Sequence[float]  # one value per seed


def grouped_bars(groups: Mapping[str, Mapping[str, Seeds]], colours: Mapping[str, str], label: str) -> str:
    """Bars of the mean over seeds with their range: a group per data set, a bar per model.

    Args:
        groups: data set -> model -> values of the seeds; a data set may lack a model.
        colours: colour by model, in the order of the bars.
        label: of the value axis.
    """
    figure, axes = plt.subplots(figsize=(7.2, 3.2), layout="constrained")
    width = 0.8 / len(colours)
    for i, (model, colour) in enumerate(colours.items()):
        present = [(x, group[model]) for x, group in enumerate(groups.values()) if model in group]
        heights = [mean(values) for _, values in present]
        ranges = [
            [height - min(values) for height, (_, values) in zip(heights, present, strict=True)],
            [max(values) - height for height, (_, values) in zip(heights, present, strict=True)],
        ]
        positions = [x + (i - (len(colours) - 1) / 2) * width for x, _ in present]
        axes.bar(positions, heights, 0.92 * width, yerr=ranges, color=colour, capsize=2, label=model)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_ylabel(label)
    axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.27), fontsize=8)
    return _svg(figure, axes)


def differences(values: Mapping[str, Seeds], reference: str, label: str) -> str:
    """Values relative to the mean of one row: a dot per mean, a line over the range of the seeds."""
    base = mean(values[reference])
    names = list(values)[::-1]
    figure, axes = plt.subplots(figsize=(7.2, 0.7 + 0.24 * len(names)), layout="constrained")
    low, high = min(values[reference]) / base - 1, max(values[reference]) / base - 1
    axes.axvspan(100 * low, 100 * high, color=LIGHT)
    axes.axvline(0, color=GREY, linewidth=1)
    for y, name in enumerate(names):
        relative = [100 * (value / base - 1) for value in values[name]]
        colour = RED if name == reference else BLUE
        axes.plot([min(relative), max(relative)], [y, y], color=colour, linewidth=2)
        axes.plot(100 * (mean(values[name]) / base - 1), y, "o", color=colour, markersize=5)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel(label)
    return _svg(figure, axes)


def lines(
    panels: Mapping[str, Mapping[str, Mapping[int, float]]], colours: Mapping[str, str], x: str, y: str
) -> str:
    """One panel per batch size, in it a line per model on a logarithmic value axis."""
    figure, every = plt.subplots(1, len(panels), figsize=(7.2, 2.9), layout="constrained")
    for axes, (title, models) in zip(every, panels.items(), strict=True):
        for model, points in models.items():
            axes.plot(list(points), list(points.values()), "o-", color=colours[model], label=model)
        axes.set_yscale("log")
        for axis_ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            axis_ticks("{x:g}")
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(x)
        axes.set_xticks(list(next(iter(models.values()))))
        axes.spines[["top", "right"]].set_visible(False)
    every[0].set_ylabel(y)
    every[0].legend(frameon=False, fontsize=8)
    return _svg(figure)


def _svg(figure: plt.Figure, axes: plt.Axes | None = None) -> str:
    if axes is not None:
        axes.spines[["top", "right"]].set_visible(False)
    buffer = StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"
