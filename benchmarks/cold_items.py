"""Print how well CAR recommends items that it never saw in training, against text similarity.

    python -m benchmarks.cold_items --data PATH/amazon2014/Toys_and_Games --epochs 10 --seeds 0,1

A model is trained on the interactions before a moment. For each user, the first new item afterwards is ranked
among all new items. Needs a data set with timestamps; about 10 minutes per seed on two cores. Written
to benchmarks/results/cold_items.csv.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.datasets.load import load_dataset, text_vectors
from benchmarks.datasets.timeline import as_of, cold_holdout, moment_of
from benchmarks.models.bundles import trained_bundle
from benchmarks.models.variants import settings_of
from benchmarks.report.machine import machine
from benchmarks.report.rows import Row, read_rows, write_rows
from benchmarks.report.statistics import mean_and_deviation
from benchmarks.report.table import Table
from car_model.bundle import Bundle
from car_model.evaluation.evaluate import Holdout
from car_model.metrics.ranking import ranks_of
from car_model.recommender.recommender import Recommender
from car_model.training.onboard import onboard
from car_model.training.recipe import parse_recipe

OUTPUT = Path("benchmarks/results/cold_items.csv")
MOMENT = 0.6  # share of all interactions that the model is trained on
CUTOFFS = (10, 50)
MODELS: dict[str, dict[str, Any]] = {"CAR": {}, "CAR, text fused": {"text_dim": 64}}
BATCH = 256
app = typer.Typer(add_completion=False)


class ColdItemsRow(Row):
    """Recall of one way to rank the new items."""

    machine: str
    dataset: str
    epochs: int
    users: int
    items: int
    """New items, which are ranked."""
    ranked_by: str
    seed: int | None = None
    """Missing if nothing is trained."""
    recall_at_10: float
    recall_at_50: float
    similarity_scale: float | None = None
    """Weight of text similarity, chosen by validation on known items."""
    valid_ndcg_at_10: list[float] | None = None
    """Validation NDCG@10 on known items after each epoch."""


@app.command()
def main(
    data: Annotated[str, typer.Option(help="The folder of an Amazon 2014 data set, or movielens.")],
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0",
    epochs: Annotated[int, typer.Option(help="Epochs; 0 takes the data set's recipe.")] = 0,
) -> None:
    """Train what is missing and print the table."""
    dataset = load_dataset(data)
    past = as_of(dataset, moment_of(dataset, MOMENT))
    vectors = dict(zip(dataset.items["item_id"].astype(str), text_vectors(dataset), strict=True))
    holdout = cold_holdout(dataset, past)
    settings = settings_of("car", dataset.report.name) | ({"epochs": epochs} if epochs else {})
    epochs = parse_recipe(settings).epochs
    rows = [
        row
        for row in read_rows(OUTPUT, ColdItemsRow)
        if (row.dataset, row.epochs) == (dataset.report.name, epochs)
    ]
    finished = {(row.seed, row.ranked_by) for row in rows}
    for seed, (name, changes) in product(map(int, seeds.split(",")), MODELS.items()):
        if (seed, name) in finished:
            continue
        recipe = parse_recipe({**settings, **changes, "seed": seed})
        bundle, curve = trained_bundle(past, vectors, recipe)
        setup: dict[str, Any] = {
            "machine": machine(),
            "dataset": dataset.report.name,
            "epochs": epochs,
            "users": len(holdout.users),
            "items": len(new_items(bundle, vectors)),
        }
        trained = [
            ColdItemsRow(**setup, **measured, seed=seed, valid_ndcg_at_10=curve)
            for measured in measure(name, bundle, holdout, vectors)
        ]
        baselines = [
            ColdItemsRow(**setup, ranked_by=baseline, recall_at_10=first, recall_at_50=second)
            for baseline, (first, second) in text_baselines(bundle, holdout, vectors).items()
        ]
        rows = [*(row for row in rows if row.seed is not None), *trained, *baselines]
        write_rows(OUTPUT, rows)
    for table in tables(rows):
        table.print()


def measure(
    name: str, bundle: Bundle, holdout: Holdout, vectors: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Recall of a trained bundle after onboarding the new items, without and with text similarity."""
    items = new_items(bundle, vectors)
    targets = np.array([items.index(target) for target in holdout.targets])
    table = np.stack([vectors[item] for item in items])
    extended = onboard(bundle, items, items, table)
    histories = [np.array([extended.catalogue.uids[item] for item in prompt]) for prompt in holdout.prompts]
    measured = []
    for suffix, scale in (("", 0.0), (" + text similarity", bundle.similarity_scale)):
        recommender = Recommender(replace(extended, similarity_scale=scale))
        scores = [
            recommender.scores(histories[i : i + BATCH])[:, -len(items) :]
            for i in range(0, len(histories), BATCH)
        ]
        first, second = recalls(torch.cat(scores).numpy(), targets)
        measured.append(
            {
                "ranked_by": f"{name}{suffix}",
                "recall_at_10": first,
                "recall_at_50": second,
                "similarity_scale": scale,
            }
        )
    return measured


def new_items(bundle: Bundle, vectors: dict[str, np.ndarray]) -> list[str]:
    """Items that are not in a bundle's catalogue."""
    return [item for item in vectors if item not in bundle.catalogue.uids]


def recalls(scores: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Recall at both cutoffs of scores [users, items]."""
    ranks = ranks_of(scores, targets)
    first, second = (round(float((ranks <= cutoff).mean()), 5) for cutoff in CUTOFFS)
    return first, second


def text_baselines(
    bundle: Bundle, holdout: Holdout, vectors: dict[str, np.ndarray]
) -> dict[str, tuple[float, float]]:
    """Recall by cosine of an item's text to the history's mean, last or nearest text, and by chance."""
    items = new_items(bundle, vectors)
    targets = np.array([items.index(target) for target in holdout.targets])
    similarities = cosines(vectors, items, holdout)
    centre = np.mean([vectors[item] for item in bundle.catalogue.item_ids], axis=0)
    centred = {item: (vector - centre) / np.linalg.norm(vector - centre) for item, vector in vectors.items()}
    scores = {
        "text, mean of the history": [table.mean(axis=0) for table in similarities],
        "text, last item": [table[-1] for table in similarities],
        "text, nearest of the history": [table.max(axis=0) for table in similarities],
        "text, nearest of the history, vectors centred": [
            table.max(axis=0) for table in cosines(centred, items, holdout)
        ],
    }
    results = {name: recalls(np.stack(rows), targets) for name, rows in scores.items()}
    # Nobody has interacted with any of the items yet, so popularity cannot order them.
    first, second = (round(cutoff / len(items), 5) for cutoff in CUTOFFS)
    return {**results, "random, popularity": (first, second)}


def cosines(vectors: dict[str, np.ndarray], items: list[str], holdout: Holdout) -> list[np.ndarray]:
    """Cosines [history, items] of unit vectors, per user."""
    table = np.stack([vectors[item] for item in items]).T
    return [np.stack([vectors[item] for item in prompt]) @ table for prompt in holdout.prompts]


def tables(rows: list[ColdItemsRow]) -> list[Table]:
    """Recall of every way to rank the new items."""
    cells = []
    for name in dict.fromkeys(row.ranked_by for row in rows):
        runs = [row for row in rows if row.ranked_by == name]
        columns = ([row.recall_at_10 for row in runs], [row.recall_at_50 for row in runs])
        cells.append([name, *(mean_and_deviation(values) for values in columns)])
    first, seeds = rows[0], len({row.seed for row in rows if row.seed is not None})
    title = (
        f"{first.dataset}: {first.users:,} users, {first.items:,} items that the model never saw, "
        f"{first.epochs} epochs, {seeds} {'seed' if seeds == 1 else 'seeds'}"
    )
    return [Table(title, ["ranked by", *(f"Recall@{cutoff}" for cutoff in CUTOFFS)], cells)]


if __name__ == "__main__":
    app()
