"""A policy is what its digest says: every field of every condition counts, and none changes afterwards."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from validation.gate.policy import DEFAULT_POLICY, Condition, GatePolicy, load_policy

RAW = yaml.safe_load(DEFAULT_POLICY.read_text())
OTHER = {"severity": {"block": "warn", "warn": "block"}, "when": {"always": "champion", "champion": "ranker"}}


def variants(condition: dict[str, Any]) -> list[dict[str, Any]]:
    """The condition with one field another, for each field; a bound is moved, and turned to another kind."""
    loaded = Condition.model_validate(condition)
    changed: list[dict[str, Any]] = [{"name": "another"}, {"why": "another"}]
    changed += [{field: OTHER[field].get(getattr(loaded, field), "always")} for field in OTHER]
    if loaded.between:
        changed.append({"between": [loaded.between[0], loaded.between[1] * 0.99]})
        changed.append({"between": [loaded.between[0] * 0.99 + 1e-4, loaded.between[1]]})
    else:
        kind = next(kind for kind in ("above", "at_least", "below", "at_most") if kind in condition)
        other = {"above": "at_least", "at_least": "above", "below": "at_most", "at_most": "below"}[kind]
        changed += [{kind: condition[kind] * 0.99 + 1e-4}, {kind: None, other: condition[kind]}]
    return [{**condition, **change} for change in changed]


def digest(raw: dict[str, Any]) -> str:
    """Of the conditions alone: whether such a policy may judge anything is another question."""
    conditions = tuple(Condition.model_validate(condition) for condition in raw["conditions"])
    return GatePolicy.model_construct(**{**dict(load_policy()), "conditions": conditions}).digest


def test_every_field_of_every_condition_counts() -> None:
    digests = [digest(RAW)]
    for number, condition in enumerate(RAW["conditions"]):
        for variant in variants(condition):
            other = copy.deepcopy(RAW)
            other["conditions"][number] = variant
            digests.append(digest(other))
    assert len(set(digests)) == len(digests) == 1 + 6 * len(RAW["conditions"])
    assert digests[0] == load_policy().digest


def test_order_counts_and_a_dropped_condition_too() -> None:
    turned = {**RAW, "conditions": RAW["conditions"][::-1]}
    shorter = {**RAW, "conditions": RAW["conditions"][1:]}
    assert len({digest(RAW), digest(turned), digest(shorter)}) == 3


def test_nothing_changes_once_it_is_read() -> None:
    policy = load_policy()
    with pytest.raises(ValidationError, match="frozen"):
        policy.conditions[0].severity = "warn"
    with pytest.raises(ValidationError, match="frozen"):
        policy.conditions = policy.conditions[1:]
