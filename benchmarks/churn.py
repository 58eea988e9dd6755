"""Print how many SIDs change when a catalogue grows: a fresh fit, a renumbered fresh fit, refresh and reuse.

    python -m benchmarks.churn --data movielens --data PATH/amazon2014/Toys_and_Games

A codebook is fit on the items of one moment and brought to a later one. Churn counts items of both moments;
the error is the share of the later items' variance that their SIDs leave unexplained. About 5
minutes per data set. Written to benchmarks/results/churn.csv.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy.optimize import linear_sum_assignment

from benchmarks.datasets.load import load_dataset, text_vectors
from benchmarks.datasets.timeline import as_of, moment_of
from benchmarks.report.machine import machine
from benchmarks.report.rows import Row, write_rows
from benchmarks.report.table import Table
from car_model.codebook.codebook import Codebook
from car_model.codebook.residual_kmeans import CodebookConfig, fit, refresh
from car_model.data.catalogue import Catalogue
from car_model.data.dataset import Dataset
from car_model.encoding.encoder import EncoderSpec
from car_model.metrics.codebook import churn

OUTPUT = Path("benchmarks/results/churn.csv")
STEPS = ((0.8, 0.9), (0.6, 0.8), (0.5, 1.0))  # shares of all interactions before the two moments
app = typer.Typer(add_completion=False)


class ChurnRow(Row):
    """The churn of one way to make the later codebook, for one step in time."""

    machine: str
    dataset: str
    share_before: float
    """Share of all interactions before the first moment."""
    share_after: float
    items_before: int
    items_after: int
    codebook_size: int
    codebook: str
    changed_by_level: list[float]
    """Share of the codes that changed, by level."""
    changed: float
    """Share of the SIDs that changed in some level."""
    error: float
    """Share of the variance that the SIDs leave unexplained."""


@app.command()
def main(
    data: Annotated[list[str], typer.Option(help="movielens, or the folder of an Amazon 2014 data set.")],
) -> None:
    """Measure every step on every data set."""
    rows = [row for path in data for row in measure(load_dataset(path))]
    write_rows(OUTPUT, rows)
    for table in tables(rows):
        table.print()


def measure(dataset: Dataset) -> list[ChurnRow]:
    """Churn and error of every codebook for every step in time."""
    vectors = text_vectors(dataset)
    positions = {item: i for i, item in enumerate(dataset.items["item_id"].astype(str))}
    rows = []
    for share_before, share_after in STEPS:
        old_ids, new_ids = (item_ids(dataset, share) for share in (share_before, share_after))
        old, new = (vectors[[positions[item] for item in ids]] for ids in (old_ids, new_ids))
        parent = fit(old, EncoderSpec(), "", CodebookConfig())
        old_catalogue = Catalogue(old_ids, old_ids, parent.encode(old))
        for name, codebook in later_codebooks(parent, old, new).items():
            rows.append(
                ChurnRow(
                    machine=machine(),
                    dataset=dataset.report.name,
                    share_before=share_before,
                    share_after=share_after,
                    items_before=len(old_ids),
                    items_after=len(new_ids),
                    codebook_size=parent.codebook_size,
                    codebook=name,
                    **churn_and_error(codebook, old_catalogue, new_ids, new),
                )
            )
    return rows


def item_ids(dataset: Dataset, share: float) -> list[str]:
    """Items that existed when this share of the interactions had been made."""
    past = dataset if share == 1 else as_of(dataset, moment_of(dataset, share))
    return past.items["item_id"].astype(str).tolist()


def later_codebooks(parent: Codebook, old: np.ndarray, new: np.ndarray) -> dict[str, Codebook]:
    """The later moment's codebook by every method, from the vectors of both moments."""
    fresh = fit(
        new, EncoderSpec(), "", CodebookConfig(n_levels=parent.n_levels, codebook_size=parent.codebook_size)
    )
    return {
        "fresh fit": fresh,
        "fresh fit, renumbered": renumbered(fresh, parent.encode(old), fresh.encode(old)),
        "refresh, inertia 0": refresh(parent, new, inertia=0.0),
        "refresh": refresh(parent, new),
        "reuse": parent,
    }


def renumbered(codebook: Codebook, old_sids: np.ndarray, new_sids: np.ndarray) -> Codebook:
    """Renumber a codebook's codes level by level so that as many items as possible keep their code.

    Args:
        old_sids, new_sids: SIDs [N, levels] of the same items, by the codes to keep and by this codebook's.
    """
    levels = zip(old_sids.T, new_sids.T, codebook.centroids, strict=True)
    centroids = [level[best_match(old, new, len(level))] for old, new, level in levels]
    return replace(codebook, centroids=np.stack(centroids))


def best_match(old: np.ndarray, new: np.ndarray, codes: int) -> np.ndarray:
    """The new code that takes each old code's number [codes]: the assignment that keeps most items."""
    counts = np.eye(codes, dtype=np.int64)  # a tie keeps the number
    np.add.at(counts, (old, new), codes + 1)
    return linear_sum_assignment(counts, maximize=True)[1]


def churn_and_error(
    codebook: Codebook, old: Catalogue, ids: list[str], vectors: np.ndarray
) -> dict[str, Any]:
    """Churn against a catalogue, and the error after the last level."""
    sids, residuals = codebook.residuals(vectors)
    error = residuals[:, -1].sum() / ((vectors - vectors.mean(axis=0)) ** 2).sum()
    change = churn(old, Catalogue(ids, ids, sids))
    return {
        "changed_by_level": change.by_level,
        "changed": change.whole,
        "error": round(float(error), 5),
    }


def tables(rows: list[ChurnRow]) -> list[Table]:
    """One table per step in time; the first row of a step is the fresh fit."""
    columns = ["codebook", "codes changed, by level", "SIDs changed", "error", "error against a fresh fit"]
    result = []
    for _, group in groupby(rows, key=lambda row: (row.dataset, row.share_before)):
        step = list(group)
        first = step[0]
        title = (
            f"{first.dataset}, {first.items_before:,} items, then {first.items_after:,} "
            f"({first.codebook_size} codes per level)"
        )
        cells = [
            [
                row.codebook,
                ", ".join(f"{share:.0%}" for share in row.changed_by_level),
                f"{row.changed:.1%}",
                f"{row.error:.2%}",
                f"{row.error / first.error - 1:+.2%}",
            ]
            for row in step
        ]
        result.append(Table(title, columns, cells))
    return result


if __name__ == "__main__":
    app()
