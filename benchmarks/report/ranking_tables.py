"""Tables of `benchmarks.ranking`: spreads over seeds, differences paired over seeds and over users."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from scipy.stats import t

from benchmarks.report.table import Sheet
from car_model.action_ranker.model import ARCHITECTURES

RESULTS = Path("benchmarks/results/ranking")
BASELINE = "interleaved"
TITLES = {"interleaved": "interleaved", "lfa": "AttnLFA", "mvp": "AttnMVP"}
GOALS = {"lfa": -0.0029, "mvp": -0.0080}  # the paper's differences in loss
METRICS = {"log_loss": "log loss", "normalised_entropy": "normalised entropy", "auc": "AUC", "ece": "ECE"}
DRAWS = 2000

Runs = dict[str, list[dict[str, Any]]]


def valid_loss(run: dict[str, Any]) -> float:
    """Validation log loss of the epoch that was kept."""
    return float(min(run["valid_log_loss"]))


def read_runs(folder: Path) -> tuple[Runs, list[dict[str, Any]]]:
    """Runs of each architecture by seed, and trials, of one data set."""
    runs: Runs = defaultdict(list)
    trials = []
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text())
        if run["trial"]:
            trials.append(run)
        else:
            runs[run["architecture"]].append(run)
    for found in runs.values():
        found.sort(key=lambda run: run["seed"])
    return runs, trials


def best_trial(folder: Path, architecture: str) -> dict[str, float]:
    """The settings of an architecture's trial with the lowest validation loss.

    Raises:
        ValueError: none was run.
    """
    trials = [trial for trial in read_runs(folder)[1] if trial["architecture"] == architecture]
    if not trials:
        raise ValueError(f"{folder} has no trial of {architecture}.")
    return dict(min(trials, key=valid_loss)["settings"])


def over_seeds(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Relative difference seed by seed: mean and 95 % interval (Student's t); infinite with one seed."""
    found = [mine / other - 1 for mine, other in zip(ours, theirs, strict=True)]
    if len(found) < 2:
        return found[0], -np.inf, np.inf
    half = float(t.ppf(0.975, len(found) - 1)) * stdev(found) / len(found) ** 0.5
    return mean(found), mean(found) - half, mean(found) + half


def over_users(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval over blocks of users of the relative difference: [blocks] mean losses each."""
    draws = np.random.default_rng(0).integers(0, len(ours), (DRAWS, len(ours)))
    ratios = ours[draws].sum(axis=1) / theirs[draws].sum(axis=1) - 1
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def sheets(folder: Path) -> list[Sheet]:
    """What a data set's runs say."""
    runs, trials = read_runs(folder)
    made = [_metrics(folder.name, runs)] if runs else []
    if BASELINE in runs and len(runs) > 1:
        made.append(_differences(folder.name, runs))
    return [*made, _trials(folder.name, trials)] if trials else made


def _metrics(name: str, runs: Runs) -> Sheet:
    rows = []
    for architecture in ARCHITECTURES:
        found = runs.get(architecture, [])
        if found:
            cells = [_spread([run["test"][metric] for run in found]) for metric in METRICS]
            settings = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in _settings(found))
            rows.append([TITLES[architecture], str(len(found)), *cells, settings])
    first = next(iter(runs.values()))[0]
    size, asked = first["sizes"], f"{first['actions']} actions, {first['base_rate']:.1%} liked"
    title = f"{name}: {asked}; width {size['width']}, {size['layers']} layers, history {size['history']}"
    return Sheet(title, ("model", "seeds", *METRICS.values(), "chosen on validation"), rows)


def _differences(name: str, runs: Runs) -> Sheet:
    base = {run["seed"]: run for run in runs[BASELINE]}
    rows = []
    for architecture in ARCHITECTURES:
        pairs = [(run, base[run["seed"]]) for run in runs.get(architecture, []) if run["seed"] in base]
        if architecture == BASELINE or not pairs:
            continue
        ours, theirs = ([run["test"]["log_loss"] for run in side] for side in zip(*pairs, strict=True))
        middle, low, high = over_seeds(ours, theirs)
        blocks = [np.mean([run["block_losses"] for run in side], axis=0) for side in zip(*pairs, strict=True)]
        users = over_users(*blocks)
        every = ", ".join(f"{mine / other - 1:+.2%}" for mine, other in zip(ours, theirs, strict=True))
        cells = [f"{middle:+.2%} [{low:+.2%}, {high:+.2%}]", f"[{users[0]:+.2%}, {users[1]:+.2%}]"]
        rows.append([TITLES[architecture], *cells, every, f"{GOALS[architecture]:+.2%}"])
    columns = ("log loss against interleaved", "over seeds, 95 %", "over users, 95 %", "each seed", "paper")
    return Sheet(f"{name}: paired differences", columns, rows)


def _trials(name: str, trials: list[dict[str, Any]]) -> Sheet:
    names = sorted({json.dumps(trial["settings"], sort_keys=True) for trial in trials})
    losses = {
        (trial["architecture"], json.dumps(trial["settings"], sort_keys=True)): trial for trial in trials
    }
    rows = []
    for text in names:
        label = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in json.loads(text).items())
        cells = [losses.get((architecture, text)) for architecture in ARCHITECTURES]
        rows.append([label, *(f"{valid_loss(cell):.4f}" if cell else "" for cell in cells)])
    return Sheet(f"{name}: trials, validation log loss", ("settings", *TITLES.values()), rows)


def _settings(found: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return sorted(found[0]["settings"].items())


def _spread(values: list[float]) -> str:
    return f"{mean(values):.4f} ± {stdev(values):.4f}" if len(values) > 1 else f"{mean(values):.4f}"
