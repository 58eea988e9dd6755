"""Print log loss, entropy, AUC and ECE of the action rankers AttnLFA and AttnMVP against interleaving.

    python -m benchmarks.ranking --data movielens --data PATH/amazon2014/Toys_and_Games

Predicted is whether a user likes an item (MovieLens: a rating of 4 or more; Toys: `liked`) from all earlier
items and actions, at equal width and depth. The latest 20 % of each user are the test, the 10 % before them
validate. Every model gets the same trials on validation with a seed that is not reported; the best one is
what the seeds run with. A run took 7 to 105 seconds on a GPU. It is added to
benchmarks/results/ranking/ and is not run again if it is in there; a run that was killed continues from its
last epoch.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.datasets.load import CACHE, Tokens, load_dataset, tokens
from benchmarks.report.machine import machine
from benchmarks.report.ranking_tables import best_trial, tables
from benchmarks.report.rows import append_row, read_rows
from benchmarks.report.runs import RANKING, RankerRun, table_path
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
    """What counts as liked in a data set, and the sizes that do not depend on the model."""

    liked: float  # the lowest action that counts as liked
    max_history: int
    batch_size: int


SETUPS = {
    "movielens-100k": Setup(liked=4.0, max_history=200, batch_size=16),
    "amazon2014-Toys_and_Games": Setup(liked=1.0, max_history=50, batch_size=64),
}


@dataclass(frozen=True)
class RankingData:
    """A data set as all runs on it read it."""

    name: str
    setup: Setup
    histories: ActionHistories
    tokens: Tokens
    digest: str

    @classmethod
    def of(cls, dataset: Dataset) -> RankingData:
        """Cut the histories of a data set.

        Raises:
            ValueError: there is no setup for it.
        """
        name = dataset.report.name
        if name not in SETUPS:
            raise ValueError(f"no ranking task is set up for {name}; there are: {', '.join(SETUPS)}.")
        setup, items = SETUPS[name], tokens(dataset)
        histories = action_histories(dataset.interactions, items.catalogue.uids, setup.liked)
        return cls(name, setup, hold_out_shares(histories), items, dataset.digest)


def hold_out_shares(data: ActionHistories, valid: float = 0.1, test: float = 0.2) -> ActionHistories:
    """The same histories, with the latest shares of every user held out, at least one interaction each.

    Leave-one-out has one test action per user, too few to tell models apart by a per cent of loss.
    """
    parts_by_user = []
    for uids in data.uids:
        parts = np.zeros(len(uids), dtype=np.int8)
        last = max(1, round(test * len(uids)))
        parts[-last:] = 2
        parts[-last - max(1, round(valid * len(uids))) : -last] = 1
        parts_by_user.append(parts)
    return replace(data, parts=parts_by_user)


@app.command()
def main(
    data: Annotated[list[str], typer.Option(help="movielens, or the folder of Toys_and_Games.")],
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2,3,4",
) -> None:
    """Train what is missing and print the tables."""
    for path in data:
        ranking_data = RankingData.of(load_dataset(path))
        table = table_path(RANKING, ranking_data.name)
        for values in product(*GRID.values()):
            settings = dict(zip(GRID, values, strict=True))
            for architecture in ARCHITECTURES:
                run_or_read(ranking_data, architecture, TRIAL_SEED, settings, trial=True)
        for seed in map(int, seeds.split(",")):
            for architecture in ARCHITECTURES:
                settings = best_trial(read_rows(table, RankerRun), architecture).settings
                run_or_read(ranking_data, architecture, seed, settings, trial=False)
            for sheet in tables(ranking_data.name, read_rows(table, RankerRun)):
                sheet.print()


def run_or_read(
    data: RankingData, architecture: Architecture, seed: int, settings: dict[str, float], *, trial: bool
) -> RankerRun:
    """Train one ranker, unless the same run is stored. A trial is never evaluated on test actions."""
    catalogue, setup = data.tokens.catalogue, data.setup
    config = RankerConfig(
        n_items=catalogue.size,
        n_levels=catalogue.sids.shape[1],
        codebook_size=data.tokens.codebook_size,
        liked=setup.liked,
        architecture=architecture,
        max_history=setup.max_history,
        dropout=settings["dropout"],
    )
    inputs: dict[str, Any] = {
        "architecture": architecture,
        "seed": seed,
        "trial": trial,
        "settings": settings,
        "d_model": config.d_model,
        "n_layers": config.n_layers,
        "max_history": config.max_history,
        "dataset_digest": data.digest,
        "sids_digest": data.tokens.digest,
    }
    table = table_path(RANKING, data.name)
    for stored in read_rows(table, RankerRun):
        if stored.model_dump(include=set(inputs)) == inputs:
            return stored
    train_config = TrainConfig(
        epochs=EPOCHS,
        batch_size=setup.batch_size,
        learning_rate=settings["learning_rate"],
        patience=PATIENCE,
        seed=seed,
        threads=1,
    )
    torch.manual_seed(seed)
    model = ActionRanker(config, torch.from_numpy(catalogue.sid_table))
    checkpoint, start = CACHE / "ranking" / json_digest(inputs)[:16], time.monotonic()
    title = f"{data.name} {architecture} seed {seed}"
    curves = train_ranker(model, data.histories, train_config, checkpoint, title)
    seconds = round(time.monotonic() - start)
    run = RankerRun(
        **inputs,
        **({} if trial else evaluate(predict(model, data.histories, "test"))),
        valid_log_loss=[round(loss, 6) for loss in curves.valid_log_loss],
        parameters=sum(weight.numel() for weight in model.parameters()),
        seconds=seconds,
        machine=machine(),
    )
    append_row(table, run)
    print(f"{title}: validation {run.best_valid:.4f}, {seconds} s", flush=True)
    return run


def evaluate(predictions: Predictions) -> dict[str, Any]:
    """Test metrics, and the losses summed over blocks of users for paired intervals."""
    losses = log_losses(predictions.labels, predictions.probabilities)
    blocks = np.bincount(predictions.rows % BLOCKS, weights=losses, minlength=BLOCKS)
    return {
        **action_metrics(predictions.labels, predictions.probabilities).model_dump(),
        "base_rate": float(predictions.labels.mean()),
        "actions": len(predictions.labels),
        "block_losses": blocks.round(4).tolist(),
    }


if __name__ == "__main__":
    app()
