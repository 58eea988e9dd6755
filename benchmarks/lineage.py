"""What a release hands on: the head start of the model trained after it.

    python -m benchmarks.lineage --data PATH/amazon2014/Toys_and_Games

A parent is trained on the interactions before one moment, a child on those before a later one, once cold and
once from the parent's weights with half the epochs. Needs a data set with timestamps.

Written to benchmarks/results/speed/lineage.json.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from benchmarks.bundles import fitted
from benchmarks.data import load_dataset, text_vectors
from benchmarks.machine import machine
from benchmarks.rows import settings_of
from benchmarks.sheets import Sheet
from benchmarks.timeline import as_of, moment_of
from car_model.data.dataset import Dataset
from car_model.training.recipe import parse_recipe

RESULT = Path("benchmarks/results/speed/lineage.json")
MOMENTS = (0.6, 0.8)  # shares of all interactions before the parent's and the child's training
app = typer.Typer(add_completion=False)


@app.command()
def main(data: str = typer.Option(...), seeds: str = typer.Option("0")) -> None:
    """Measure, print and write."""
    dataset = load_dataset(data)
    found = {
        "machine": machine(),
        "data": dataset.report["name"],
        "runs": [run(dataset, int(one)) for one in seeds.split(",")],
    }
    for sheet in sheets(found):
        sheet.print()
    RESULT.write_text(json.dumps(found, indent=1) + "\n")


def run(dataset: Dataset, seed: int) -> dict[str, Any]:
    """Parent and both children, by one seed."""
    recipe = parse_recipe({**settings_of("car", dataset.report["name"]), "seed": seed})
    past, today = (as_of(dataset, moment_of(dataset, share)) for share in MOMENTS)
    vectors = dict(zip(dataset.items["item_id"].astype(str), text_vectors(dataset), strict=True))
    parent, _ = fitted(past, None, vectors, recipe)
    half = recipe.model_copy(update={"epochs": recipe.epochs // 2})
    child, start = fitted(today, parent, vectors, half, train_it=False)
    curves = {
        "cold": fitted(today, parent, vectors, recipe, warm=False)[1],
        "warm": fitted(today, parent, vectors, half)[1],
    }
    sizes = [parent.catalogue.size, child.catalogue.size]
    return {"seed": seed, "items": sizes, "parent_today": start, "curves": curves}


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """The epochs that cold and warm starts take."""
    rows = []
    for one in found["runs"]:
        cold, warm, start = one["curves"]["cold"], one["curves"]["warm"], one["parent_today"]
        rows += [
            [
                f"cold, seed {one['seed']}",
                str(len(cold)),
                _epoch(cold, start),
                _epoch(cold, max(cold)),
                f"{max(cold):.4f}",
            ],
            [f"warm, seed {one['seed']}", str(len(warm)), "0", _epoch(warm, max(cold)), f"{max(warm):.4f}"],
        ]
    columns = [
        "start",
        "epochs",
        "epochs to the parent's NDCG@10",
        "to the cold start's best",
        "best NDCG@10 (validation)",
    ]
    return [
        Sheet(f"{found['data']}: trained on later data, cold and from the parent", columns, rows),
    ]


def _epoch(curve: Sequence[float], bound: float) -> str:
    """The first epoch, from 1, whose value reaches a bound."""
    return next((str(at) for at, value in enumerate(curve, start=1) if value >= bound), "not reached")


if __name__ == "__main__":
    app()
