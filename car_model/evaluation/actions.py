"""How good ranking by action is on the holdout: the part `action` of the gate's evidence."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from car_model.action_ranker.data import ActionHistories, action_histories
from car_model.action_ranker.rerank import Reranker, liked_metrics
from car_model.data.dataset import Dataset
from car_model.data.histories import MAX_HISTORY
from car_model.metrics.actions import action_metrics, entropy, log_losses
from car_model.metrics.ranking import ranks_of
from car_model.recommender.held_out_requests import asked_before, held_out, liked_at, targets_of
from car_model.recommender.recommender import Recommender
from car_model.training.train_ranker import Predictions, predict

RESAMPLES = 2000
USERS = 5000  # about so many are ranked for, one at a time
LATENCY_REQUESTS = 200


def action_evidence(
    dataset: Dataset, recommender: Recommender, told: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What the gate and the report say of ranking by action.

    `ranker` is there in every answer; where it is false, `why` says why there is none.

    Args:
        told: what training the ranker had to tell.
    """
    ranker = recommender.bundle.ranker
    if ranker is None:
        return {"ranker": False, "why": (told or {}).get("why", "the release has no ranker by action.")}
    task = ranker.model.config.tasks[0]
    data = action_histories(dataset.interactions, recommender.catalogue.uids, ranker.model.config.tasks)
    found = predict(ranker.model, data, "test")
    return {
        "ranker": True,
        "architecture": ranker.model.config.architecture,
        "liked": task.bounds[task.positive - 1],
        "weight": ranker.weight,
        "candidates": ranker.candidates,
        "actions": len(found.labels),
        "liked_share": float(found.labels.mean()) if len(found.labels) else None,
        **action_metrics(found.labels, found.probabilities),
        "normalised_entropy": normalised_entropy(found),
        "normalised_entropy_without_actions": normalised_entropy(predict(ranker.model, blind(data), "test")),
        "ndcg": ranked(recommender, ranker, data),
        "latency": latency(recommender, data),
    }


def normalised_entropy(found: Predictions) -> dict[str, float | None]:
    """Normalised entropy and its bootstrap interval (95 %) over test actions; None where only one class is.

    Each resample is held to its own share of likes.
    """
    losses, labels = log_losses(found.labels, found.probabilities), found.labels
    if not len(labels) or not 0 < labels.mean() < 1:
        return dict.fromkeys(("mean", "low", "high"))
    rng, drawn = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        at = rng.integers(0, len(labels), len(labels))
        base = entropy(float(labels[at].mean()))
        drawn.append(float(losses[at].mean()) / base if base else np.inf)
    low, high = np.quantile(drawn, [0.025, 0.975])
    mean = float(losses.mean()) / entropy(float(labels.mean()))
    bounds = {"mean": mean, "low": float(low), "high": float(high)}
    return {name: round(value, 6) if np.isfinite(value) else None for name, value in bounds.items()}


def blind(data: ActionHistories) -> ActionHistories:
    """The same histories with the actions before the test part unknown, as in requests without `actions`."""
    actions = [
        np.where((parts == 2)[:, None], did, 0) for parts, did in zip(data.parts, data.actions, strict=True)
    ]
    return ActionHistories(data.users, data.uids, actions, data.parts)


def ranked(recommender: Recommender, ranker: Reranker, data: ActionHistories) -> dict[str, Any]:
    """Metrics of test items that were liked and of others, ranked by relevance and by action."""
    places = held_out(data, "test")
    places = places[:: max(1, len(places) // USERS)]
    targets = targets_of(data, places)
    ranks: dict[str, list[float]] = {"relevance": [], "action": []}
    for one, target in zip(asked_before(recommender, data, places), targets, strict=True):
        for name, scores in (("relevance", one.scores), ("action", ranker.scores(one))):
            ranks[name].append(float(ranks_of(scores.numpy()[None], np.array([target]))[0]))
    liked = liked_at(data, places, ranker.model.config.tasks[0].positive)
    return liked_metrics({name: np.array(found) for name, found in ranks.items()}, liked)


def latency(recommender: Recommender, data: ActionHistories) -> dict[str, float]:
    """Milliseconds of an answer without reasons, by relevance and by action: medians, taken in turn."""
    items, places = recommender.catalogue.item_ids, held_out(data, "test")
    spent: dict[str, list[float]] = {"relevance": [], "action": []}
    for number in range(LATENCY_REQUESTS if places else 0):
        row, place = places[number % len(places)]
        history = [items[uid - 1] for uid in data.uids[row][:place][-MAX_HISTORY:]]
        for by, taken in spent.items():
            start = time.perf_counter()
            recommender.answer({"history": history, "k": 10, "explain": False, "rank_by": by})
            taken.append(1000 * (time.perf_counter() - start))
    return {f"{by}_p50_ms": round(float(np.median(taken)), 3) for by, taken in spent.items() if taken}
