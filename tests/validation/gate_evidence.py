"""Evidence of a good challenger, shaped like evaluation.json."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from car_model.evidence.data_profile import DataProfile
from validation.data.drift import measure_drift

PROFILE = {
    "interactions": 99_000,
    "users": 943,
    "items": 1349,
    "interactions_per_user": [18, 25, 40, 64, 130, 240, 700],
    "action": {"missing_share": 0.0, "mean": 3.53, "std": 1.13, "quantiles": [1, 2, 3, 4, 4, 5, 5]},
    "first": "2020-01-01T00:00:00Z",
    "last": "2020-02-01T00:00:00Z",
    "activity": [0.0, 0.0, 0.0, 0.0, 0.0, 0.25, 0.25, 0.25, 0.2, 0.05],
    "popular": {"50": 0.006, "100": 0.005, "181": 0.005},
}
CHURN = {"items": 1340, "by_level": [0.05, 0.1, 0.1], "whole": 0.1, "added": 9, "retired": 5, "unasked": 0.1}
SLICES = {
    "head items": {
        "users": 600,
        "models": {"challenger": {"recall@10": 0.2, "ndcg@10": 0.1}, "popularity": {"ndcg@10": 0.09}},
    },
    "tail items": {
        "users": 343,
        "models": {"challenger": {"recall@10": 0.05, "ndcg@10": 0.02}, "popularity": {"ndcg@10": 0.0}},
    },
}


SCALES = {"recall@5": 1.2, "recall@10": 2, "ndcg@5": 0.8, "ndcg@10": 1}  # against NDCG@10


def interval(mean: float, width: float = 0.01) -> dict[str, float]:
    return {"mean": mean, "low": mean - width, "high": mean + width}


def scores(ndcg: float) -> dict[str, dict[str, float]]:
    return {name: interval(ndcg * scale) for name, scale in SCALES.items()}


def difference(value: float, width: float, base: float) -> dict[str, dict[str, float]]:
    bounds = {
        "relative": value / base,
        "relative_low": (value - width) / base,
        "relative_high": (value + width) / base,
    }
    return {
        name: {
            "difference": value * scale,
            "low": value * scale - width,
            "high": value * scale + width,
            **bounds,
        }
        for name, scale in SCALES.items()
    }


def good_evaluation(champion: str | None = "c" * 64) -> dict[str, Any]:
    """A challenger that passes every condition of the default policy."""
    evaluation: dict[str, Any] = {
        "release": "e" * 64,
        "holdout": {"split": "test", "users": 943, "items": 1349, "hits": 132, "digest": "d" * 64},
        "models": {
            **{"challenger": scores(0.07), "sasrec": scores(0.069)},
            **{"nearest_text": scores(0.04), "popularity": scores(0.05)},
        },
        "paired": {
            "sasrec": difference(0.001, 0.006, 0.069),
            "nearest_text": difference(0.03, 0.006, 0.04),
            "popularity": difference(0.02, 0.006, 0.05),
        },
        "similarity": {"challenger": 2.0, "sasrec": 4.0},
        "slices": copy.deepcopy(SLICES),
        "codebook": {
            "codebook_size": 32,
            "n_levels": 3,
            "items": 1349,
            "dead_codes": [0, 1, 2],
            "usage_counts": [[9, 5, 1], [8, 7, 0], [6, 5, 4]],
            "cooccurrence": {"agreement": [0.06, 0.01, 0.0], "lift": [3.0, 1.5, 1.1]},
            "usage": [1.0, 0.97, 0.94],
            "perplexity": [27.0, 24.1, 22.0],
            "residual": [0.6, 0.45, 0.37],
            "unexplained": 0.37,
            "unexplained_new": 0.5 if champion else None,
            "unexplained_cold": 0.6,
            "cold_items": 40,
            "collision_rate": 0.12,
            "usage_min": 0.94,
            "perplexity_min_share": 0.69,
            "mode": "refresh" if champion else "fit",
            "parent": "b" * 64 if champion else None,
            "churn": copy.deepcopy(CHURN) if champion else None,
        },
        "cold": {
            **{"users": 31, "items": 40, "ahead": {"mean": 0.8, "low": 0.65, "high": 0.9}},
            **{"recall@10": 0.6, "recall@50": 1.0, "random@10": 0.25, "random@50": 1.0},
            "models": {"challenger": scores(0.03), "nearest_text": scores(0.02)},
            "paired": {"nearest_text": difference(0.01, 0.02, 0.02)},
        },
        "samples": [],
        "action": ranking_by_action(),
        "latency": {"p50_ms": 3.1, "p99_ms": 9.7},
        "champion": {"release": champion},
        "drift": {"release": champion},
        "training": {},
    }
    if champion is not None:
        shared = {"items": 1340, "items_challenger": 1349, "items_champion": 1345}
        evaluation["champion"] |= shared | {"users": 930, "users_share": 0.986214, "holdout": "f" * 64}
        evaluation["champion"]["models"] = {"challenger": scores(0.07), "champion": scores(0.068)}
        evaluation["champion"] |= {"same_weights": False, "same_ranks": False}
        evaluation["drift"] |= small_drift()
        evaluation["paired"]["champion"] = difference(0.002, 0.004, 0.068)
    return evaluation


UNMEASURED = {
    "action": "the interactions have no actions.",
    "cold": "no user's test item is one that was never trained on.",
    "codebook.churn.unasked": "a new codebook was asked for (mode fit).",
    "codebook.unexplained_cold": "every item has training interactions.",
    "codebook.unexplained_new": "production has every item of this catalogue.",
    "drift.action.shift": "production's interactions have no actions.",
    "drift.newest.days_back": "production's interactions have no timestamps.",
}


def say_unmeasured(evaluation: dict[str, Any], parts: Iterable[str] = UNMEASURED) -> dict[str, Any]:
    """The evaluation without some of its parts, as evaluate writes it if there is nothing to measure."""
    for part in parts:
        if "." in part:
            put(evaluation, tuple(part.split(".")), None)
        else:
            evaluation[part] = None
    evaluation["not_measured"] = {part: UNMEASURED[part] for part in parts}
    return evaluation


def ranking_by_action() -> dict[str, Any]:
    """Of a ranker that beats the share of likes and helps to find what is liked."""
    return {
        "architecture": "lfa",
        "actions": 930,
        "liked_share": 0.52,
        "liked": 4.0,
        "weight": 1.0,
        "candidates": 100,
        "log_loss": 0.55,
        "auc": 0.79,
        "ece": 0.03,
        "normalised_entropy": {"mean": 0.81, "low": 0.77, "high": 0.85},
        "normalised_entropy_without_actions": {"mean": 0.87, "low": 0.84, "high": 0.9},
        "ndcg": {
            "liked": ranked_both_ways(480, 0.08, 0.086, 0.005),
            "disliked": ranked_both_ways(450, 0.08, 0.074, 0.005),
        },
        "latency": {"relevance_p50_ms": 1.2, "action_p50_ms": 4.2},
    }


def ranked_both_ways(users: int, before: float, after: float, spread: float) -> dict[str, Any]:
    """Users' test items, ranked by relevance and by action."""
    return {
        "users": users,
        "relevance": scores(before),
        "action": scores(after),
        "paired": difference(after - before, spread, before),
    }


def small_drift() -> dict[str, Any]:
    """What a week more of data looks like."""
    week = {
        "interactions": 101_000,
        "last": "2020-02-08T00:00:00Z",
        "activity": [0.0] * 5 + [0.24, 0.25, 0.25, 0.2, 0.06],
    }
    now, before = (DataProfile.model_validate_json(json.dumps(each)) for each in (PROFILE | week, PROFILE))
    drift = measure_drift(now, before, {"50": 0.006, "100": 0.004, "181": 0.006}, "c" * 64).to_json()
    return drift | {"retired": {"items": 5, "before": 1345, "share": 5 / 1345}}


def paths(value: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key path below a tree of dicts, inner nodes too."""
    result = [prefix] if prefix else []
    if isinstance(value, dict):
        for key, below in value.items():
            result += paths(below, (*prefix, key))
    return result


def put(evaluation: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set the value at a path of keys; a missing or empty parent is made."""
    for key in path[:-1]:
        if evaluation.get(key) is None:
            evaluation[key] = {}
        evaluation = evaluation[key]
    evaluation[path[-1]] = value


def remove(evaluation: dict[str, Any], path: tuple[str, ...]) -> None:
    """Remove a path of keys where it is there."""
    for key in path[:-1]:
        if not isinstance(evaluation.get(key), dict):
            return
        evaluation = evaluation[key]
    evaluation.pop(path[-1], None)


GARBAGE = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=5),
    st.just(float("nan")),
    st.just(float("inf")),
    st.just(float("-inf")),
    st.just(10**400),
    st.lists(st.floats(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.floats(), max_size=2),
)
