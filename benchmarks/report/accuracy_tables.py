"""Tables of `benchmarks.accuracy`: all rows, paired comparisons, trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean

import numpy as np

from benchmarks.models.variants import TITLES
from benchmarks.report.comparisons import METRICS as COMPARED_METRICS
from benchmarks.report.comparisons import compare
from benchmarks.report.runs import AccuracyRun
from benchmarks.report.statistics import mean_and_deviation
from benchmarks.report.table import Table

METRICS = {"recall@5": "Recall@5", "ndcg@5": "NDCG@5", "recall@10": "Recall@10", "ndcg@10": "NDCG@10"}

Runs = Mapping[str, Sequence[AccuracyRun]]


def full_table(dataset: str, runs: Runs) -> Table:
    """Every reported model with validation, test metrics and what was chosen on validation."""
    columns = ["model", "seeds", "valid NDCG@10", *METRICS.values()]
    columns += ["think scale", "similarity scale", "weights", "dropout", "epochs", "seconds"]
    rows = []
    for name, seeds in runs.items():
        trained = [run for run in seeds if run.parameters]
        cells = [TITLES[name], str(len(seeds))]
        cells.append(mean_and_deviation([run.best_valid for run in trained]) if trained else "")
        cells += [mean_and_deviation([run.metric(metric) for run in seeds]) for metric in METRICS]
        cells.append(", ".join(f"{run.think_scale:g}" for run in seeds) if name.startswith("car") else "")
        similarity = name.endswith("-similarity")
        cells.append(", ".join(f"{run.similarity_scale:g}" for run in seeds) if similarity else "")
        cells.append(f"{trained[0].parameters / 1e6:.2f} M" if trained else "")
        cells.append(", ".join(sorted({f"{run.settings['dropout']:g}" for run in trained})))
        cells.append(", ".join(str(len(run.valid_ndcg_at_10)) for run in seeds))
        cells.append(f"{mean(run.seconds for run in seeds):.0f}")
        rows.append(cells)
    return Table(f"{dataset}: mean ± standard deviation over seeds", columns, rows)


def comparison_table(table: Path, name: str, others: Sequence[str]) -> Table:
    """A model relative to others, user by user over the mean of the seeds, with intervals over users."""
    comparisons = compare(table, [(name, other) for other in others])
    rows = []
    for other in others:
        cells = [comparisons[table.stem, name, other, metric].text for metric in COMPARED_METRICS]
        rows.append([TITLES[other], *cells])
    columns = [f"{TITLES[name]} against", *(METRICS[metric] for metric in COMPARED_METRICS)]
    return Table(f"{TITLES[name]}, relative difference, 95 % interval over users", columns, rows)


def trials_table(trials: Sequence[AccuracyRun]) -> Table:
    """Validation results of all trials of other settings."""

    def label(run: AccuracyRun) -> str:
        return ", ".join(
            [TITLES[run.model], *(f"{name} {value}" for name, value in sorted(run.trial.items()))]
        )

    rows = []
    for title, group in groupby(sorted(trials, key=label), key=label):
        runs = list(group)
        rows.append(
            [
                title,
                ", ".join(str(run.seed) for run in runs),
                mean_and_deviation([run.best_valid for run in runs]),
                ", ".join(str(1 + int(np.argmax(run.valid_ndcg_at_10))) for run in runs),
                f"{mean(run.seconds for run in runs):.0f}",
            ]
        )
    columns = ["trial", "seed", "valid NDCG@10", "best epoch", "seconds"]
    return Table("Trials of other settings, on validation alone", columns, rows)
