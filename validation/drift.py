"""Drift as findings: what moved further from production's data than a run's policy allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pydantic

from validation.data_policy import DriftPolicy
from validation.data_profile import DataProfile
from validation.drift_figures import COUNTS, Figures, measure_drift
from validation.findings import Finding

REMEDY = (
    "check the source for missing or doubled data, or widen the drift policy if the change is meant "
    "(and the gate's, which judges the same figures)"
)
SPREADS = {"activity": "interactions over users", "popularity": "interactions over items"}


def compare_profiles(
    now: DataProfile, previous: Mapping[str, Any], policy: DriftPolicy, shares: Mapping[str, float]
) -> tuple[list[Finding], Figures]:
    """Compare with production's profile.json; one that cannot be read is a finding that stops the run.

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
