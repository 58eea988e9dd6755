"""Drift as findings: what moved further from production's data than a run's policy allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pydantic
from scipy.special import rel_entr

from validation.data.findings import Finding
from validation.data.policy import DriftPolicy
from validation.data.profile import DataProfile

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


REMEDY = (
    "check the source for missing or doubled data, or widen the drift policy if the change is meant "
    "(and the gate's, which judges the same figures)"
)
SPREADS = {"activity": "interactions over users", "popularity": "interactions over items"}


def compare_profiles(
    now: DataProfile, previous: Mapping[str, Any], policy: DriftPolicy, shares: Mapping[str, float]
) -> tuple[list[Finding], Figures]:
    """Compare with production's data_profile.json; one that cannot be read is a finding that stops the run.

    Args:
        shares: each item's share of today's interactions.

    Returns:
        The findings, and the figures they rest on (see `measure_drift`; empty where there are none).
    """
    try:
        before = DataProfile.model_validate(previous)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        problem = (
            f"Production's data profile cannot be read ({'.'.join(map(str, first['loc']))}: {first['msg']}); "
            "drift cannot be judged, so take the profile from the production release again."
        )
        return [Finding("", "", "Production's data profile is readable.", False, "unreadable", problem)], {}
    figures = measure_drift(now, before, shares)
    findings = [
        *(_ratio(name, figures[name], policy) for name in COUNTS),
        _median(figures["median_interactions"], policy),
        *_actions(now, before, figures["action"]["shift"], policy),
        *_times(now, before, figures["newest"]["days_back"], policy),
        *_spreads(figures, policy),
    ]
    return findings, figures


def _finding(expects: str, ok: bool, observed: str, broken: str, policy: DriftPolicy) -> Finding:
    problem = "" if ok else f"Drift against production: {broken}; {REMEDY}."
    return Finding("", "", expects, ok, observed, problem, policy.severity, "drift")


def _ratio(name: str, figure: Figures, policy: DriftPolicy) -> Finding:
    new, old = figure["now"], figure["before"]
    ratio = new / old  # unrounded: bounds are inclusive
    allowed = f"{policy.min_ratio:g} to {policy.max_ratio:g} times production's"
    return _finding(
        f"The number of {name} is {allowed}.",
        policy.min_ratio <= ratio <= policy.max_ratio,
        f"{new:,} ({ratio:.2f} times {old:,})",
        f"{new:,} {name} are {ratio:.2g} times production's {old:,} (allowed {allowed})",
        policy,
    )


def _median(figure: Figures, policy: DriftPolicy) -> Finding:
    new, old = figure["now"], figure["before"]
    return _finding(
        f"The median of interactions per user differs at most {policy.max_median_ratio:g} times.",
        max(new, old) <= policy.max_median_ratio * min(new, old),
        f"{new:g} (production {old:g})",
        f"the median user has {new:g} interactions, production's had {old:g}",
        policy,
    )


def _actions(
    now: DataProfile, before: DataProfile, shift: float | None, policy: DriftPolicy
) -> Iterator[Finding]:
    if before.action is None:
        return
    expects = f"The mean action moves at most {policy.max_action_shift:g} standard deviations."
    if now.action is None:
        yield _finding(expects, False, "no actions", "no interaction has an action, production's had", policy)
        return
    yield _finding(
        expects,
        shift is not None and shift <= policy.max_action_shift,
        f"{now.action.mean:.3g} (production {before.action.mean:.3g} ± {before.action.std:.2g})",
        f"the mean action is {now.action.mean:.3g}, production's was {before.action.mean:.3g} "
        f"± {before.action.std:.2g}",
        policy,
    )


def _times(
    now: DataProfile, before: DataProfile, days: float | None, policy: DriftPolicy
) -> Iterator[Finding]:
    if before.last is None:
        return
    expects = f"The newest interaction is at most {policy.max_days_back:g} days older than production's."
    if now.last is None or days is None:
        yield _finding(expects, False, "no timestamps", "interactions have lost their timestamps", policy)
        return
    yield _finding(
        expects,
        days <= policy.max_days_back,
        f"{now.last:%Y-%m-%d} (production {before.last:%Y-%m-%d})",
        f"the newest interaction is from {now.last:%Y-%m-%d}, {days:.0f} days before production's",
        policy,
    )


def _spreads(figures: Figures, policy: DriftPolicy) -> Iterator[Finding]:
    """The distributions; a production whose profile is too old to have any gives a warning."""
    if figures["activity"]["distance"] is None:
        problem = (
            "Production's data profile is of an older format, without distributions: how interactions spread "
            "over users and items cannot be compared, and a gate policy that asks for it will not pass."
        )
        yield Finding(
            "", "", "Production's profile has distributions.", False, "format 1", problem, "warn", "drift"
        )
        return
    share = figures["popularity"]
    ratio = share["ratio"]
    yield _finding(
        f"Production's most popular items keep at least {policy.min_popular_ratio:.0%} of their share.",
        ratio is not None and ratio >= policy.min_popular_ratio,
        f"{share['now']:.1%} (production {share['before']:.1%})",
        f"production's {share['items']} most popular items had {share['before']:.1%} of the interactions and "
        f"have {share['now']:.1%} (were items lost, or their ids given out anew?)",
        policy,
    )
    for name, spread in SPREADS.items():
        distance = figures[name]["distance"]
        yield _finding(
            f"The spread of {spread} is within a Jensen-Shannon distance of {policy.max_distance:g}.",
            distance <= policy.max_distance,
            f"{distance:.3f}",
            f"the spread of {spread} is {distance:.2g} from production's (0: equal, 1: nothing in common)",
            policy,
        )
