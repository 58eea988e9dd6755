"""Train a ranker by action for a bundle, where there are actions to learn from and it learns something."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from car_model.action_metrics import action_metrics
from car_model.bundle import Bundle, tables
from car_model.dataset import Dataset
from car_model.ranking import ActionRanker
from car_model.ranking_asked import asked_before, held_out, liked_at, targets_of
from car_model.ranking_data import ActionHistories, action_histories
from car_model.ranking_recipe import RankerRecipe
from car_model.ranking_training import predict, train_ranker
from car_model.recommend import Recommender
from car_model.rerank import Reranker, choose_weight

WEIGHT_USERS = 5000  # users the weight of P(liked) is chosen on


def fit_ranker(
    dataset: Dataset, bundle: Bundle, recipe: RankerRecipe, checkpoint: Path | None = None
) -> tuple[Bundle, dict[str, Any]]:
    """Add a ranker by action to a bundle; returns it and what there is to tell.

    Without actions, or where a ranker knows no more than the share of likes, the bundle stays as it is and
    `why` says so. `trained` is in every answer; of a ranker it comes with settings, curves and validation.

    Args:
        checkpoint: folder of the resumable state.

    Raises:
        ValueError: the recipe's `liked` is such that all training actions count as liked, or none.
    """
    liked = least_liked(dataset, recipe.liked)
    if isinstance(liked, str):
        return bundle, {"trained": False, "why": liked}
    sids, catalogue = tables(bundle.catalogue)[0], bundle.catalogue
    config = recipe.ranker(catalogue.size, bundle.codebook.levels, bundle.codebook.codes, liked)
    data = action_histories(dataset.interactions, catalogue.uids, config.tasks)
    torch.manual_seed(recipe.seed)
    model = ActionRanker(config, sids)
    curves = train_ranker(model, data, recipe.budget(), checkpoint, "ranker by action")
    found = predict(model, data, "valid")
    told: dict[str, Any] = {"liked": liked, "architecture": config.architecture, **asdict(curves)}
    told["valid"] = action_metrics(found.labels, found.probabilities)
    reached = told["valid"]["normalised_entropy"]
    if reached is None or reached >= 1:
        said = "can't be told" if reached is None else f"is {reached:.3f}"
        why = f"its normalised entropy on validation {said}: it beats no base rate, so it is left out."
        return replace(bundle, ranker=None), {"trained": False, "why": why, **told}
    weight = _weight(replace(bundle, ranker=None), model, data)
    return replace(bundle, ranker=Reranker(model, weight)), {"trained": True, "weight": weight, **told}


def _weight(bundle: Bundle, model: ActionRanker, data: ActionHistories) -> float:
    """The weight of log P(liked) that finds liked validation items best."""
    places = held_out(data, "valid")
    liked = liked_at(data, places, model.config.tasks[0].positive)
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
