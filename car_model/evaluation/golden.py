"""Golden requests: holdout histories and edge cases with evaluation's answers, to replay on a server."""

from __future__ import annotations

from typing import Any

from car_model.evaluation.evaluate import Holdout
from car_model.recommender.recommender import Recommender

USERS = 16


def golden_requests(
    holdout: Holdout, levels: int, users: int = USERS, liked: float | None = None
) -> list[dict[str, Any]]:
    """Requests that use every feature: thinking from 0 to all levels, k, exclude, unknown ids, no history.

    Args:
        liked: the least action that counts as liked, where the release can rank by action.
    """
    step = max(1, len(holdout.users) // users)
    requests: list[dict[str, Any]] = []
    for number, at in enumerate(range(0, len(holdout.users), step)[:users]):
        request = {"history": holdout.prompts[at], "k": 1 + number % 10, "thinking": number % (levels + 1)}
        requests.append({**request, "explain": number % 2 == 0})
    first = holdout.prompts[0]
    if liked is not None:
        did = [(liked, liked - 1, None)[at % 3] for at in range(len(first))]
        by_action: dict[str, Any] = {"history": first, "rank_by": "action"}
        requests += [by_action, {**by_action, "actions": did, "k": 20, "explain": False}]
    return [
        *requests,
        {"history": []},
        {"history": ["no such item"], "k": 3},
        {"history": [*first, "no such item"], "exclude": [holdout.targets[0]], "k": 20},
    ]


def golden(recommender: Recommender, holdout: Holdout) -> dict[str, Any]:
    """golden.json: requests and the answers to them, one at a time as a server would."""
    ranker = recommender.bundle.ranker
    liked = ranker.model.config.tasks[0].bounds[0] if ranker else None
    requests = golden_requests(holdout, recommender.levels, liked=liked)
    return {"requests": requests, "answers": [recommender.answer(request) for request in requests]}
