"""Golden requests: every feature is asked for, and the answers can be replayed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from car_model.evaluation.evaluate import Holdout
from car_model.evaluation.golden import USERS, golden_requests, record_golden
from car_model.recommender.recommender import Recommender
from car_model.recommender.request import parse
from common.limits import MAX_BODY_BYTES, MAX_HISTORY


def test_requests_use_every_feature(holdout: Holdout) -> None:
    requests = golden_requests(holdout, n_levels=3)
    assert len(requests) == USERS + 3
    assert {request.get("thinking") for request in requests} == {None, 0, 1, 2, 3}
    assert {request.get("explain") for request in requests} == {None, True, False}
    assert len({request.get("k") for request in requests}) > 5
    assert any(request.get("exclude") for request in requests)
    assert {"history": []} in requests
    assert all(request["history"] in holdout.prompts for request in requests[:USERS])


@pytest.mark.parametrize("levels", [1, 2, 4, 8])
def test_every_level_of_thinking_is_asked_for(holdout: Holdout, levels: int) -> None:
    depths = {request.get("thinking") for request in golden_requests(holdout, levels)}
    assert depths == {None, *range(levels + 1)}


@pytest.mark.parametrize("users", [1, 3, 16, 17, 39])
def test_few_users_are_enough(holdout: Holdout, users: int) -> None:
    few = replace(
        holdout, users=holdout.users[:users], prompts=holdout.prompts[:users], targets=holdout.targets[:users]
    )
    requests = golden_requests(few, n_levels=3)
    assert min(users, USERS) + 3 == len(requests)


def test_answers_replay_exactly_after_a_reload(
    recommender: Recommender, holdout: Holdout, bundle: Path
) -> None:
    recorded = json.loads(json.dumps(record_golden(recommender, holdout).to_json(), allow_nan=False))
    served = Recommender.load(bundle, "a" * 64)
    assert len(recorded["answers"]) == len(recorded["requests"])
    for request, answer in zip(recorded["requests"], recorded["answers"], strict=True):
        assert answer["release"] == "unreleased"
        assert {**served.recommend(request), "release": "unreleased"} == answer


def test_edge_cases_are_among_the_answers(recommender: Recommender, holdout: Holdout) -> None:
    answers = record_golden(recommender, holdout).answers
    nobody, unknown, mixed = answers[-3:]
    assert (nobody["fallback"], unknown["fallback"], mixed["fallback"]) == ("popular", "popular", None)
    assert unknown["skipped"] == mixed["skipped"] == ["no such item"]
    assert holdout.targets[0] not in [item["item_id"] for item in mixed["items"]]


@pytest.mark.parametrize("item", ["i", "item-1234", "🍵" * 256, '"\\\n' * 80, "x" * 256])
@pytest.mark.parametrize("length", [1, 9_000, MAX_HISTORY])
@pytest.mark.parametrize("liked", [None, 4.0, 0.30000000000000004])
def test_the_longest_history_can_be_sent(
    holdout: Holdout, item: str, length: int, liked: float | None
) -> None:
    heavy = replace(
        holdout, prompts=[[item] * length] * len(holdout.users), targets=[item] * len(holdout.users)
    )
    requests = golden_requests(heavy, n_levels=3, liked=liked)
    for request in requests:
        parse(request, levels=3, by_action=True)
        assert len(json.dumps(request).encode()) <= MAX_BODY_BYTES
    assert len(requests[0]["history"]) >= min(length, 80)
