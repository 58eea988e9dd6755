"""Train an action ranker and add it to a bundle, by the training loop of `training/trainer.py`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from car_model.action_ranker.data import (
    ActionHistories,
    Part,
    action_histories,
    scoring_batches,
    training_batches,
    training_lengths,
)
from car_model.action_ranker.model import LIKED, ActionRanker
from car_model.action_ranker.rerank import Reranker, choose_weight
from car_model.bundle import Bundle, tables
from car_model.data.dataset import Dataset
from car_model.evidence.training import RankerCurves, RankerSummary
from car_model.metrics.actions import action_metrics, log_losses
from car_model.recommender.held_out import held_out, score_before
from car_model.recommender.recommender import Recommender
from car_model.training.distributed import World
from car_model.training.onboard import extend_ranker, without_cold
from car_model.training.recipe import RankerRecipe, RecipeError
from car_model.training.trainer import Objective, Share, TrainConfig, run_training

SCORE_ROWS = 64  # windows scored at once
WEIGHT_USERS = 5000  # users the weight of P(liked) is chosen on


@dataclass(frozen=True)
class Predictions:
    """Predicted likes for every known action of a part."""

    labels: np.ndarray  # [n] 1 if the action counts as liked, else 0
    probabilities: np.ndarray  # [n] predicted
    rows: np.ndarray  # [n] whose history an action is of; they ascend, and within a history time does


def predict(model: ActionRanker, data: ActionHistories, part: Part) -> Predictions:
    """P(liked) at every known action of a part, from all interactions before it."""
    model.eval()
    device = next(model.parameters()).device
    columns = []  # of each batch: rows, indices in the history, labels, chances
    for batch in scoring_batches(data, part, model.config.max_history, SCORE_ROWS):
        with torch.inference_mode():
            probabilities = model.probabilities(batch.uids.to(device), batch.actions.to(device)).cpu()
        mask = batch.target_mask
        windows, index = (part.numpy() for part in mask.nonzero(as_tuple=True))
        labels, chances = batch.actions[mask].numpy() == LIKED, probabilities[mask].numpy()
        columns.append((batch.row[windows], batch.start[windows] + index, labels, chances))
    if not columns:
        return Predictions(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0, dtype=np.int64))
    rows, indices, labels, chances = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.lexsort((indices, rows))
    return Predictions(labels[order].astype(np.int64), chances[order].astype(np.float64), rows[order])


def train_ranker(
    model: ActionRanker,
    data: ActionHistories,
    config: TrainConfig,
    checkpoint: Path | None = None,
    name: str = "ranker",
) -> RankerCurves:
    """Train a ranker in place to the epoch of the lowest validation log loss; returns the curves.

    Arguments and errors are those of `trainer.train`.
    """
    curves = run_training(like_objective(model, data, config), config, checkpoint, name, World())
    return RankerCurves.model_validate({curve: tuple(values) for curve, values in curves.items()})


def like_objective(model: ActionRanker, data: ActionHistories, config: TrainConfig) -> Objective:
    """Prediction of likes. Raises ValueError if no action is known to learn from."""
    targets = sum(int(mask.sum()) for mask in data.targets("train"))
    if not targets:
        raise ValueError("no training interaction has an action; there is nothing to rank by.")
    max_history, by_length = model.config.max_history, config.batching == "length"
    windows = sum(math.ceil(length / max_history) for length in training_lengths(data))
    steps = math.ceil(windows / config.batch_size)
    content = hashlib.sha256(model.sids.cpu().numpy().tobytes())
    for sequences in (data.uids, data.actions, data.parts):
        for sequence in sequences:
            content.update(np.ascontiguousarray(sequence).tobytes() + b";")

    def shares(rng: np.random.Generator) -> Iterator[Share]:
        for batch in training_batches(data, max_history, config.batch_size, rng, by_length):
            n = int(batch.target_mask.sum())
            yield Share(batch[:3], n, n / (targets / steps))

    def validate() -> float:
        predictions = predict(model, data, "valid")
        losses = log_losses(predictions.labels, predictions.probabilities)
        return float(losses.mean()) if len(losses) else 0.0

    return Objective(
        model=model,
        shares=shares,
        steps_per_epoch=steps,
        validate=validate,
        metric="valid_log_loss",
        higher_is_better=False,
        has_validation=any(mask.any() for mask in data.targets("valid")),
        identity=[asdict(model.config), content.hexdigest()],
    )


def fit_ranker(
    dataset: Dataset, bundle: Bundle, recipe: RankerRecipe, checkpoint: Path | None = None
) -> tuple[Bundle, RankerSummary]:
    """Add an action ranker to a bundle; returns the bundle and a summary of the training.

    Without actions, or if a ranker knows no more than the share of likes, the bundle gets none and the
    summary says why. `checkpoint` is the folder of the resumable state. Raises RecipeError as `least_liked`.
    """
    liked = least_liked(dataset, recipe.liked)
    if isinstance(liked, str):
        return bundle, RankerSummary(trained=False, why=liked)
    trained = without_cold(bundle.catalogue, dataset)
    config = recipe.ranker(trained.size, bundle.codebook.n_levels, bundle.codebook.codebook_size, liked)
    training_data = action_histories(dataset.interactions, trained.uids, liked)
    torch.manual_seed(recipe.seed)
    model = ActionRanker(config, tables(trained)[0])
    curves = train_ranker(model, training_data, recipe, checkpoint, "ranker by action")
    model = extend_ranker(model, trained, bundle.catalogue)
    data = action_histories(dataset.interactions, bundle.catalogue.uids, liked)
    predictions = predict(model, data, "valid")
    metrics = action_metrics(predictions.labels, predictions.probabilities)
    reached, weight, why = metrics.normalised_entropy, None, ""
    if reached is None or reached >= 1:
        value = "is undefined" if reached is None else f"is {reached:.3f}"
        why = f"its normalised entropy on validation {value}: it beats no base rate, so it is left out."
    else:
        targets = held_out(data, "valid")
        liked_targets = targets.select(np.flatnonzero(targets.liked)[:WEIGHT_USERS])
        histories = score_before(Recommender(replace(bundle, ranker=None)), data, liked_targets)
        weight = choose_weight(model, histories, liked_targets.uids)
    summary = RankerSummary(
        trained=weight is not None,
        why=why,
        liked=float(liked),
        architecture=config.architecture,
        valid=metrics,
        weight=weight,
        **curves.model_dump(),
    )
    return replace(bundle, ranker=Reranker(model, weight) if weight is not None else None), summary


def least_liked(dataset: Dataset, liked: float | None) -> float | str:
    """From which action on an interaction counts as liked, or why nothing can be learned from actions.

    Raises RecipeError if from `liked` on all training actions count as liked, or none.
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
    if liked is None:
        return float(values[values > (low + high) / 2].min())
    if not low < liked <= high:
        raise RecipeError(
            f"the ranker's setting 'liked' is {liked:g}, but actions are {low:g} to {high:g}: no action, or "
            "every one, would count as liked."
        )
    return liked
