"""Pictures of the results page: bars of the ablations, and accuracy against the bits of a SID."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "car", "font.size": 9, "svg.fonttype": "none"})
from matplotlib import pyplot as plt  # noqa: E402 - the backend is chosen first

from benchmarks.models.variants import ROWS  # noqa: E402

IMAGES = Path("docs/images")
LEVELS = ("car-1-level", "car-2-levels", "car-3-levels", "car")
METRIC = "ndcg@10"
Runs = dict[str, list[dict[str, Any]]]


def ablation_bars(name: str, rows: Runs) -> Path | None:
    """NDCG@10 of every row, mean and standard deviation over seeds; None where there is one row."""
    if len(rows) < 2:
        return None
    titles = [ROWS[row].title for row in rows][::-1]
    values = [_mean_and_spread(runs) for runs in rows.values()][::-1]
    colours = [
        "#d1495b" if row == "car" else "#2e6f95" if row.startswith("car") else "#9aa5b1" for row in rows
    ]
    figure, axes = plt.subplots(figsize=(7.5, 0.6 + 0.3 * len(rows)), layout="constrained")
    axes.barh(
        titles,
        [value for value, _ in values],
        xerr=[error for _, error in values],
        color=colours[::-1],
        capsize=2,
    )
    for at, (value, error) in enumerate(values):
        axes.annotate(f" {value:.4f}", (value + error, at), va="center")
    axes.set_xlim(0, 1.15 * max(value + error for value, error in values))
    axes.set_xlabel("test NDCG@10, mean ± standard deviation over seeds")
    axes.spines[["top", "right"]].set_visible(False)
    return _save(figure, f"ablation-{name}")


def sid_bits(name: str, rows: Runs) -> Path | None:
    """NDCG@10 against the bits of a SID (levels x log2 codes), without think at 0 bits; None if not run."""
    there = [row for row in LEVELS if row in rows]
    if len(there) < 3:
        return None
    bits = [_bits(rows[row][0]) for row in there]
    values = [_mean_and_spread(rows[row]) for row in there]
    figure, axes = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
    axes.errorbar(
        bits,
        [value for value, _ in values],
        yerr=[error for _, error in values],
        marker="o",
        color="#d1495b",
        capsize=3,
        label="CAR",
    )
    if "sasrec" in rows:
        level, error = _mean_and_spread(rows["sasrec"])
        axes.axhline(level, color="#9aa5b1", label="SASRec: no SID")
        axes.axhspan(level - error, level + error, color="#9aa5b1", alpha=0.3)
    axes.set_xticks(bits)
    axes.set_xlabel("bits of a SID: levels x log2(codes)")
    axes.set_ylabel("test NDCG@10")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return _save(figure, f"sid-bits-{name}")


def _bits(run: dict[str, Any]) -> int:
    return int(run["sid_shape"][0] * math.log2(run["sid_shape"][1]))


def _mean_and_spread(runs: list[dict[str, Any]]) -> tuple[float, float]:
    found = [run["test"][METRIC] for run in runs]
    return mean(found), stdev(found) if len(found) > 1 else 0.0


def _save(figure: plt.Figure, name: str) -> Path:
    IMAGES.mkdir(parents=True, exist_ok=True)
    path = IMAGES / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path
