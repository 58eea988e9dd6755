"""How many SIDs change when a catalogue grows: a fresh fit, a fresh fit renumbered, refresh and reuse.

    python -m benchmarks.churn --data movielens --data PATH/amazon2014/Toys_and_Games

A codebook is fit on the items that were there at one moment and carried to a later one. Churn is over the
items of both moments; the error is the share of today's items' variance that their SIDs leave unexplained.

Written to benchmarks/results/speed/churn.json.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy.optimize import linear_sum_assignment

from benchmarks.datasets.load import load_dataset, text_vectors
from benchmarks.datasets.timeline import as_of, moment_of
from benchmarks.report.machine import machine
from benchmarks.report.table import Sheet
from car_model.codebook.codebook import Codebook
from car_model.codebook.residual_kmeans import CodebookConfig, fit, refresh
from car_model.data.catalogue import Catalogue
from car_model.data.dataset import Dataset
from car_model.encoding.encoder import EncoderSpec
from car_model.metrics.codebook import churn

RESULT = Path("benchmarks/results/speed/churn.json")
STEPS = ((0.8, 0.9), (0.6, 0.8), (0.5, 1.0))  # shares of all interactions before the two moments
MODES = ("fresh fit", "fresh fit, renumbered", "refresh, inertia 0", "refresh", "reuse")
app = typer.Typer(add_completion=False)


@app.command()
def main(data: Annotated[list[str], typer.Option(help="movielens, or an Amazon 2014 set's folder")]) -> None:
    """Measure every step on every data set, print and write."""
    steps = [row for one in data for row in steps_of(load_dataset(one))]
    found = {"machine": machine(), "steps": steps}
    for sheet in sheets(found):
        sheet.print()
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")


def steps_of(dataset: Dataset) -> list[dict[str, Any]]:
    """Every mode's churn and error for every step in time."""
    vectors = text_vectors(dataset)
    at = {item: row for row, item in enumerate(dataset.items["item_id"].astype(str))}
    measured = []
    for before, after in STEPS:
        old_ids = ids_before(dataset, before)
        new_ids = ids_before(dataset, after)
        old, new = (vectors[[at[item] for item in ids]] for ids in (old_ids, new_ids))
        parent = fit(old, EncoderSpec(), "", CodebookConfig())
        known = Catalogue(old_ids, old_ids, parent.encode(old))
        modes = {name: measure(book, known, new_ids, new) for name, book in books(parent, old, new).items()}
        step = {"data": dataset.report.name, "before": before, "after": after, "codes": parent.codebook_size}
        measured.append({**step, "items": [len(old_ids), len(new_ids)], "modes": modes})
    return measured


def ids_before(dataset: Dataset, share: float) -> list[str]:
    """Items that were there when this share of the interactions had been made."""
    past = dataset if share == 1 else as_of(dataset, moment_of(dataset, share))
    return past.items["item_id"].astype(str).tolist()


def books(parent: Codebook, old: np.ndarray, new: np.ndarray) -> dict[str, Codebook]:
    """Today's codebook by every mode, from vectors of both moments."""
    fresh = fit(
        new, EncoderSpec(), "", CodebookConfig(n_levels=parent.n_levels, codebook_size=parent.codebook_size)
    )
    turned = renumbered(fresh, parent.encode(old), fresh.encode(old))
    made = (fresh, turned, refresh(parent, new, inertia=0.0), refresh(parent, new), parent)
    return dict(zip(MODES, made, strict=True))


def renumbered(book: Codebook, before: np.ndarray, after: np.ndarray) -> Codebook:
    """A codebook whose codes are numbered, level by level, so that as many rows as can keep their code.

    Args:
        before, after: SIDs [N, levels] of the same rows, by the codes to keep and by this codebook's.
    """
    levels = zip(before.T, after.T, book.centroids, strict=True)
    return replace(
        book, centroids=np.stack([level[_alignment(one, other, len(level))] for one, other, level in levels])
    )


def _alignment(before: np.ndarray, after: np.ndarray, codes: int) -> np.ndarray:
    """The new code that takes each old code's number [codes]: the match that keeps most rows."""
    together = np.eye(codes, dtype=np.int64)  # where it makes no difference, a code keeps its number
    np.add.at(together, (before, after), codes + 1)
    return linear_sum_assignment(together, maximize=True)[1]


def measure(book: Codebook, known: Catalogue, ids: list[str], vectors: np.ndarray) -> dict[str, Any]:
    """Churn against a catalogue, and the error after the last level."""
    sids, left = book.residuals(vectors)
    error = left[:, -1].sum() / ((vectors - vectors.mean(axis=0)) ** 2).sum()
    moved = churn(known, Catalogue(ids, ids, sids))
    return {"by_level": moved.by_level, "whole": moved.whole, "error": round(float(error), 5)}


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """A table a step."""
    tables = []
    for step in found["steps"]:
        old, new = step["items"]
        title = f"{step['data']}, {old:,} items, then {new:,} ({step['codes']} codes a level)"
        best = step["modes"]["fresh fit"]["error"]
        rows = [
            [
                name,
                ", ".join(f"{share:.0%}" for share in one["by_level"]),
                f"{one['whole']:.1%}",
                f"{one['error']:.2%}",
                f"{one['error'] / best - 1:+.2%}",
            ]
            for name, one in step["modes"].items()
        ]
        columns = [
            "codebook",
            "codes changed, by level",
            "SIDs changed",
            "error",
            "error against a fresh fit",
        ]
        tables.append(Sheet(title, columns, rows))
    return tables


if __name__ == "__main__":
    app()
