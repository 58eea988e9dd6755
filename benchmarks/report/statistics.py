"""Numbers over seeds and users: spreads, ranks in a compact form, paired intervals."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np

from car_model.evidence.evaluation import Metric
from car_model.metrics.ranking import interval, per_user

METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")
CUTOFF = 10
MISS = "."  # a rank beyond the cutoff
HALVES = "0123456789abcdefghijklmnop"  # twice the rank, less two: ranks are whole or half (ties)


def rank_string(ranks: np.ndarray) -> str:
    """One character a user: the rank of the test item up to 10 in halves, or a miss."""
    return "".join(HALVES[round(2 * rank - 2)] if rank <= CUTOFF else MISS for rank in ranks)


def parse_ranks(text: str) -> np.ndarray:
    """The inverse of `rank_string`, [users]; a miss is infinity."""
    return np.array([np.inf if sign == MISS else HALVES.index(sign) / 2 + 1 for sign in text])


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds."""
    return f"{mean(values):.4f} ± {stdev(values):.4f}" if len(values) > 1 else f"{mean(values):.4f}"


def best_valid(run: dict[str, Any]) -> float:
    """Validation NDCG@10 of the epoch that was kept; 0 of a model that is not trained."""
    return float(max(run["valid_ndcg@10"], default=0.0))


def compared(ours: Sequence[str], theirs: Sequence[str], metric: Metric) -> tuple[float, float, float]:
    """Our metric relative to theirs, with a paired 95 % bootstrap interval over users.

    Args:
        ours, theirs: a rank string each seed; a user's metric is the mean over the seeds.

    Returns:
        difference, lower and upper end, as shares of their mean.
    """
    mine, other = (
        np.mean([per_user(parse_ranks(text))[metric] for text in runs], axis=0) for runs in (ours, theirs)
    )
    low, high = interval(mine - other)
    return tuple(float(value / other.mean()) for value in ((mine - other).mean(), low, high))  # type: ignore[return-value]
