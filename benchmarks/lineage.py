"""What a release hands on: items it never saw, and the head start of the model trained after it.

    python -m benchmarks.lineage --data PATH/amazon2014/Toys_and_Games

A parent is trained on the interactions before one moment, a child on those before a later one, once cold and
once from the parent's weights with half the epochs. Cold items: for each user the first item that came after
the parent was trained, ranked among all such items. Needs a data set with timestamps.

Written to benchmarks/results/speed/lineage.json.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer

from benchmarks.data import load_dataset, text_vectors
from benchmarks.machine import machine
from benchmarks.rows import settings_of
from benchmarks.sheets import Sheet
from benchmarks.timeline import as_of, cold_holdout, moment_of
from car_model.bundle import Bundle, popularity_priors
from car_model.catalogue import Catalogue
from car_model.codebook import Codebook
from car_model.dataset import Dataset
from car_model.encoder import EncoderSpec
from car_model.evaluation import Holdout
from car_model.labels import CodeLabels
from car_model.metrics import ranks_of
from car_model.model import CAR
from car_model.onboarding import onboard
from car_model.quantise import CodebookConfig, fit, refresh
from car_model.recipe import Recipe, parse_recipe
from car_model.recommend import Recommender
from car_model.training import train, valid_ndcg
from car_model.warm_start import codes_aligned, warm_start

RESULT = Path("benchmarks/results/speed/lineage.json")
MOMENTS = (0.6, 0.8)  # shares of all interactions before the parent's and the child's training
CUTOFFS = (10, 50)
app = typer.Typer(add_completion=False)


@app.command()
def main(data: str = typer.Option(...), seeds: str = typer.Option("0")) -> None:
    """Measure both, print and write."""
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
    """Parent, cold items, and both children, by one seed."""
    recipe = parse_recipe({**settings_of("car", dataset.report["name"]), "seed": seed})
    past, today = (as_of(dataset, moment_of(dataset, share)) for share in MOMENTS)
    vectors = dict(zip(dataset.items["item_id"].astype(str), text_vectors(dataset), strict=True))
    parent, _ = fitted(past, None, vectors, recipe)
    cold = cold_items(dataset, past, parent, vectors)
    half = recipe.model_copy(update={"epochs": recipe.epochs // 2})
    child, start = fitted(today, parent, vectors, half, train_it=False)
    curves = {
        "cold": fitted(today, parent, vectors, recipe, warm=False)[1],
        "warm": fitted(today, parent, vectors, half)[1],
    }
    return {"seed": seed, "items": [parent.catalogue.size, child.catalogue.size], "cold_items": cold,
            "parent_today": start, "curves": curves}  # fmt: skip


def fitted(
    dataset: Dataset,
    parent: Bundle | None,
    vectors: dict[str, np.ndarray],
    recipe: Recipe,
    *,
    warm: bool = True,
    train_it: bool = True,
) -> tuple[Bundle, Any]:
    """A trained bundle and its validation curve; untrained, the NDCG@10 it starts from."""
    ids = dataset.items["item_id"].astype(str).tolist()
    table = np.stack([vectors[item] for item in ids])
    book = refresh(parent.codebook, table) if parent else fit(table, EncoderSpec(), "", CodebookConfig())
    catalogue = Catalogue(ids, ids, book.encode(table))
    catalogue = parent.catalogue.continued(catalogue) if parent else catalogue
    torch.manual_seed(recipe.seed)
    model = CAR(recipe.car(catalogue.size, book.levels, book.codes), torch.from_numpy(catalogue.sid_table))
    if parent and warm:
        aligned = codes_aligned(book, catalogue, parent)
        warm_start(model, catalogue, parent.model, parent.catalogue, aligned)
    data = dataset.histories(catalogue.uids)
    result: Any = valid_ndcg(model, data)
    if train_it:
        result = train(model, data, recipe.budget(), None, "warm" if parent and warm else "cold")
        result = [round(value, 5) for value in result["valid_ndcg@10"]]
    return assembled(book, catalogue, model, data.counts(catalogue.size)), result


def assembled(book: Codebook, catalogue: Catalogue, model: CAR, counts: np.ndarray) -> Bundle:
    """A bundle without labels."""
    labels = CodeLabels([[""] * book.codes for _ in range(book.levels)])
    return Bundle(book, labels, catalogue, model, *popularity_priors(counts, catalogue, book.codes), 0.0, "")


def cold_items(
    dataset: Dataset, past: Dataset, parent: Bundle, vectors: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Recall among the items the parent never saw, by CAR's SIDs and by what it is measured against."""
    holdout = cold_holdout(dataset, past)
    items = [item for item in vectors if item not in parent.catalogue.uids]
    grown = onboard(parent, items, items, np.stack([vectors[item] for item in items]))
    targets = np.array([items.index(target) for target in holdout.targets])
    recommender = Recommender(replace(grown, model=grown.model.eval()))
    prompts = [np.array([grown.catalogue.uids[item] for item in prompt]) for prompt in holdout.prompts]
    car = [recommender.scores(prompts[at : at + 256])[:, -len(items) :] for at in range(0, len(prompts), 256)]
    rivals = text_neighbours(holdout, items, vectors)
    scores = {"CAR, through SIDs": torch.cat(car).numpy(), **rivals}
    found: dict[str, Any] = {"users": len(targets), "items": len(items), "recall": {}}
    for name, table in scores.items():
        ranks = ranks_of(table, targets)
        found["recall"][name] = [round(float((ranks <= cutoff).mean()), 5) for cutoff in CUTOFFS]
    # Nobody has had any of them yet: popularity knows no order among them and is chance.
    found["recall"]["random, popularity"] = [round(cutoff / len(items), 5) for cutoff in CUTOFFS]
    return found


def text_neighbours(
    holdout: Holdout, items: Sequence[str], vectors: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Scores [users, items] by the text's cosine: to the history's mean, to its last item, to its nearest."""
    own = np.stack([vectors[item] for item in items]).T
    near = [np.stack([vectors[item] for item in prompt]) @ own for prompt in holdout.prompts]
    return {
        "text, mean of the history": np.stack([table.mean(axis=0) for table in near]),
        "text, last item": np.stack([table[-1] for table in near]),
        "text, nearest of the history": np.stack([table.max(axis=0) for table in near]),
    }


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """Cold items, and the epochs that cold and warm starts take."""
    runs = found["runs"]
    first = runs[0]["cold_items"]
    names = list(first["recall"])
    recall = [
        [
            name,
            *(_mean([one["cold_items"]["recall"][name][at] for one in runs]) for at in range(len(CUTOFFS))),
        ]
        for name in names
    ]
    title = f"{found['data']}: {first['users']:,} users, {first['items']:,} items that the model never saw"
    rows = []
    for one in runs:
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
        Sheet(title, ["ranked by", *(f"Recall@{cutoff}" for cutoff in CUTOFFS)], recall),
        Sheet(f"{found['data']}: trained on later data, cold and from the parent", columns, rows),
    ]


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")


def _epoch(curve: Sequence[float], bound: float) -> str:
    """The first epoch, from 1, whose value reaches a bound."""
    return next((str(at) for at, value in enumerate(curve, start=1) if value >= bound), "not reached")


if __name__ == "__main__":
    app()
