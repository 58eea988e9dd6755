"""Drift: how far a dataset has moved from the one production was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pydantic

from validation.data_policy import DriftPolicy
from validation.data_profile import DataProfile
from validation.findings import Finding

REMEDY = "check the source for missing or doubled data, or widen the drift policy if the change is meant"


def compare_profiles(now: DataProfile, previous: Mapping[str, Any], policy: DriftPolicy) -> list[Finding]:
    """Compare with production's profile.json; one that cannot be read is a finding that stops the run."""
    try:
        before = DataProfile.model_validate(previous)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        problem = (
            f"Production's data profile cannot be read ({'.'.join(map(str, first['loc']))}: {first['msg']}); "
            "drift cannot be judged, so take the profile from the production release again."
        )
        return [Finding("", "", "Production's data profile is readable.", False, "unreadable", problem)]
    return [
        *(_ratio(name, now, before, policy) for name in ("interactions", "users", "items")),
        _median(now, before, policy),
        *_actions(now, before, policy),
        *_times(now, before, policy),
    ]


def _finding(expects: str, ok: bool, observed: str, broken: str, policy: DriftPolicy) -> Finding:
    problem = "" if ok else f"Drift against production: {broken}; {REMEDY}."
    return Finding("", "", expects, ok, observed, problem, policy.severity, "drift")


def _ratio(name: str, now: DataProfile, before: DataProfile, policy: DriftPolicy) -> Finding:
    new, old = getattr(now, name), getattr(before, name)
    ratio = new / old
    allowed = f"{policy.min_ratio:g} to {policy.max_ratio:g} times production's"
    return _finding(
        f"The number of {name} is {allowed}.",
        policy.min_ratio <= ratio <= policy.max_ratio,
        f"{new:,} ({ratio:.2f} times {old:,})",
        f"{new:,} {name} are {ratio:.2g} times production's {old:,} (allowed {allowed})",
        policy,
    )


def _median(now: DataProfile, before: DataProfile, policy: DriftPolicy) -> Finding:
    new, old = now.median_interactions, before.median_interactions
    return _finding(
        f"The median of interactions per user differs at most {policy.max_median_ratio:g} times.",
        max(new, old) <= policy.max_median_ratio * min(new, old),
        f"{new:g} (production {old:g})",
        f"the median user has {new:g} interactions, production's had {old:g}",
        policy,
    )


def _actions(now: DataProfile, before: DataProfile, policy: DriftPolicy) -> Iterator[Finding]:
    if before.action is None:
        return
    expects = f"The mean action moves at most {policy.max_action_shift:g} standard deviations."
    if now.action is None:
        yield _finding(expects, False, "no actions", "no interaction has an action, production's had", policy)
        return
    shift = abs(now.action.mean - before.action.mean)
    yield _finding(
        expects,
        shift <= policy.max_action_shift * before.action.std,
        f"{now.action.mean:.3g} (production {before.action.mean:.3g} ± {before.action.std:.2g})",
        f"the mean action is {now.action.mean:.3g}, production's was {before.action.mean:.3g} "
        f"± {before.action.std:.2g}",
        policy,
    )


def _times(now: DataProfile, before: DataProfile, policy: DriftPolicy) -> Iterator[Finding]:
    if before.last is None:
        return
    expects = f"The newest interaction is at most {policy.max_days_back:g} days older than production's."
    if now.last is None:
        yield _finding(expects, False, "no timestamps", "interactions have lost their timestamps", policy)
        return
    days = (before.last - now.last).total_seconds() / 86400
    yield _finding(
        expects,
        days <= policy.max_days_back,
        f"{now.last:%Y-%m-%d} (production {before.last:%Y-%m-%d})",
        f"the newest interaction is from {now.last:%Y-%m-%d}, {days:.0f} days before production's",
        policy,
    )
