"""Training a ranker by action: the budget and schedule of `training`, the best epoch by validation log loss.

Resumable as CAR's training is: the state is written after every epoch, and all randomness of an epoch follows
from (seed, epoch), so that a run that was killed ends with the weights of one that was not.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from car_model.action_ranker.data import (
    ActionHistories,
    Part,
    action_histories,
    scoring_batches,
    training_batches,
)
from car_model.action_ranker.model import LIKED, ActionRanker
from car_model.action_ranker.rerank import Reranker, choose_weight
from car_model.bundle import Bundle, tables
from car_model.compute import limit_threads
from car_model.data.dataset import Dataset
from car_model.evidence.training import RankerSummary
from car_model.metrics.actions import action_metrics, log_losses
from car_model.recommender.held_out_requests import asked_before, held_out, liked_at, targets_of
from car_model.recommender.recommender import Recommender
from car_model.training.checkpoint import load_training, save_training
from car_model.training.distributed import device
from car_model.training.recipe import RankerRecipe
from car_model.training.trainer import TrainConfig, autocast, json_seed, schedule
from common.digests import json_digest

SCORE_ROWS = 64  # windows scored at once


@dataclass
class RankerCurves:
    """What the report draws; one entry an epoch."""

    epoch: list[int] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    valid_log_loss: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Predictions:
    """What a model says of every known action of a part.

    Attributes:
        labels: [n] 1 where the action counts as liked, else 0.
        probabilities: [n] predicted.
        rows: [n] whose history an action is of; they ascend, and within a history time does.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    rows: np.ndarray


def predict(model: ActionRanker, data: ActionHistories, part: Part) -> Predictions:
    """P(liked) at every known action of a part, from all interactions before it."""
    model.eval()
    where = next(model.parameters()).device
    found: list[tuple[np.ndarray, ...]] = []
    for batch in scoring_batches(data, part, model.config.max_history, SCORE_ROWS):
        with torch.inference_mode():
            probabilities = model.probabilities(batch.uids.to(where), batch.actions.to(where))
        wanted = batch.target_mask
        windows, at = (index.numpy() for index in wanted.nonzero(as_tuple=True))
        liked = batch.actions[wanted].numpy() == LIKED
        found.append(
            (batch.row[windows], batch.start[windows] + at, liked, probabilities.cpu()[wanted].numpy())
        )
    if not found:
        return Predictions(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0, dtype=np.int64))
    rows, places, labels, chances = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((places, rows))
    return Predictions(labels[order].astype(np.int64), chances[order].astype(np.float64), rows[order])


def train_ranker(
    model: ActionRanker,
    data: ActionHistories,
    config: TrainConfig,
    checkpoint: Path | None = None,
    name: str = "ranker",
) -> RankerCurves:
    """Train in place to the epoch of the lowest validation log loss ; returns the curves.

    Args:
        checkpoint: folder of the resumable state; a state of another configuration or other data is ignored.
        name: what the progress bar says.

    Raises:
        ValueError: no action is known to learn from, or the loss stops being a number.
    """
    if not any(keep.any() for keep in data.targets("train")):
        raise ValueError("no training interaction has an action; there is nothing to rank by.")
    torch.manual_seed(config.seed)
    limit_threads(config.threads)
    run = _Run(model.to(device()), data, config, checkpoint)
    with tqdm(
        total=config.epochs, initial=run.epoch, desc=f"train {name}", unit="epoch", mininterval=2
    ) as bar:
        while run.epoch < config.epochs and run.waited < config.patience:
            run.one_epoch()
            loss, valid = run.curves.train_loss[-1], run.curves.valid_log_loss[-1]
            bar.set_postfix(loss=f"{loss:.4f}", valid=f"{valid:.4f}", refresh=False)
            bar.update()
    model.load_state_dict(run.best)
    model.eval().cpu()
    return run.curves


class _Run:
    """The state of one training run between epochs."""

    def __init__(
        self, model: ActionRanker, data: ActionHistories, config: TrainConfig, checkpoint: Path | None
    ) -> None:
        self.model, self.data, self.config, self.checkpoint = model, data, config, checkpoint
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.98),
            fused=True,
        )
        history, size = model.config.max_history, config.batch_size
        lengths = [int(keep.nonzero()[0].max(initial=-1)) + 1 for keep in data.targets("train")]
        self.steps = math.ceil(sum(math.ceil(length / history) for length in lengths) / size)
        self.targets = sum(int(keep.sum()) for keep in data.targets("train")) / self.steps  # of a batch
        self.epoch, self.step, self.waited, self.lowest = 0, 0, 0, math.inf
        self.curves = RankerCurves()
        self.best = self._weights()
        self.identity = self._digest()
        self._resume()

    def one_epoch(self) -> None:
        """Train one epoch, measure it on validation, keep the best weights, write the state."""
        torch.manual_seed(json_seed(self.config.seed, self.epoch))
        loss = self._train_batches(np.random.default_rng([self.config.seed, self.epoch]))
        found = predict(self.model, self.data, "valid")
        valid = float(log_losses(found.labels, found.probabilities).mean()) if len(found.labels) else loss
        self.curves.epoch.append(self.epoch + 1)
        self.curves.train_loss.append(loss)
        self.curves.valid_log_loss.append(valid)
        better = valid < self.lowest or not len(found.labels)  # nothing to choose by: the last epoch stays
        self.waited = 0 if better else self.waited + 1
        if better:
            self.lowest, self.best = valid, self._weights()
        self.epoch += 1
        self._save()

    def _train_batches(self, rng: np.random.Generator) -> float:
        """Mean loss a target."""
        self.model.train()
        where, total = next(self.model.parameters()).device, self.steps * self.config.epochs
        summed, targets = 0.0, 0
        for batch in training_batches(self.data, self.model.config.max_history, self.config.batch_size, rng):
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * schedule(self.step, total, self.config.warmup)
            with autocast(where, self.config.precision):
                loss = self.model.loss(*(part.to(where) for part in batch[:3]))["loss"]
            count = int(batch.target_mask.sum())
            (loss * (count / self.targets)).backward()  # every action counts the same, as in `training`
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            summed, targets = summed + float(loss.detach()) * count, targets + count
        if not math.isfinite(summed):
            raise ValueError(
                f"the ranker's loss is {summed} in epoch {self.epoch + 1}; lower the learning rate."
            )
        return summed / targets

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}

    def _digest(self) -> str:
        """What a state must have been made from to be resumed."""
        columns = hashlib.sha256(self.model.sids.cpu().numpy().tobytes())
        for sequences in (self.data.uids, self.data.actions, self.data.parts):
            for sequence in sequences:
                columns.update(np.ascontiguousarray(sequence).tobytes() + b";")
        return json_digest([asdict(self.config), asdict(self.model.config), columns.hexdigest()])

    def _resume(self) -> None:
        if self.checkpoint is None:
            return
        found = load_training(self.checkpoint, self.model, self.optimizer, self.identity)
        if found is None:
            return
        self.best, state = found
        self.epoch, self.step, self.waited = (state[key] for key in ("epoch", "step", "waited"))
        self.curves = RankerCurves(**state["curves"])
        self.lowest = min(self.curves.valid_log_loss, default=math.inf)

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        state: dict[str, Any] = {"identity": self.identity, "curves": asdict(self.curves)}
        state.update(epoch=self.epoch, step=self.step, waited=self.waited)
        save_training(self.checkpoint, self.model, self.best, self.optimizer, state)


WEIGHT_USERS = 5000  # users the weight of P(liked) is chosen on


def fit_ranker(
    dataset: Dataset, bundle: Bundle, recipe: RankerRecipe, checkpoint: Path | None = None
) -> tuple[Bundle, RankerSummary]:
    """Add an action ranker to a bundle; returns the bundle and a summary of the training.

    Without actions, or if a ranker knows no more than the share of likes, the bundle gets none and the
    summary says why.

    Args:
        checkpoint: folder of the resumable state.

    Raises:
        ValueError: the recipe's `liked` is such that all training actions count as liked, or none.
    """
    liked = least_liked(dataset, recipe.liked)
    if isinstance(liked, str):
        return bundle, RankerSummary(trained=False, why=liked)
    sids, catalogue = tables(bundle.catalogue)[0], bundle.catalogue
    config = recipe.ranker(catalogue.size, bundle.codebook.n_levels, bundle.codebook.codebook_size, liked)
    data = action_histories(dataset.interactions, catalogue.uids, liked)
    torch.manual_seed(recipe.seed)
    model = ActionRanker(config, sids)
    curves = train_ranker(model, data, recipe.train_config(), checkpoint, "ranker by action")
    predictions = predict(model, data, "valid")
    metrics = action_metrics(predictions.labels, predictions.probabilities)
    reached, weight, why = metrics.normalised_entropy, None, ""
    if reached is None or reached >= 1:
        value = "is undefined" if reached is None else f"is {reached:.3f}"
        why = f"its normalised entropy on validation {value}: it beats no base rate, so it is left out."
    else:
        weight = _weight(replace(bundle, ranker=None), model, data)
    summary = RankerSummary(
        trained=weight is not None,
        why=why,
        liked=float(liked),
        architecture=config.architecture,
        epoch=tuple(curves.epoch),
        train_loss=tuple(curves.train_loss),
        valid_log_loss=tuple(curves.valid_log_loss),
        valid=metrics,
        weight=weight,
    )
    return replace(bundle, ranker=Reranker(model, weight) if weight is not None else None), summary


def _weight(bundle: Bundle, model: ActionRanker, data: ActionHistories) -> float:
    """The weight of log P(liked) that finds liked validation items best."""
    places = held_out(data, "valid")
    liked = liked_at(data, places)
    chosen = [place for place, good in zip(places, liked, strict=True) if good][:WEIGHT_USERS]
    return choose_weight(model, asked_before(Recommender(bundle), data, chosen), targets_of(data, chosen))


def least_liked(dataset: Dataset, wanted: float | None) -> float | str:
    """From which action on an interaction counts as liked, or why nothing can be learned from actions.

    Raises:
        ValueError: with the wanted value, all training actions count as liked, or none.
    """
    frame = dataset.interactions
    if "action" not in frame:
        return "the interactions have no actions."
    values = frame.loc[frame["split"] == "train", "action"].dropna().to_numpy(dtype=np.float64)
    if not len(values):
        return "no training interaction has an action."
    low, high = float(values.min()), float(values.max())
    if low == high:
        return f"all actions are {low:g}: nothing tells what is liked."
    if wanted is None:
        return float(values[values > (low + high) / 2].min())
    if not low < wanted <= high:
        raise ValueError(
            f"the ranker's setting 'liked' is {wanted:g}, but actions are {low:g} to {high:g}: no action, or "
            "every one, would count as liked."
        )
    return wanted
