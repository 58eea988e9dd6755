"""Ranking metrics a user, their intervals, and paired comparisons.

Every metric is a mean over users of a function of one rank (leave-one-out: one relevant item), so that a
paired bootstrap resamples users, and both models on the same users.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap
from torch import Tensor

CUTOFFS = (5, 10)
RESAMPLES = 2000
CONFIDENCE = 0.95
UNRANKED = np.inf


def ranks_of(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Rank from 1 of each row's target among the row's scores.

    Args:
        scores: [B, N]; -inf marks what must not be ranked.
        targets: [B] column of the target.

    Returns:
        [B] float; items that tie with the target count half, so that no order of ids can help. A target
        that must not be ranked gets infinity, and so does every target of a row that holds NaN: a model
        whose scores are not numbers must not win.
    """
    wanted = scores[np.arange(len(scores)), targets][:, None]
    above = (scores > wanted).sum(axis=1)
    equal = (scores == wanted).sum(axis=1) - 1
    barred = np.isneginf(wanted[:, 0]) | np.isnan(scores).any(axis=1)
    return np.where(barred, UNRANKED, 1 + above + equal / 2)


def per_user(ranks: np.ndarray) -> dict[str, np.ndarray]:
    """Recall@k and NDCG@k of each user, [users] each; with one relevant item NDCG is 1 / log2(rank + 1)."""
    gain = np.divide(1.0, np.log2(ranks + 1), out=np.zeros_like(ranks, dtype=float), where=np.isfinite(ranks))
    found: dict[str, np.ndarray] = {}
    for k in CUTOFFS:
        hit = ranks <= k
        found[f"recall@{k}"] = hit.astype(float)
        found[f"ndcg@{k}"] = np.where(hit, gain, 0.0)
    return found


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval (95 %) of a mean over users; NaN of nobody."""
    if len(values) < 2 or np.ptp(values) == 0:
        mean = _mean(values)
        return mean, mean
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, 4_000_000 // len(values)),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def summary(ranks: np.ndarray) -> dict[str, dict[str, float]]:
    """Mean and interval of every metric; None without users."""
    return {
        name: _rounded({"mean": _mean(values), **_bounds(values)}) for name, values in per_user(ranks).items()
    }


def paired(ours: np.ndarray, theirs: np.ndarray) -> dict[str, dict[str, Any]]:
    """Our metric minus theirs, user by user, with intervals, absolute and relative to their mean.

    Args:
        ours, theirs: ranks of the same users, [users].

    Returns:
        by metric: `difference`, `low`, `high`, and `relative`, `relative_low`, `relative_high`, which are
        None where their mean is zero; all are None without users (a gate on a missing number fails).
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"paired comparison needs the same users: {ours.shape} against {theirs.shape}.")
    mine, other = per_user(ours), per_user(theirs)
    found = {}
    for name, values in mine.items():
        difference = values - other[name]
        absolute = {"difference": _mean(difference), **_bounds(difference)}
        base = _mean(other[name])
        keys = (("relative", "difference"), ("relative_low", "low"), ("relative_high", "high"))
        found[name] = _rounded(
            {**absolute, **{new: absolute[old] / base if base > 0 else None for new, old in keys}}
        )
    return found


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def _bounds(values: np.ndarray) -> dict[str, float]:
    low, high = interval(values)
    return {"low": low, "high": high}


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if value is None or np.isnan(value) else round(float(value), 6)
        for name, value in values.items()
    }


@torch.inference_mode()
def mask_histories(scores: Tensor, histories: Sequence[np.ndarray], value: float = -torch.inf) -> Tensor:
    """Scores [B, N + 1] with the items of each row's history of UIDs set to a value, in place."""
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    columns = np.concatenate(histories)
    where = (torch.from_numpy(part).long().to(scores.device) for part in (rows, columns))
    return scores.index_put_(tuple(where), scores.new_tensor(value))


@torch.inference_mode()
def device_ranks(scores: Tensor, targets: np.ndarray) -> np.ndarray:
    """`metrics.ranks_of` of scores [B, N] on their device; only the ranks [B] leave it."""
    wanted = scores.gather(1, torch.from_numpy(targets).long().to(scores.device).unsqueeze(1))
    above = (scores > wanted).sum(dim=1)
    equal = (scores == wanted).sum(dim=1) - 1
    barred = wanted[:, 0].isneginf() | scores.isnan().any(dim=1)
    ranks = (1 + above + equal.double() / 2).masked_fill_(barred, UNRANKED)
    return ranks.cpu().numpy()
