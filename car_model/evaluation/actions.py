"""How good ranking by action is on the holdout: part `action` of the evaluation."""

from __future__ import annotations

import time

import numpy as np

from car_model.action_ranker.data import ActionHistories, action_histories
from car_model.action_ranker.rerank import Reranker
from car_model.data.dataset import Dataset
from car_model.evidence.evaluation import (
    ActionLatency,
    ActionRankerEvidence,
    EntropyInterval,
    LikedAndDisliked,
    RankedBothWays,
)
from car_model.metrics.actions import action_metrics, entropy, log_losses
from car_model.metrics.ranking import RESAMPLES, TAIL, paired, ranks_of, summary
from car_model.recommender.held_out import held_out, score_before
from car_model.recommender.recommender import Recommender
from car_model.training.train_ranker import Predictions, predict
from common.limits import MAX_HISTORY

USERS = 5000  # at most about so many are ranked for, one at a time
LATENCY_REQUESTS = 200


def evaluate_action_ranker(dataset: Dataset, recommender: Recommender) -> ActionRankerEvidence | None:
    """Predicted likes on test actions, and rankings by action of test items; None without a ranker."""
    ranker = recommender.bundle.ranker
    if ranker is None:
        return None
    data = action_histories(dataset.interactions, recommender.catalogue.uids, ranker.model.config.liked)
    predictions = predict(ranker.model, data, "test")
    without_actions = predict(ranker.model, hide_past_actions(data), "test")
    labels = predictions.labels
    metrics = action_metrics(labels, predictions.probabilities)
    return ActionRankerEvidence(
        architecture=ranker.model.config.architecture,
        liked=ranker.model.config.liked,
        weight=float(ranker.weight),
        candidates=ranker.candidates,
        actions=len(labels),
        liked_share=float(labels.mean()) if len(labels) else None,
        log_loss=metrics.log_loss,
        auc=metrics.auc,
        ece=metrics.ece,
        normalised_entropy=normalised_entropy(predictions),
        normalised_entropy_without_actions=normalised_entropy(without_actions),
        ndcg=rank_both_ways(recommender, ranker, data),
        latency=latency(recommender, data),
    )


def normalised_entropy(predictions: Predictions) -> EntropyInterval:
    """Normalised entropy over test actions and its 95 % interval; None if only one class occurs.

    As in `car_model.metrics.ranking.interval`, actions get random weights, and so does one more: a rare one
    that costs nothing for the lower end, a common one with the largest possible loss for the upper.
    """
    labels, chances = predictions.labels, predictions.probabilities
    if not len(labels) or not 0 < labels.mean() < 1:
        return EntropyInterval(mean=None, low=None, high=None)
    losses, rate = log_losses(labels, chances), float(labels.mean())
    largest = max(float(log_losses(np.full(len(labels), label), chances).max()) for label in (0, 1))
    rng, lows, highs = np.random.default_rng(0), [], []
    for one_more in rng.standard_exponential(RESAMPLES):
        weights = rng.standard_exponential(len(labels))
        total, loss, likes = weights.sum() + one_more, float(weights @ losses), float(weights @ labels)
        like, dislike = (entropy((likes + one_more * label) / total) for label in (1, 0))
        common, rare = (like, dislike) if rate >= 0.5 else (dislike, like)
        lows.append(loss / total / rare)
        highs.append((loss + one_more * largest) / total / common)
    low, high = np.sort(lows)[TAIL - 1], np.sort(highs)[-TAIL]
    mean = float(losses.mean()) / entropy(rate)
    return EntropyInterval(mean=round(mean, 6), low=round(float(low), 6), high=round(float(high), 6))


def hide_past_actions(data: ActionHistories) -> ActionHistories:
    """The same histories with all actions before the test part unknown, as in requests without `actions`."""
    actions = [np.where(parts == 2, known, 0) for parts, known in zip(data.parts, data.actions, strict=True)]
    return ActionHistories(data.users, data.uids, actions, data.parts)


def rank_both_ways(recommender: Recommender, ranker: Reranker, data: ActionHistories) -> LikedAndDisliked:
    """Rank test items by relevance and by action, for about `USERS` users, evenly spread."""
    targets = held_out(data, "test")
    targets = targets.select(slice(None, None, max(1, len(targets.rows) // USERS)))
    relevance, action = [], []
    for history, uid in zip(score_before(recommender, data, targets), targets.uids, strict=True):
        target = np.array([uid])
        relevance.append(float(ranks_of(history.scores[None], target)[0]))
        action.append(float(ranks_of(ranker.scores(history)[None], target)[0]))
    return compare_by_liking(np.array(relevance), np.array(action), targets.liked)


def compare_by_liking(relevance: np.ndarray, action: np.ndarray, liked: np.ndarray) -> LikedAndDisliked:
    """Ranking metrics by relevance and by action, of users who liked their test item and of the others.

    Arrays are [users]: ranks of their test items, and whether they liked these. Only a liked item is relevant
    *and* good; the others should be found *less* often when ranked by action.
    """
    halves = [
        RankedBothWays(
            users=int(part.sum()),
            relevance=summary(relevance[part]),
            action=summary(action[part]),
            paired=paired(action[part], relevance[part]),
        )
        for part in (liked, ~liked)
    ]
    return LikedAndDisliked(liked=halves[0], disliked=halves[1])


def latency(recommender: Recommender, data: ActionHistories) -> ActionLatency:
    """Median time of an answer without reasons, by relevance and by action, measured in turn."""
    items, targets = recommender.catalogue.item_ids, held_out(data, "test")
    if not len(targets.rows):
        return ActionLatency()
    times: dict[str, list[float]] = {"relevance": [], "action": []}  # milliseconds
    for number in range(LATENCY_REQUESTS):
        row, index = (column[number % len(targets.rows)] for column in (targets.rows, targets.indices))
        history = [items[uid - 1] for uid in data.uids[row][:index][-MAX_HISTORY:]]
        for rank_by, spent in times.items():
            start = time.perf_counter()
            recommender.recommend({"history": history, "k": 10, "explain": False, "rank_by": rank_by})
            spent.append(1000 * (time.perf_counter() - start))
    relevance, action = (round(float(np.median(spent)), 3) for spent in times.values())
    return ActionLatency(relevance_p50_ms=relevance, action_p50_ms=action)
