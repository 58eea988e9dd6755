"""Golden requests: holdout histories and edge cases with evaluation's answers, to replay on a server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from car_model.evaluation.evaluate import Holdout
from car_model.evidence.evaluation import GoldenRequests
from car_model.recommender.recommender import Recommender
from common.limits import MAX_BODY_BYTES, MAX_HISTORY

USERS = 16
RESERVED_BYTES = 8192  # of a body, for its other fields: an excluded and an unknown item, k, and so on
ACTION_BYTES = 26  # at most of an action, such as 0.30000000000000004, in a body


def golden_requests(
    holdout: Holdout, n_levels: int, users: int = USERS, liked: float | None = None
) -> list[dict[str, Any]]:
    """Requests that use every feature: thinking from 0 to all levels, k, exclude, unknown ids, no history.

    `liked` is the smallest action that counts as liked, if the release can rank by action.
    """
    step = max(1, len(holdout.users) // users)
    chosen = [sendable(prompt) for prompt in holdout.prompts[::step][:users]]
    requests: list[dict[str, Any]] = [
        {"history": prompt, "k": 1 + i % 10, "thinking": i % (n_levels + 1), "explain": i % 2 == 0}
        for i, prompt in enumerate(chosen)
    ]
    first = chosen[0]
    if liked is not None:
        actions = [(liked, liked - 1, None)[i % 3] for i in range(len(first))]
        by_action: dict[str, Any] = {"history": first, "rank_by": "action"}
        requests += [by_action, {**by_action, "actions": actions, "k": 20, "explain": False}]
    return [
        *requests,
        {"history": []},
        {"history": ["no such item"], "k": 3},
        {"history": [*first, "no such item"], "exclude": [holdout.targets[0]], "k": 20},
    ]


def sendable(history: Sequence[str]) -> list[str]:
    """The latest items of a history that fit into a request with an action each, and one item more."""
    size, start = RESERVED_BYTES, len(history)
    while start > max(0, len(history) - MAX_HISTORY + 1):
        size += len(json.dumps(history[start - 1])) + len(", ") + ACTION_BYTES
        if size > MAX_BODY_BYTES:
            break
        start -= 1
    return list(history[start:])


def record_golden(recommender: Recommender, holdout: Holdout) -> GoldenRequests:
    """Answer the golden requests one at a time, as a server would."""
    ranker = recommender.bundle.ranker
    liked = ranker.model.config.liked if ranker else None
    requests = golden_requests(holdout, recommender.n_levels, liked=liked)
    answers = tuple(recommender.recommend(request) for request in requests)
    return GoldenRequests(requests=tuple(requests), answers=answers)
