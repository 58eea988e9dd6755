"""How far a dataset has moved from production's, as numbers: the gate's `drift` evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import rel_entr

from validation.data_profile import DataProfile

COUNTS = ("interactions", "users", "items")
Figures = dict[str, Any]


def measure_drift(now: DataProfile, before: DataProfile, shares: Mapping[str, float]) -> Figures:
    """The figures of drift, plain JSON values. A number that can't be told is null, which no gate passes.

    Args:
        shares: each item's share of today's interactions.

    Returns:
        `interactions`, `users`, `items`, `median_interactions`: `now`, `before` and their `ratio`;
        `action`: the mean's `shift` in production's standard deviations; `newest`: `days_back` of the newest
        interaction against production's; `activity` (users by number of interactions) and `popularity`
        (production's most popular items and all others): Jensen-Shannon `distance` of the distributions, 0
        (equal) to 1 (nothing in common); of `popularity` also what the popular items keep of their share, a
        `ratio`. Null: actions or timestamps that were lost, and what a production's profile without
        distributions can't tell.
    """
    return {
        **{name: _change(getattr(now, name), getattr(before, name)) for name in COUNTS},
        "median_interactions": _change(now.median_interactions, before.median_interactions),
        "action": _action(now, before),
        "newest": _newest(now, before),
        "activity": _activity(now, before),
        "popularity": _popularity(before, shares),
    }


def js_distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Jensen-Shannon distance (base 2) of two distributions over the same places; the shorter ends in zeros.

    Unlike the population stability index it is finite where a place is empty. Where distributions are close,
    an index of 0.1 is a distance of 0.13, and one of 0.25 a distance of 0.21.
    """
    both = np.zeros((2, max(len(one), len(other))))
    both[0, : len(one)], both[1, : len(other)] = one, other
    both /= both.sum(axis=1, keepdims=True)
    divergence = rel_entr(both, both.mean(axis=0)).sum() / (2 * np.log(2))
    return round(float(np.sqrt(np.clip(divergence, 0.0, 1.0))), 6)  # rounding may leave a hair below zero


def _change(now: float, before: float) -> Figures:
    return {"now": now, "before": before, "ratio": round(now / before, 6)}


def _action(now: DataProfile, before: DataProfile) -> Figures:
    new, old = now.action, before.action
    told = {"now": new.mean if new else None, "before": old.mean if old else None}
    if old is None:
        return {**told, "std": None, "shift": 0.0}  # production had none that could have moved
    shift = None
    if new and (old.std or new.mean == old.mean):
        shift = round(abs(new.mean - old.mean) / old.std, 6) if old.std else 0.0
    return {**told, "std": old.std, "shift": shift}


def _newest(now: DataProfile, before: DataProfile) -> Figures:
    new, old = now.last, before.last
    told = {"now": new.isoformat() if new else None, "before": old.isoformat() if old else None}
    if old is None:
        return {**told, "days_back": 0.0}  # production was ordered by position alone
    return {**told, "days_back": round((old - new).total_seconds() / 86400, 6) if new else None}


def _activity(now: DataProfile, before: DataProfile) -> Figures:
    known = now.activity is not None and before.activity is not None
    return {
        "now": now.activity,
        "before": before.activity,
        "distance": js_distance(now.activity or (), before.activity or ()) if known else None,
    }


def _popularity(before: DataProfile, shares: Mapping[str, float]) -> Figures:
    """Places are production's most popular items, those that rose among them since, and all others.

    What is not told apart can only make the distance smaller than it is among all items, never greater; the
    same holds for the share that the risen had, which is taken to be as near to today's as it can have been.
    """
    if before.popular is None:
        return {"items": None, "now": None, "before": None, "ratio": None, "risen": None, "distance": None}
    old, new = list(before.popular.values()), [shares.get(item, 0.0) for item in before.popular]
    others = [max(0.0, 1.0 - sum(part)) for part in (old, new)]
    risen = [share for item, share in shares.items() if share > min(old) and item not in before.popular]
    now = min(sum(risen), others[1])
    most = min(len(risen) * min(old), others[0] * now / others[1]) if others[1] else 0.0
    return {
        "items": len(old),
        "now": round(sum(new), 6),
        "before": round(sum(old), 6),
        "ratio": round(sum(new) / sum(old), 6) if sum(old) else None,
        "risen": {"items": len(risen), "now": round(now, 6), "before_at_most": round(most, 6)},
        "distance": js_distance([*old, most, others[0] - most], [*new, now, others[1] - now]),
    }
