"""Per-user ranking metrics, their intervals, and paired comparisons.

Every metric is a mean over users of a function of one rank (leave-one-out: one relevant item), so that a
paired bootstrap resamples users, and the same users for both models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from scipy.stats import bootstrap
from torch import Tensor

from car_model.evidence.evaluation import Difference, Interval, Metric, MetricDifferences, MetricIntervals

CUTOFFS = (5, 10)
RESAMPLES = 2000
CONFIDENCE = 0.95
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


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval (95 %) of a mean over users; NaN if there are none."""
    if len(values) < 2 or np.ptp(values) == 0:
        mean = _mean(values)
        return mean, mean
    bounds = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, 4_000_000 // len(values)),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(bounds.low), float(bounds.high)


def summary(ranks: np.ndarray) -> MetricIntervals:
    """Mean and interval of every metric."""
    intervals = {}
    for name, values in per_user(ranks).items():
        low, high = interval(values)
        intervals[name] = Interval(mean=_rounded(_mean(values)), low=_rounded(low), high=_rounded(high))
    return intervals


def paired(ours: np.ndarray, theirs: np.ndarray) -> MetricDifferences:
    """Metrics of our ranks minus those of theirs, user by user, with intervals, absolute and relative.

    Relative numbers are None if their mean is zero; all are None without users, which fails the gate.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"paired comparison needs the same users: {ours.shape} against {theirs.shape}.")
    our_values, their_values = per_user(ours), per_user(theirs)
    differences = {}
    for name, values in our_values.items():
        difference, base = values - their_values[name], _mean(their_values[name])
        mean, (low, high) = _mean(difference), interval(difference)
        relative = [number / base if base > 0 else np.nan for number in (mean, low, high)]
        fields = ("difference", "low", "high", "relative", "relative_low", "relative_high")
        numbers = map(_rounded, (mean, low, high, *relative))
        differences[name] = Difference(**dict(zip(fields, numbers, strict=True)))
    return differences


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
