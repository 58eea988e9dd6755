"""Profile a dataset; how far it moved from production's, and what moved further than the policy allows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import pandas as pd
import pydantic
from scipy.special import rel_entr

from car_model.evidence.data_profile import QUANTILES, ActionProfile, DataProfile
from car_model.evidence.drift import (
    ActionShift,
    ActivityChange,
    CountChange,
    DataDrift,
    NewestInteraction,
    PopularityChange,
    RetiredItems,
    RisenItems,
)
from common.errors import first_problem
from validation.data.findings import Finding
from validation.data.policy import POLICY, DriftPolicy

POPULAR = 100  # items of a profile
COUNTS = ("interactions", "users", "items")
REMEDY = (
    f"check the source for missing or doubled data, or widen drift in {POLICY} if the change is meant, and "
    "the gate's policy, which judges the same figures"
)


def profile_tables(interactions: pd.DataFrame, items: pd.DataFrame) -> DataProfile:
    """Profile the kept tables; both must have rows."""
    per_user = interactions["user_id"].value_counts().to_numpy()
    action, first, last = None, None, None
    if "action" in interactions and (actions := interactions["action"].dropna()).size:
        values = actions.to_numpy(dtype=np.float64)
        action = ActionProfile(
            missing_share=round(1 - len(values) / len(interactions), 6),
            mean=round(float(values.mean()), 6),
            std=round(float(values.std()), 6),
            quantiles=tuple(float(value) for value in np.quantile(values, QUANTILES)),
        )
    if "timestamp" in interactions and (times := interactions["timestamp"].dropna()).size:
        first, last = times.min().to_pydatetime(), times.max().to_pydatetime()
    bins = np.bincount(np.ceil(np.log2(per_user)).astype(int))  # users with 1 interaction, 2, 3-4, 5-8, ...
    return DataProfile(
        interactions=len(interactions),
        users=len(per_user),
        items=int(items["item_id"].nunique()),
        interactions_per_user=tuple(float(value) for value in np.quantile(per_user, QUANTILES)),
        action=action,
        first=first,
        last=last,
        activity=tuple(float(f"{share:.6g}") for share in bins / len(per_user)),
        popular=dict(list(item_shares(interactions).items())[:POPULAR]),
    )


def item_shares(interactions: pd.DataFrame) -> dict[str, float]:
    """Each item's share of the interactions, most popular first; equal ones by id."""
    counts = interactions["item_id"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    return {str(item): float(f"{count / len(interactions):.6g}") for item, count in counts.items()}


def measure_drift(
    now: DataProfile, before: DataProfile, shares: Mapping[str, float], release: str
) -> DataDrift:
    """Measure every figure of drift; what can't be computed is None."""
    counts = {
        name: CountChange(
            now=getattr(now, name),
            before=getattr(before, name),
            ratio=round(getattr(now, name) / getattr(before, name), 6),
        )
        for name in (*COUNTS, "median_interactions")
    }
    shift: float | None = None
    if now.action and before.action and before.action.std:
        shift = round(abs(now.action.mean - before.action.mean) / before.action.std, 6)
    elif now.action and before.action and now.action.mean == before.action.mean:
        shift = 0.0
    days_back: float | None = None
    if now.last and before.last:
        days_back = round((before.last - now.last).total_seconds() / 86400, 6)
    return DataDrift(
        release=release,
        **counts,
        retired=None,  # needs the catalogues; see `measure_retired`
        action=ActionShift(
            now=now.action.mean if now.action else None,
            before=before.action.mean if before.action else None,
            std=before.action.std if before.action else None,
            shift=shift,
        ),
        newest=NewestInteraction(now=now.last, before=before.last, days_back=days_back),
        activity=ActivityChange(
            now=now.activity, before=before.activity, distance=js_distance(now.activity, before.activity)
        ),
        popularity=_popularity(before.popular, shares),
    )


def _popularity(popular: Mapping[str, float], shares: Mapping[str, float]) -> PopularityChange:
    """Compare the shares of production's most popular items, of the risen ones, and of all others.

    The profile does not tell all others apart, which can only make the distance smaller than it is among all
    items, never greater. The same holds for the risen items' former share, which is taken to be as close to
    today's as it can have been.
    """
    old, new = list(popular.values()), [shares.get(item, 0.0) for item in popular]
    old_rest, new_rest = max(0.0, 1.0 - sum(old)), max(0.0, 1.0 - sum(new))
    risen = [share for item, share in shares.items() if share > min(old) and item not in popular]
    risen_now = min(sum(risen), new_rest)
    risen_before = min(len(risen) * min(old), old_rest * risen_now / new_rest) if new_rest else 0.0
    return PopularityChange(
        items=len(old),
        now=_share(sum(new)),
        before=_share(sum(old)),
        ratio=round(sum(new) / sum(old), 6) if sum(old) else None,
        risen=RisenItems(items=len(risen), now=_share(risen_now), before_at_most=_share(risen_before)),
        distance=js_distance(
            [*old, risen_before, old_rest - risen_before], [*new, risen_now, new_rest - risen_now]
        ),
    )


def _share(share: float) -> float:
    return min(1.0, round(share, 6))


def js_distance(first: Sequence[float], second: Sequence[float]) -> float:
    """Jensen-Shannon distance (base 2) of two distributions over the same bins; the shorter is padded with 0.

    Unlike the population stability index it is finite if a bin is empty. For distributions that are close, an
    index of 0.1 is a distance of 0.13, and one of 0.25 a distance of 0.21.
    """
    pair = np.zeros((2, max(len(first), len(second))))
    pair[0, : len(first)], pair[1, : len(second)] = first, second
    pair /= pair.sum(axis=1, keepdims=True)
    divergence = rel_entr(pair, pair.mean(axis=0)).sum() / (2 * np.log(2))
    return round(float(np.sqrt(np.clip(divergence, 0.0, 1.0))), 6)  # rounding may go slightly below zero


def measure_retired(offered: Set[str], items: pd.DataFrame) -> RetiredItems:
    """Which of the items that production offers are no longer in the kept table of items."""
    retired = len(offered - set(items["item_id"]))
    return RetiredItems(items=retired, before=len(offered), share=round(retired / max(len(offered), 1), 6))


def judge_retired(retired: RetiredItems, policy: DriftPolicy) -> Finding:
    """Whether the catalogue still holds enough of what production offers."""
    counts = f"{retired.items:,} of the {retired.before:,} items that production offers"
    ok = retired.share <= policy.max_retired_share
    return Finding(
        expects=f"At most {policy.max_retired_share:.0%} of production's items are no longer offered.",
        ok=ok,
        observed=f"{retired.items:,} of {retired.before:,} are retired",
        problem=""
        if ok
        else f"Drift against production: {counts} are no longer in the catalogue, or dropped from it; check "
        f"whether the file of items is complete, or raise drift.max_retired_share in {POLICY}, and the bound "
        "in the gate's policy.",
        severity=policy.severity,
        check="drift",
    )


def compare_profiles(
    now: DataProfile,
    previous: Mapping[str, Any],
    policy: DriftPolicy,
    shares: Mapping[str, float],
    release: str,
) -> tuple[list[Finding], DataDrift]:
    """Compare with production's data_profile.json; return findings and the figures that they rest on.

    If the profile cannot be read, a finding stops the run.
    """
    try:
        before = DataProfile.model_validate_json(json.dumps(previous))
    except pydantic.ValidationError as error:
        problem = (
            f"Production's data profile cannot be read ({first_problem(error).rstrip('.')}); "
            "drift cannot be judged, so take the profile from the production release again."
        )
        unreadable = Finding(
            expects="Production's data profile is readable.", ok=False, observed="unreadable", problem=problem
        )
        return [unreadable], DataDrift(release=release)
    drift = measure_drift(now, before, shares, release)
    findings: list[Finding] = []

    def check(expects: str, ok: bool, observed: str, broken: str) -> None:
        problem = "" if ok else f"Drift against production: {broken}; {REMEDY}."
        findings.append(
            Finding(
                expects=expects,
                ok=ok,
                observed=observed,
                problem=problem,
                severity=policy.severity,
                check="drift",
            )
        )

    allowed = f"{policy.min_ratio:g} to {policy.max_ratio:g} times production's"
    for name in COUNTS:
        new, old = getattr(now, name), getattr(before, name)
        ratio = new / old  # unrounded: bounds are inclusive
        check(
            f"The number of {name} is {allowed}.",
            policy.min_ratio <= ratio <= policy.max_ratio,
            f"{new:,} ({ratio:.2f} times {old:,})",
            f"{new:,} {name} are {ratio:.2g} times production's {old:,} (allowed {allowed})",
        )
    new, old = now.median_interactions, before.median_interactions
    check(
        f"The median of interactions per user differs at most {policy.max_median_ratio:g} times.",
        max(new, old) <= policy.max_median_ratio * min(new, old),
        f"{new:g} (production {old:g})",
        f"the median user has {new:g} interactions, production's had {old:g}",
    )
    if before.action is not None:
        expects = f"The mean action moves at most {policy.max_action_shift:g} standard deviations."
        if now.action is None:
            check(expects, False, "no actions", "no interaction has an action, production's had")
        else:
            shift = drift.action.shift if drift.action else None
            was = f"{before.action.mean:.3g} ± {before.action.std:.2g}"
            check(
                expects,
                shift is not None and shift <= policy.max_action_shift,
                f"{now.action.mean:.3g} (production {was})",
                f"the mean action is {now.action.mean:.3g}, production's was {was}",
            )
    if before.last is not None:
        expects = f"The newest interaction is at most {policy.max_days_back:g} days older than production's."
        days = drift.newest.days_back if drift.newest else None
        if now.last is None or days is None:
            check(expects, False, "no timestamps", "interactions have lost their timestamps")
        else:
            check(
                expects,
                days <= policy.max_days_back,
                f"{now.last:%Y-%m-%d} (production {before.last:%Y-%m-%d})",
                f"the newest interaction is from {now.last:%Y-%m-%d}, {days:.0f} days before production's",
            )
    if popularity := drift.popularity:
        check(
            f"Production's most popular items keep at least {policy.min_popular_ratio:.0%} of their share.",
            popularity.ratio is not None and popularity.ratio >= policy.min_popular_ratio,
            f"{popularity.now:.1%} (production {popularity.before:.1%})",
            f"production's {popularity.items} most popular items had {popularity.before:.1%} of the "
            f"interactions and have {popularity.now:.1%} (were items lost, or their ids given out anew?)",
        )
    for noun, change in (("users", drift.activity), ("items", drift.popularity)):
        if change:
            spread, distance = f"spread of interactions over {noun}", change.distance
            check(
                f"The {spread} is within a Jensen-Shannon distance of {policy.max_distance:g}.",
                distance <= policy.max_distance,
                f"{distance:.3f}",
                f"the {spread} is {distance:.2g} from production's (0: equal, 1: nothing in common)",
            )
    return findings, drift
