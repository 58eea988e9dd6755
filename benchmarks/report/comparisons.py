"""Stored comparisons of two models: resampling 20,000 users is slow, so each is computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.report.rows import Row, read_rows, write_rows
from benchmarks.report.runs import ACCURACY, rank_strings
from benchmarks.report.statistics import relative_difference
from car_model.evidence.evaluation import Metric
from common.digests import json_digest

METRICS: tuple[Metric, ...] = ("recall@10", "ndcg@10")


class Comparison(Row):
    """A model's metric relative to another's, with a paired 95 % interval over users."""

    table: str
    """The data set and its order, as in the name of the table of runs."""
    model: str
    other: str
    metric: Metric
    difference: float
    """Share of the other model's mean, to a tenth of a percent; so are the bounds."""
    low: float
    high: float
    ranks_digest: str
    """Digest of both models' ranks; a comparison of other ranks is computed again."""

    @property
    def text(self) -> str:
        """`+8.2% [+6.3%, +10.0%]`."""
        return f"{self.difference:+.1%} [{self.low:+.1%}, {self.high:+.1%}]"


Key = tuple[str, str, str, str]  # table, model, other, metric
Pairs = Sequence[tuple[str, str]]


def comparisons_path() -> Path:
    """The table of all comparisons."""
    return ACCURACY.parent / "comparisons.csv"


def compare(table: Path, pairs: Pairs) -> dict[Key, Comparison]:
    """Comparisons of pairs of models (model, other); what is not stored is computed and added."""
    ranks = rank_strings(table)
    stored = {
        (row.table, row.model, row.other, row.metric): row
        for row in read_rows(comparisons_path(), Comparison)
    }
    results: dict[Key, Comparison] = {}
    for model, other in pairs:
        digest = ranks_digest(ranks, model, other)
        for metric in METRICS:
            key = (table.stem, model, other, metric)
            if key not in stored or stored[key].ranks_digest != digest:
                stored[key] = compute(table.stem, ranks, model, other, metric)
                write_rows(comparisons_path(), list(stored.values()))
            results[key] = stored[key]
    return results


def compute(
    table: str, ranks: Mapping[str, Sequence[str]], model: str, other: str, metric: Metric
) -> Comparison:
    """One comparison, from the ranks of both models."""
    difference, low, high = relative_difference(ranks[model], ranks[other], metric)
    return Comparison(
        table=table,
        model=model,
        other=other,
        metric=metric,
        difference=round(difference, 3),
        low=round(low, 3),
        high=round(high, 3),
        ranks_digest=ranks_digest(ranks, model, other),
    )


def ranks_digest(ranks: Mapping[str, Sequence[str]], model: str, other: str) -> str:
    """Digest of both models' ranks."""
    return json_digest([ranks[model], ranks[other]])[:16]
