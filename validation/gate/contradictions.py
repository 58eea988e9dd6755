"""Evidence that cannot be true: numbers out of range, ends in the wrong order, parts that disagree.

What is missing or null is left to the conditions, which fail on it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from car_model.evidence.evaluation import Evaluation
from common.errors import shorten

ORDERED = (
    ("low", "mean", "high"),
    ("low", "difference", "high"),
    ("relative_low", "relative", "relative_high"),
    ("p50_ms", "p99_ms"),
)
NOT_MORE = {
    "holdout.users": ("holdout.hits", "champion.users", "cold.users", "action.ndcg.liked.users"),
    "holdout.items": ("champion.items", "cold.items", "champion.items_challenger"),
    "champion.items_champion": ("champion.items",),
    "drift.retired.before": ("drift.retired.items",),
    "champion.items_challenger": ("champion.items", "holdout.items"),
}
"""Counts that can't be larger than the count of which they are a part."""
MISSING = ("missing", "extra_forbidden")
ROUNDING = 2e-6  # numbers are written with six digits


def contradictions(evaluation: Mapping[str, Any]) -> list[str]:
    """Why the JSON object of an evaluation cannot be true, a phrase each; empty if it can."""
    phrases: list[str] = []
    try:
        Evaluation.model_validate_json(json.dumps(evaluation))
    except ValidationError as error:
        for item in error.errors():
            path = item["loc"]
            missing = item["input"] is None or item["type"] in MISSING
            if not missing:
                phrases.append(f"{'.'.join(map(str, path))} is {shorten(item['input'])} ({item['msg']})")
    numbers = dict(_numbers(evaluation))
    return phrases + list(_disorder(numbers)) + list(_disagreement(evaluation, numbers))


def _numbers(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """Every finite number below a tree of objects, by its path of keys."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _numbers(below, (*path, key))
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf:
        yield path, value


def _disorder(numbers: Mapping[tuple[str, ...], float]) -> Iterator[str]:
    """Intervals that don't hold their mean, and parts that are larger than the whole."""
    for parent in dict.fromkeys(path[:-1] for path in numbers):
        for names in ORDERED:
            values = [numbers[*parent, name] for name in names if (*parent, name) in numbers]
            if values != sorted(values):
                yield f"{'.'.join(parent)} has {', '.join(names)} in the order {', '.join(map(str, values))}"
    slices = [".".join(path) for path in numbers if path[0] == "slices" and path[-1] == "users"]
    for whole, parts in (NOT_MORE | {"holdout.users": (*NOT_MORE["holdout.users"], *slices)}).items():
        most = numbers.get(tuple(whole.split(".")), math.inf)
        for part in parts:
            if (count := numbers.get(tuple(part.split(".")), 0)) > most:
                yield f"{part} is {count:g}, but {whole} is {most:g}"


def _disagreement(evaluation: Mapping[str, Any], numbers: Mapping[tuple[str, ...], float]) -> Iterator[str]:
    """Parts that were measured on other users, or against another champion."""
    users, hits = (numbers.get(("holdout", name)) for name in ("users", "hits"))
    recall = numbers.get(("models", "challenger", "recall@10", "mean"))
    if users and hits is not None and recall is not None and abs(hits / users - recall) > 0.5 / users:
        yield f"holdout has {hits:g} hits of {users:g} users, but the challenger's recall@10 is {recall:g}"
    shared, share = (numbers.get(("champion", name)) for name in ("users", "users_share"))
    if users and shared is not None and share is not None and abs(shared / users - share) > ROUNDING:
        yield f"champion.users_share is {share:g}, but {shared:g} of {users:g} users are compared"
    for path, difference in numbers.items():
        if path[0] == "paired" and path[-1] == "difference":
            among = ("champion", "models") if path[1] == "champion" else ("models",)
            ours, theirs = (numbers.get((*among, name, path[2], "mean")) for name in ("challenger", path[1]))
            if ours is not None and theirs is not None and abs(ours - theirs - difference) > ROUNDING:
                yield f"{'.'.join(path)} is {difference:g}, but the models' means are {ours:g} and {theirs:g}"
    champion, drift = (
        part.get("release", "") if isinstance(part := evaluation.get(name), Mapping) else ""
        for name in ("champion", "drift")
    )
    if "" not in (champion, drift) and champion != drift:
        yield f"the champion is {shorten(champion)}, but drift was measured against {shorten(drift)}"
    reasons = evaluation.get("not_measured")
    for part in reasons if isinstance(reasons, Mapping) else ():
        if any(f"{'.'.join(path)}.".startswith(f"{part}.") for path in numbers):
            yield f"{shorten(part)} was measured, but there was nothing to measure"
    if champion is None and any(path[:2] == ("paired", "champion") for path in numbers):
        yield "there is no champion, but a comparison with one"
