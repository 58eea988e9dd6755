"""Ranking by action: AttnLFA and AttnMVP against the interleaved baseline, at equal width and depth.

    python -m benchmarks.ranking --data movielens --data PATH/amazon2014/Toys_and_Games

Predicted is whether a user likes an item (MovieLens: a rating of 4 or more; Toys: `liked`) from all items and
actions before it. Of every user the latest 20 % are tested on and the 10 % before them validate. Every model
gets the same trials on validation with a seed that is not reported, and its best one is what the seeds run
with. A run is written to benchmarks/results/ranking/ as it ends and not run again while its inputs are the
same; one that was killed goes on from its last epoch. Times are `benchmarks.ranking_speed`'s.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from itertools import product
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.datasets.load import CACHE, Tokens, load_dataset, tokens
from benchmarks.report.machine import machine
from benchmarks.report.ranking_tables import RESULTS, best_trial, sheets, valid_loss
from car_model.action_ranker.data import ActionHistories, action_histories
from car_model.action_ranker.model import ARCHITECTURES, ActionRanker, Architecture, RankerConfig
from car_model.data.dataset import Dataset
from car_model.metrics.actions import action_metrics, log_losses
from car_model.training.train_ranker import Predictions, predict, train_ranker
from car_model.training.trainer import TrainConfig
from common.digests import json_digest

TRIAL_SEED = 100  # not among those reported
GRID: dict[str, tuple[float, ...]] = {"learning_rate": (1e-3, 3e-3), "dropout": (0.2, 0.4)}
BLOCKS = 200  # of users: enough for an interval over users, few enough to be stored
EPOCHS, PATIENCE = 15, 3
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Setup:
    """What is asked of a data set, and the sizes that do not depend on the model."""

    liked: float  # the least action that counts as liked
    history: int
    batch_size: int


SETUPS = {
    "movielens-100k": Setup(4.0, history=200, batch_size=16),
    "amazon2014-Toys_and_Games": Setup(1.0, history=50, batch_size=64),
}


@dataclass(frozen=True)
class Asked:
    """A data set as all runs on it read it."""

    name: str
    setup: Setup
    data: ActionHistories
    made: Tokens
    digest: str

    @classmethod
    def of(cls, dataset: Dataset) -> Asked:
        """Cut the histories of a data set. Raises ValueError where nothing is asked of it."""
        name = dataset.report.name
        if name not in SETUPS:
            raise ValueError(f"nothing is asked of {name}; there are: {', '.join(SETUPS)}.")
        setup, made = SETUPS[name], tokens(dataset)
        data = action_histories(dataset.interactions, made.catalogue.uids, setup.liked).by_share()
        return cls(name, setup, data, made, dataset.digest)


@app.command()
def main(
    data: Annotated[list[str], typer.Option(help="movielens, or the folder of Toys_and_Games")],
    seeds: str = typer.Option("0,1,2,3,4", help="separated by commas"),
) -> None:
    """Run what is missing and print the tables."""
    for path in data:
        asked = Asked.of(load_dataset(path))
        for values in product(*GRID.values()):
            for architecture in ARCHITECTURES:
                result(asked, architecture, TRIAL_SEED, dict(zip(GRID, values, strict=True)), trial=True)
        for seed in map(int, seeds.split(",")):
            for architecture in ARCHITECTURES:
                chosen = best_trial(RESULTS / asked.name, architecture)
                result(asked, architecture, seed, chosen, trial=False)
            for sheet in sheets(RESULTS / asked.name):
                sheet.print()


def result(
    asked: Asked, architecture: Architecture, seed: int, settings: dict[str, float], *, trial: bool
) -> dict[str, Any]:
    """One run, from its file where it was run before with the same inputs. A trial never sees test items."""
    setup = asked.setup
    config = RankerConfig(
        asked.made.catalogue.size,
        asked.made.catalogue.sids.shape[1],
        asked.made.codes,
        setup.liked,
        architecture,
        max_history=setup.history,
        dropout=settings["dropout"],
    )
    budget = TrainConfig(
        epochs=EPOCHS,
        batch_size=setup.batch_size,
        learning_rate=settings["learning_rate"],
        patience=PATIENCE,
        seed=seed,
        threads=1,
    )
    key = json_digest([asked.digest, asked.made.digest, asdict(config), asdict(budget), trial])[:16]
    changes = "-".join(f"{name}={value:g}" for name, value in settings.items())
    label = f"trial-{architecture}-{changes}" if trial else f"{architecture}-{seed}"
    path = RESULTS / asked.name / f"{label}.json"
    if path.is_file() and (known := json.loads(path.read_text()))["key"] == key:
        return known
    torch.manual_seed(seed)
    model = ActionRanker(config, torch.from_numpy(asked.made.catalogue.sid_table))
    start = time.monotonic()
    curves = train_ranker(model, asked.data, budget, CACHE / "ranking" / key, f"{asked.name} {label}")
    found = {
        **{"key": key, "architecture": architecture, "seed": seed, "trial": trial, "settings": settings},
        **{"machine": machine(), "dataset": asked.digest, "sids": asked.made.digest},
        "sizes": {"width": config.d_model, "layers": config.n_layers, "history": config.max_history},
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "seconds": round(time.monotonic() - start),
        "valid_log_loss": [round(loss, 6) for loss in curves.valid_log_loss],
    }
    if not trial:
        found |= tested(predict(model, asked.data, "test"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(f"{asked.name} {label}: validation {valid_loss(found):.4f}, {found['seconds']} s", flush=True)
    return found


def tested(found: Predictions) -> dict[str, Any]:
    """Metrics on the test part, and sums of its losses over blocks of users for paired intervals."""
    losses = log_losses(found.labels, found.probabilities)
    blocks = np.bincount(found.rows % BLOCKS, weights=losses, minlength=BLOCKS)
    return {
        "test": action_metrics(found.labels, found.probabilities),
        "base_rate": float(found.labels.mean()),
        "actions": len(found.labels),
        "block_losses": blocks.round(4).tolist(),
    }


if __name__ == "__main__":
    app()
