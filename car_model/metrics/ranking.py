"""Per-user ranking metrics, their intervals, and paired comparisons.

Every metric is a mean over users of a function of one rank (leave-one-out: one relevant item), from 0 to 1.
Intervals use these limits: unlike a percentile bootstrap's, they hold for small holdouts and few hits too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from car_model.evidence.evaluation import (
    Difference,
    Interval,
    Metric,
    MetricDifferences,
    MetricIntervals,
)

CUTOFFS = (5, 10)
RESAMPLES = 3999
TAIL = round(
    0.025 * (RESAMPLES + 1)
)  # as many resampled means lie at or beyond each end of an interval (95 %)
UNRANKED = np.inf


@torch.inference_mode()
def ranks_of(scores: np.ndarray | Tensor, targets: np.ndarray) -> np.ndarray:
    """Rank from 1 of each row's target among the row's scores; of a tensor, only the ranks leave its device.

    Args:
        scores: [B, N]; -inf marks what must not be ranked.
        targets: [B] column of the target.

    Returns:
        [B] float. Items that tie with the target count half, so that no order of ids can help. The rank is
        infinite if the target must not be ranked, or if the row holds NaN: a model whose scores are not
        numbers must not win.
    """
    scores = torch.as_tensor(scores)
    target_scores = scores.gather(1, torch.from_numpy(targets).long().to(scores.device).unsqueeze(1))
    above = (scores > target_scores).sum(dim=1)
    equal = (scores == target_scores).sum(dim=1) - 1
    unranked = target_scores[:, 0].isneginf() | scores.isnan().any(dim=1)
    return (1 + above + equal.double() / 2).masked_fill_(unranked, UNRANKED).cpu().numpy()


@torch.inference_mode()
def mask_histories(scores: Tensor, histories: Sequence[np.ndarray], value: float = -torch.inf) -> Tensor:
    """Scores [B, N + 1] with the items of each row's history of UIDs set to a value, in place."""
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    columns = np.concatenate(histories)
    indices = (torch.from_numpy(part).long().to(scores.device) for part in (rows, columns))
    return scores.index_put_(tuple(indices), scores.new_tensor(value))


def per_user(ranks: np.ndarray) -> dict[Metric, np.ndarray]:
    """Recall@k and NDCG@k of each user, [users] each; with one relevant item NDCG is 1 / log2(rank + 1)."""
    gain = np.divide(1.0, np.log2(ranks + 1), out=np.zeros_like(ranks, dtype=float), where=np.isfinite(ranks))
    metrics: dict[Metric, np.ndarray] = {}
    for k in CUTOFFS:
        hit = ranks <= k
        metrics[cast(Metric, f"recall@{k}")] = hit.astype(float)
        metrics[cast(Metric, f"ndcg@{k}")] = np.where(hit, gain, 0.0)
    return metrics


def interval(values: np.ndarray, lowest: float = 0.0, highest: float = 1.0) -> tuple[float, float]:
    """95 % interval of a mean over users whose values lie in `lowest..highest`; NaN if there are no users.

    Gaffke's bounds (Learned-Miller and Thomas 2020, "A New Confidence Interval for the Mean of a Bounded
    Random Variable"): users get random weights, as in a Bayesian bootstrap, and so does one more user, with
    the lowest value for the lower end and the highest for the upper. Of shares this is the exact interval
    (Clopper and Pearson's); of one user, or of users who are all equal, it is wide.
    """
    if not len(values):
        return np.nan, np.nan
    sums, totals, one_more = _weigh(values[:, None])
    low, high = ((sums[:, 0] + one_more * end) / (totals + one_more) for end in (lowest, highest))
    return _ends(low, high)


def summary(ranks: np.ndarray) -> MetricIntervals:
    """Mean and interval of every metric."""
    intervals = {}
    for name, values in per_user(ranks).items():
        low, high = interval(values)
        mean = values.mean() if len(values) else np.nan
        intervals[name] = Interval(mean=_rounded(mean), low=_rounded(low), high=_rounded(high))
    return intervals


def paired(ours: np.ndarray, theirs: np.ndarray) -> MetricDifferences:
    """Metrics of our ranks minus those of theirs, user by user, with intervals, absolute and relative.

    Relative numbers are None if their mean is zero; all are None without users, which fails the gate.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"paired comparison needs the same users: {ours.shape} against {theirs.shape}.")
    our_values, their_values = per_user(ours), per_user(theirs)
    return {name: difference(values, their_values[name]) for name, values in our_values.items()}


def difference(ours: np.ndarray, theirs: np.ndarray) -> Difference:
    """Mean difference of values from 0 to 1, user by user, with Gaffke's intervals; see `interval`.

    The user who is added is the worst one for us (0 against 1) for the lower ends, the best for the upper.
    """
    fields = ("difference", "low", "high", "relative", "relative_low", "relative_high")
    numbers = np.full(len(fields), np.nan)
    if len(ours):
        sums, totals, one_more = _weigh(np.stack([ours, theirs], axis=1))
        worse, better = (sums[:, 0] - sums[:, 1] + sign * one_more for sign in (-1, 1))
        mean, base = (ours - theirs).mean(), theirs.mean()
        numbers[:3] = mean, *_ends(worse / (totals + one_more), better / (totals + one_more))
        if base > 0:
            numbers[3:] = mean / base, *_ends(worse / (sums[:, 1] + one_more), better / sums[:, 1])
    return Difference(**dict(zip(fields, map(_rounded, numbers), strict=True)))


def _weigh(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of values [users, C] under random weights [R, C], the weights' totals [R], and one more [R]."""
    distinct, counts = np.unique(values, axis=0, return_counts=True)  # equal users share one weight
    rng = np.random.default_rng(0)
    one_more, sums, totals = rng.standard_exponential(RESAMPLES), [], []
    for part in np.array_split(one_more, 1 + RESAMPLES * len(counts) // 4_000_000):
        weights = rng.standard_gamma(counts, (len(part), len(counts)))
        sums.append(weights @ distinct)
        totals.append(weights.sum(axis=1))
    return np.concatenate(sums), np.concatenate(totals), one_more


def _ends(low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    return float(np.sort(low)[TAIL - 1]), float(np.sort(high)[-TAIL])


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
