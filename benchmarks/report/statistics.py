"""Statistics over seeds and users: spreads, compact rank strings, paired intervals."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev

import numpy as np

from car_model.evidence.evaluation import Metric
from car_model.metrics.ranking import difference, per_user

CUTOFF = 10
MISS = "."  # a rank beyond the cutoff
HALF_RANKS = "0123456789abcdefghijklmnop"  # 2 * rank - 2 as a digit: ranks are whole or half (ties)


def rank_string(ranks: np.ndarray) -> str:
    """One character per user: the rank of the test item up to 10 in steps of a half, or a miss."""
    return "".join(HALF_RANKS[round(2 * rank - 2)] if rank <= CUTOFF else MISS for rank in ranks)


def parse_ranks(text: str) -> np.ndarray:
    """Inverse of `rank_string`: [users] ranks; a miss is infinity."""
    return np.array([np.inf if sign == MISS else HALF_RANKS.index(sign) / 2 + 1 for sign in text])


def mean_and_deviation(values: Sequence[float], form: str = "{:.4f}") -> str:
    """`mean ± standard deviation` over seeds; the mean alone if there is one seed."""
    deviation = f" ± {form.format(stdev(values)).lstrip('+')}" if len(values) > 1 else ""
    return form.format(mean(values)) + deviation


def mean_and_range(values: Sequence[float]) -> str:
    """`mean (min-max)` over seeds; the mean alone if there is one seed."""
    extremes = f" ({min(values):.4f}-{max(values):.4f})" if len(values) > 1 else ""
    return f"{mean(values):.4f}{extremes}"


def relative_difference(
    ranks: Sequence[str], other_ranks: Sequence[str], metric: Metric
) -> tuple[float, float, float]:
    """A metric relative to another model's, with a paired 95 % interval over users.

    Args:
        ranks, other_ranks: a rank string per seed; a user's metric is the mean over the seeds.
        metric: a name of `per_user`, such as `ndcg@10`.

    Returns:
        difference, lower and upper bound, as shares of the other model's mean.
    """
    values, other = (
        np.mean([per_user(parse_ranks(text))[metric] for text in strings], axis=0)
        for strings in (ranks, other_ranks)
    )
    numbers = difference(values, other)
    if numbers.relative is None or numbers.relative_low is None or numbers.relative_high is None:
        raise ValueError(f"the other model's {metric} is 0: nothing is relative to it.")
    return numbers.relative, numbers.relative_low, numbers.relative_high
