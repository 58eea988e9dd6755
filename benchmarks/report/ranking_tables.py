"""Tables of `benchmarks.ranking`: spreads over seeds, differences paired over seeds and over users."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np
from scipy.stats import t

from benchmarks.report.runs import RankerRun
from benchmarks.report.statistics import mean_and_deviation
from benchmarks.report.table import Table
from car_model.action_ranker.model import ARCHITECTURES

BASELINE = "interleaved"
TITLES = {"interleaved": "interleaved", "lfa": "AttnLFA", "mvp": "AttnMVP"}
PAPER = {"lfa": -0.0029, "mvp": -0.0080}  # the paper's differences in loss
METRICS = {"log_loss": "log loss", "normalised_entropy": "normalised entropy", "auc": "AUC", "ece": "ECE"}
RESAMPLES = 2000


def best_trial(runs: Sequence[RankerRun], architecture: str) -> RankerRun:
    """The trial of an architecture with the lowest validation loss.

    Raises:
        ValueError: it has no trial.
    """
    trials = [run for run in runs if run.trial and run.architecture == architecture]
    if not trials:
        raise ValueError(f"there is no trial of {architecture}.")
    return min(trials, key=lambda run: run.best_valid)


def over_seeds(losses: Sequence[float], baseline: Sequence[float]) -> tuple[float, float, float]:
    """Relative difference seed by seed: mean and 95 % interval (Student's t); infinite for one seed."""
    differences = [loss / other - 1 for loss, other in zip(losses, baseline, strict=True)]
    if len(differences) < 2:
        return differences[0], -np.inf, np.inf
    half = float(t.ppf(0.975, len(differences) - 1)) * stdev(differences) / len(differences) ** 0.5
    return mean(differences), mean(differences) - half, mean(differences) + half


def over_users(losses: np.ndarray, baseline: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the relative difference over blocks of users: [blocks] mean losses each."""
    samples = np.random.default_rng(0).integers(0, len(losses), (RESAMPLES, len(losses)))
    ratios = losses[samples].sum(axis=1) / baseline[samples].sum(axis=1) - 1
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def tables(dataset: str, runs: Sequence[RankerRun]) -> list[Table]:
    """Metrics, paired differences and trials of a data set."""
    reported: dict[str, list[RankerRun]] = {
        architecture: sorted(
            (run for run in runs if run.architecture == architecture and not run.trial),
            key=lambda run: run.seed,
        )
        for architecture in ARCHITECTURES
    }
    reported = {architecture: seeds for architecture, seeds in reported.items() if seeds}
    result = [metrics_table(dataset, reported)] if reported else []
    if BASELINE in reported and len(reported) > 1:
        result.append(differences_table(dataset, reported))
    trials = [run for run in runs if run.trial]
    return [*result, trials_table(dataset, trials)] if trials else result


def metrics_table(dataset: str, reported: dict[str, list[RankerRun]]) -> Table:
    """Test metrics of each architecture, mean and deviation over seeds."""
    rows = []
    for architecture, runs in reported.items():
        cells = [mean_and_deviation([getattr(run, metric) for run in runs]) for metric in METRICS]
        rows.append([TITLES[architecture], str(len(runs)), *cells, settings_text(runs[0].settings)])
    first = next(iter(reported.values()))[0]
    title = (
        f"{dataset}: {first.actions} actions, {first.base_rate:.1%} liked; width {first.d_model}, "
        f"{first.n_layers} layers, history {first.max_history}"
    )
    return Table(title, ("model", "seeds", *METRICS.values(), "chosen on validation"), rows)


def differences_table(dataset: str, reported: dict[str, list[RankerRun]]) -> Table:
    """Log loss relative to the interleaved baseline's of the same seed."""
    baseline_by_seed = {run.seed: run for run in reported[BASELINE]}
    rows = []
    for architecture, all_runs in reported.items():
        runs = [run for run in all_runs if run.seed in baseline_by_seed]
        if architecture == BASELINE or not runs:
            continue
        baseline = [baseline_by_seed[run.seed] for run in runs]
        losses, other = ([run.log_loss or np.nan for run in side] for side in (runs, baseline))
        middle, low, high = over_seeds(losses, other)
        blocks = [np.mean([run.block_losses or [] for run in side], axis=0) for side in (runs, baseline)]
        user_low, user_high = over_users(*blocks)
        each = ", ".join(f"{loss / base - 1:+.2%}" for loss, base in zip(losses, other, strict=True))
        rows.append(
            [
                TITLES[architecture],
                f"{middle:+.2%} [{low:+.2%}, {high:+.2%}]",
                f"[{user_low:+.2%}, {user_high:+.2%}]",
                each,
                f"{PAPER[architecture]:+.2%}",
            ]
        )
    columns = ("log loss against interleaved", "over seeds, 95 %", "over users, 95 %", "each seed", "paper")
    return Table(f"{dataset}: paired differences", columns, rows)


def trials_table(dataset: str, trials: Sequence[RankerRun]) -> Table:
    """Validation log loss of every trial."""
    losses = {(run.architecture, json.dumps(run.settings, sort_keys=True)): run.best_valid for run in trials}
    rows = []
    for settings in sorted({settings for _, settings in losses}):
        values = [losses.get((architecture, settings)) for architecture in ARCHITECTURES]
        cells = ["" if value is None else f"{value:.4f}" for value in values]
        rows.append([settings_text(json.loads(settings)), *cells])
    return Table(f"{dataset}: trials, validation log loss", ("settings", *TITLES.values()), rows)


def settings_text(settings: dict[str, Any]) -> str:
    """`dropout 0.2, learning rate 0.001`."""
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in sorted(settings.items()))
