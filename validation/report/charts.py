"""The report's pictures: numbers in, an SVG as a data URI out. Labels are untrusted input."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from car_model.evidence.training import TrainingCurves

WIDTH = 10.6  # inches
INK, SOFT, LINE = "#1b2430", "#5b6776", "#d5dbe3"
GOOD, BAD, QUIET = "#1a7f4b", "#b3261e", "#7b8796"
NAMES = {
    "challenger": "CAR (challenger)",
    "champion": "Champion",
    "sasrec": "SASRec",
    "nearest_text": "Nearest text alone",
    "popularity": "Popularity",
}
COLOURS = {
    "challenger": "#2457a6",
    "champion": "#7a3e9d",
    "sasrec": "#d9822b",
    "nearest_text": "#2a9d8f",
    "popularity": "#8a94a3",
}
NOTE = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"}
SPARE = ("#c2185b", "#6d8b00", "#0088a8")
STYLE: Any = {  # (matplotlib's own type for this is a list of 300 literals)
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": "#edf0f4",
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "svg.hashsalt": "report",  # equal inputs give equal bytes
    "text.parse_math": False,  # a dollar in a title is a dollar
}


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    """CAR minus another model on one metric, with its interval."""

    label: str
    metric: str
    value: float
    low: float
    high: float
    note: str


def forest(rows: Sequence[ForestRow]) -> str:
    """Paired differences as points with intervals, one panel per metric; "" without rows."""
    if not rows:
        return ""
    metrics = list(dict.fromkeys(row.metric for row in rows))
    labels = list(dict.fromkeys(row.label for row in rows))
    with mpl.rc_context(STYLE):
        figure, panels = _figure(0.75 + 0.5 * len(labels), len(metrics))
        for panel, metric in zip(panels, metrics, strict=True):
            for row in (row for row in rows if row.metric == metric):
                y = labels.index(row.label)
                colour = GOOD if row.low > 0 else BAD if row.high < 0 else QUIET
                panel.plot([row.low, row.high], [y, y], color=colour, linewidth=2.5, solid_capstyle="round")
                panel.plot(row.value, y, "o", color=colour, markersize=8)
                panel.annotate(_clean(row.note), (row.value, y), (0, 9), textcoords="offset points",
                               ha="center", fontsize=9, color=colour, bbox=NOTE)  # fmt: skip
            panel.axvline(0, color=SOFT, linewidth=1, zorder=0.5)  # behind the notes
            panel.set(title=_clean(metric), ylim=(len(labels) - 0.5, -0.7))
            panel.margins(x=0.22)
            panel.xaxis.set_major_locator(MaxNLocator(5))
            _name_rows(panel, labels if panel is panels[0] else [""] * len(labels))
        return _uri(figure)


def slices(rows: Mapping[str, Mapping[str, float]], metric: str) -> str:
    """One group of bars per slice, one bar per model."""
    models = list(dict.fromkeys(model for values in rows.values() for model in values))
    height = 0.8 / max(len(models), 1)
    with mpl.rc_context(STYLE):
        figure, (panel,) = _figure(0.9 + (0.24 * len(models) + 0.18) * len(rows), 1)
        for i, model in enumerate(models):
            ys = [row - 0.4 + height * (i + 0.5) for row in range(len(rows))]
            values = [values.get(model, math.nan) for values in rows.values()]
            panel.barh(ys, values, height * 0.86, color=colour_of(model, i), label=_clean(name_of(model)))
            for y, value in zip(ys, values, strict=True):
                if math.isfinite(value):
                    panel.annotate(f"{value:.3f}", (value, y), (4, 0), textcoords="offset points",
                                   va="center", fontsize=8.5, color=SOFT)  # fmt: skip
        panel.set(xlabel=_clean(metric), ylim=(len(rows) - 0.5, -0.5))
        _name_rows(panel, list(rows))
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.35 / figure.get_figheight()),
                     ncols=max(len(models), 1), borderaxespad=0)  # fmt: skip
        return _uri(figure)


def curves(training: Mapping[str, TrainingCurves]) -> str:
    """Training loss (with its think and act parts) and validation NDCG@10 over epochs."""
    with mpl.rc_context(STYLE):
        figure, (loss, score) = _figure(3.5, 2)
        for i, (model, series) in enumerate(training.items()):
            name, colour = _clean(name_of(model)), colour_of(model, i)
            lines = [(loss, series.train_loss, "-", name)]
            if any(series.think_loss):  # otherwise act is the whole loss
                lines += [
                    (loss, series.act_loss, "--", f"{name}, act"),
                    (loss, series.think_loss, ":", f"{name}, think"),
                ]
            for panel, values, style, label in [*lines, (score, series.valid_ndcg, "-", name)]:
                if values and len(values) == len(series.epoch):
                    panel.plot(
                        series.epoch, values, linewidth=1.8, color=colour, linestyle=style, label=label
                    )
        legend: dict[str, Any] = {}
        for panel, title in ((loss, "Training loss"), (score, "Validation NDCG@10")):
            panel.set(title=title, xlabel="epoch")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            legend |= {name: line for line, name in zip(*panel.get_legend_handles_labels(), strict=True)}
        if legend:
            figure.legend(legend.values(), legend, loc="outside lower center", ncols=4, fontsize=9)
        return _uri(figure)


def code_usage(counts: Sequence[Sequence[int]]) -> str:
    """Items per code, most used first, one panel per level; the dashed line is even use."""
    columns = min(len(counts), 4)
    with mpl.rc_context(STYLE):
        rows = math.ceil(len(counts) / columns)
        figure, panels = _figure(2.3 * rows, columns, rows, sharey=True)
        for level, panel in enumerate(panels):
            if level >= len(counts):
                panel.set_visible(False)
                continue
            items = counts[level]
            panel.bar(range(len(items)), items, width=1.0, color=COLOURS["challenger"])
            panel.axhline(sum(items) / max(len(items), 1), color=SOFT, linewidth=1, linestyle="--")
            used = sum(count > 0 for count in items)
            panel.set(title=f"Level {level + 1}: {used} of {len(items)} codes", xlabel="codes, by use")
            panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        panels[0].set_ylabel("items per code")
        return _uri(figure)


def activity(before: Sequence[float], now: Sequence[float]) -> str:
    """Shares of users by how many interactions they have (1, 2, 3-4, 5-8, ...), in production and now."""
    bins = max(len(before), len(now))
    names = [str(2**i) if i < 2 else f"{2 ** (i - 1) + 1:,}-{2**i:,}" for i in range(bins)]
    with mpl.rc_context(STYLE):
        figure, (panel,) = _figure(2.5, 1)
        series = ((before, "champion", "production", -0.2), (now, "challenger", "now", 0.2))
        for shares, model, label, shift in series:
            xs = [i + shift for i in range(len(shares))]
            panel.bar(xs, [100 * share for share in shares], 0.38, color=COLOURS[model], label=label)
        panel.set_xticks(range(bins), names)
        panel.set(title="Interactions per user", ylabel="% of the users")
        panel.grid(visible=False, axis="x")
        panel.legend(fontsize=9)
        return _uri(figure)


def name_of(model: str) -> str:
    """What people call a model of the evaluation."""
    return NAMES.get(model, model)


def colour_of(model: str, number: int) -> str:
    """A model's colour, the same in every picture; unknown models get one by their number."""
    return COLOURS.get(model, SPARE[number % len(SPARE)])


def _figure(height: float, columns: int, rows: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(grid.flat)


def _name_rows(panel: Axes, names: Sequence[str]) -> None:
    panel.set_yticks(range(len(names)), [_clean(name) for name in names], color=INK)
    panel.tick_params(axis="y", length=0)
    panel.grid(visible=False, axis="y")


def _clean(text: str, length: int = 48) -> str:
    """A label as one short line of printable text (control characters would break the SVG)."""
    line = "".join(sign if sign.isprintable() else " " for sign in str(text))
    return line if len(line) <= length else f"{line[:length]}…"


def _uri(figure: Figure) -> str:
    """The figure as an SVG data URI; as an image source it cannot run scripts or fetch anything."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
