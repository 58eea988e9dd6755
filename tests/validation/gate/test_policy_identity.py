"""A policy is what its digest says: every field of every condition counts, and none changes afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from validation.gate.policy import Condition, load_policy

CONDITIONS = load_policy().conditions
OTHER = {"severity": {"block": "warn", "warn": "block"}, "when": {"always": "champion", "champion": "always"}}
KINDS = {"above": "at_least", "at_least": "above", "below": "at_most", "at_most": "below"}


def variants(condition: Condition) -> list[Condition]:
    """The condition with one field another, for each field; a bound is moved, and turned to another kind."""
    changes: list[dict[str, Any]] = [{"name": "another"}, {"why": "another"}]
    changes += [{field: OTHER[field][getattr(condition, field)]} for field in OTHER]
    changes += [{"required": not condition.required}]
    if condition.between:
        low, high = condition.between
        changes += [{"between": (low, high * 0.99)}, {"between": (low * 0.99 + 1e-4, high)}]
    else:
        kind = next(kind for kind in KINDS if getattr(condition, kind) is not None)
        bound = getattr(condition, kind)
        changes += [{kind: bound * 0.99 + 1e-4}, {kind: None, KINDS[kind]: bound}]
    return [condition.model_copy(update=change) for change in changes]


def digest(*conditions: Condition) -> str:
    """Of the conditions alone: whether such a policy may judge anything is another question."""
    return load_policy().model_copy(update={"conditions": conditions}).digest


def test_every_field_of_every_condition_counts() -> None:
    digests = [digest(*CONDITIONS)]
    for number, condition in enumerate(CONDITIONS):
        for variant in variants(condition):
            digests.append(digest(*CONDITIONS[:number], variant, *CONDITIONS[number + 1 :]))
    assert len(set(digests)) == len(digests) == 1 + 7 * len(CONDITIONS)
    assert digests[0] == load_policy().digest


def test_order_counts_and_a_dropped_condition_too() -> None:
    assert len({digest(*CONDITIONS), digest(*CONDITIONS[::-1]), digest(*CONDITIONS[1:])}) == 3


def test_nothing_changes_once_it_is_read() -> None:
    policy = load_policy()
    with pytest.raises(ValidationError, match="frozen"):
        policy.conditions[0].severity = "warn"
    with pytest.raises(ValidationError, match="frozen"):
        policy.conditions = policy.conditions[1:]
