"""Items that nobody has bought yet: how well a release finds them once they are onboarded.

    python -m benchmarks.cold_items --data PATH/amazon2014/Toys_and_Games

A model is trained on the interactions before a moment. For each user the first item that came after it is
ranked among all such items, which the model has never seen. Needs a data set with timestamps.

Written to benchmarks/results/speed/cold_items.json.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer

from benchmarks.datasets.load import load_dataset, text_vectors
from benchmarks.datasets.timeline import as_of, cold_holdout, moment_of
from benchmarks.models.bundles import fitted
from benchmarks.models.variants import settings_of
from benchmarks.report.machine import machine
from benchmarks.report.statistics import spread
from benchmarks.report.table import Sheet
from car_model.bundle import Bundle
from car_model.evaluation.evaluate import Holdout
from car_model.metrics.ranking import ranks_of
from car_model.recommender.recommender import Recommender
from car_model.training.onboard import onboard
from car_model.training.recipe import parse_recipe

RESULT = Path("benchmarks/results/speed/cold_items.json")
MOMENT = 0.6  # share of all interactions before the model's training
CUTOFFS = (10, 50)
MODELS: dict[str, dict[str, Any]] = {
    "CAR, through SIDs": {},
    "CAR, text fused": {"text_dim": 64},
}
app = typer.Typer(add_completion=False)


@app.command()
def main(
    data: str = typer.Option(...), seeds: str = typer.Option("0"), epochs: int = typer.Option(0)
) -> None:
    """Train what is missing, measure, print and write. `--epochs` 0 takes the data set's recipe."""
    dataset = load_dataset(data)
    past = as_of(dataset, moment_of(dataset, MOMENT))
    vectors = dict(zip(dataset.items["item_id"].astype(str), text_vectors(dataset), strict=True))
    holdout = cold_holdout(dataset, past)
    settings = settings_of("car", dataset.report.name) | ({"epochs": epochs} if epochs else {})
    found: dict[str, Any] = {
        "machine": machine(),
        "data": dataset.report.name,
        "epochs": parse_recipe(settings).epochs,
    }
    found["runs"] = _known(found)
    there = {(run["seed"], run["model"]) for run in found["runs"]}
    for seed, (name, changes) in product(map(int, seeds.split(",")), MODELS.items()):
        if (seed, name) in there:
            continue
        parent, curve = fitted(past, None, vectors, parse_recipe({**settings, **changes, "seed": seed}))
        told = {"seed": seed, "model": name, "valid_ndcg@10": curve}
        found["runs"].append({**told, **measured(name, parent, holdout, vectors)})
        found |= {"users": len(holdout.users), "items": len(unseen(parent, vectors))}
        found |= {"rivals": rivals(parent, holdout, vectors)}
        RESULT.write_text(json.dumps(found, indent=1) + "\n")
    for sheet in sheets(json.loads(RESULT.read_text())):
        sheet.print()


def _known(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs of the same data and epochs that are written already."""
    if not RESULT.is_file():
        return []
    found = json.loads(RESULT.read_text())
    same = all(found[name] == asked[name] for name in ("data", "epochs"))
    return found["runs"] if same else []


def measured(name: str, parent: Bundle, holdout: Holdout, vectors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Recall of the onboarded items by one model, without the nearest text and with it."""
    items = unseen(parent, vectors)
    grown = onboard(parent, items, items, np.stack([vectors[item] for item in items]))
    targets = np.array([items.index(target) for target in holdout.targets])
    prompts = [np.array([grown.catalogue.uids[item] for item in prompt]) for prompt in holdout.prompts]
    recall = {}
    for suffix, scale in ((name, 0.0), (f"{name}, and the nearest text", parent.similarity_scale)):
        recommender = Recommender(replace(grown, similarity_scale=scale))
        parts = [
            recommender.scores(prompts[at : at + 256])[:, -len(items) :] for at in range(0, len(prompts), 256)
        ]
        recall[suffix] = recalls(torch.cat(parts).numpy(), targets)
    return {"likeness_scale": parent.similarity_scale, "recall": recall}


def unseen(parent: Bundle, vectors: dict[str, np.ndarray]) -> list[str]:
    """Items that a release does not know."""
    return [item for item in vectors if item not in parent.catalogue.uids]


def recalls(scores: np.ndarray, targets: np.ndarray) -> list[float]:
    """Recall at each cutoff of scores [users, items]."""
    ranks = ranks_of(scores, targets)
    return [round(float((ranks <= cutoff).mean()), 5) for cutoff in CUTOFFS]


def rivals(parent: Bundle, holdout: Holdout, vectors: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """What CAR is measured against: the text's cosine to the history's mean, last, nearest item; chance."""
    items = unseen(parent, vectors)
    targets = np.array([items.index(target) for target in holdout.targets])
    near = _cosines(vectors, items, holdout)
    centre = np.mean([vectors[item] for item in parent.catalogue.item_ids], axis=0)
    about = {item: (vector - centre) / np.linalg.norm(vector - centre) for item, vector in vectors.items()}
    scores = {
        "text, mean of the history": np.stack([table.mean(axis=0) for table in near]),
        "text, last item": np.stack([table[-1] for table in near]),
        "text, nearest of the history": np.stack([table.max(axis=0) for table in near]),
        "text, nearest of the history, vectors centred": np.stack(
            [table.max(axis=0) for table in _cosines(about, items, holdout)]
        ),
    }
    found = {name: recalls(table, targets) for name, table in scores.items()}
    # Nobody has had any of them yet: popularity knows no order among them and is chance.
    found["random, popularity"] = [round(cutoff / len(items), 5) for cutoff in CUTOFFS]
    return found


def _cosines(vectors: dict[str, np.ndarray], items: list[str], holdout: Holdout) -> list[np.ndarray]:
    """Per user, cosines [history, items] of unit vectors."""
    own = np.stack([vectors[item] for item in items]).T
    return [np.stack([vectors[item] for item in prompt]) @ own for prompt in holdout.prompts]


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """Recall of every way to rank them."""
    runs = found["runs"]
    rows = []
    for name in dict.fromkeys(name for run in runs for name in run["recall"]):
        told = [run["recall"][name] for run in runs if name in run["recall"]]
        rows.append([name, *(spread([one[at] for one in told]) for at in range(len(CUTOFFS)))])
    rows += [[name, *(f"{value:.4f}" for value in values)] for name, values in found["rivals"].items()]
    seeds = len({run["seed"] for run in runs})
    title = (
        f"{found['data']}: {found['users']:,} users, {found['items']:,} items that the model never saw, "
        f"{found['epochs']} epochs, {seeds} {'seed' if seeds == 1 else 'seeds'}"
    )
    return [Sheet(title, ["ranked by", *(f"Recall@{cutoff}" for cutoff in CUTOFFS)], rows)]


if __name__ == "__main__":
    app()
