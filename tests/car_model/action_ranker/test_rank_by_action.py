"""Requests that rank by action: the stated sum, who may ask, and what an answer says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from car_model.action_ranker.rerank import double_precision, predict_like
from car_model.bundle import Bundle
from car_model.evaluation.evaluate import Holdout
from car_model.evaluation.golden import golden_requests, record_golden
from car_model.recommender.recommender import Recommender, RequestError
from tests.car_model.action_ranker.liking import liking, rated
from tests.fixtures import tiny_parts

HISTORY = ["i3", "i7", "i20", "i11"]
STARS = [5, None, 1, 5]
BY_ACTION: dict[str, Any] = {"history": HISTORY, "rank_by": "action", "explain": False}


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    return Recommender(liking()[0])


def test_the_score_is_relevance_plus_the_weighted_chance(recommender: Recommender) -> None:
    ranker = recommender.bundle.ranker
    assert ranker is not None
    strong = Recommender(replace(recommender.bundle, ranker=replace(ranker, weight=2.0)))
    found = strong.recommend({**BY_ACTION, "actions": STARS, "k": 44})["items"]
    uids = torch.tensor([strong.catalogue.uids[item["item_id"]] for item in found])
    history = torch.tensor([3, 7, 20, 11])
    chances = predict_like(ranker.model, history, torch.tensor([2, 0, 1, 2]), uids)
    relevance = strong.scores([history.numpy()])[0][uids]
    np.testing.assert_allclose([item["liked"] for item in found], chances, atol=1e-4)
    np.testing.assert_allclose([item["score"] for item in found], relevance + 2 * chances.log(), atol=2e-3)
    scores = [item["score"] for item in found]
    assert len(found) == 44 and scores == sorted(scores, reverse=True)
    plain = strong.recommend({"history": HISTORY, "k": 44, "explain": False})["items"]
    assert [item["item_id"] for item in plain] != [item["item_id"] for item in found]


def test_by_relevance_nothing_changes(recommender: Recommender) -> None:
    plain = Recommender(replace(recommender.bundle, ranker=None))
    for request in ({"history": HISTORY}, {"history": HISTORY, "actions": STARS, "rank_by": "relevance"}):
        answer = recommender.recommend(request)
        assert answer == plain.recommend(request)
        assert all("liked" not in item for item in answer["items"])


def test_past_actions_count_and_those_of_unknown_items_do_not(recommender: Recommender) -> None:
    told = recommender.recommend({**BY_ACTION, "actions": STARS})
    assert told != recommender.recommend(BY_ACTION)
    assert told != recommender.recommend({**BY_ACTION, "actions": [1, None, 5, 1]})
    mixed = {**BY_ACTION, "history": ["no such", *HISTORY], "actions": [5, *STARS]}
    assert recommender.recommend(mixed)["items"] == told["items"]


def test_what_is_barred_stays_away(recommender: Recommender) -> None:
    first = recommender.recommend({**BY_ACTION, "k": 5})["items"]
    gone = [item["item_id"] for item in first[:3]]
    found = recommender.recommend({**BY_ACTION, "k": 40, "exclude": gone})["items"]
    assert not {*gone, *HISTORY} & {item["item_id"] for item in found}
    few = recommender.recommend({**BY_ACTION, "candidates": ["i1", "i2", "i3"]})["items"]
    assert {item["item_id"] for item in few} == {"i1", "i2"}


def test_reasons_come_along(recommender: Recommender) -> None:
    items = recommender.recommend({**BY_ACTION, "explain": True})["items"]
    assert all(item["reasons"] and 0 <= item["liked"] <= 1 for item in items)


def test_without_a_known_history_the_popular_items_come_as_ever(recommender: Recommender) -> None:
    answer = recommender.recommend({"history": ["no such"], "rank_by": "action", "actions": [5]})
    assert answer["fallback"] == "popular"
    assert answer["items"] == recommender.recommend({"history": ["no such"]})["items"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rank_by": "likes"}, "'rank_by': "),
        ({"actions": [5]}, "'actions' has 1 entries, 'history' has 4; give one an item, null where"),
        ({"actions": [5, "4", 1, 1]}, "'actions[1]"),
        ({"actions": [5, True, 1, 1]}, "'actions[1]"),
        ({"actions": [5, 1e999, 1, 1]}, "'actions[1]"),
        ({"actions": [5, 10**400, 1, 1]}, "'actions[1]"),
        ({"actions": 5}, "'actions"),
    ],
)
def test_a_wrong_request_is_refused_with_a_sentence(
    recommender: Recommender, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(RequestError) as caught:
        recommender.recommend({**BY_ACTION, **changes})
    assert str(caught.value).startswith(says)


def test_a_release_without_a_ranker_says_so() -> None:
    with pytest.raises(RequestError, match="this release has no ranker by action; leave it out"):
        Recommender(tiny_parts()).recommend(BY_ACTION)


def test_answers_that_are_read_together_are_those_given_alone(recommender: Recommender) -> None:
    bodies = [{**BY_ACTION, "actions": STARS}, {"history": HISTORY}, {**BY_ACTION, "history": ["i5"]}]
    assert recommender.recommend_batch(bodies) == [recommender.recommend(body) for body in bodies]


def test_double_precision_changes_no_more_than_noise_and_shares_the_tables() -> None:
    model = liking()[0].ranker.model  # type: ignore[union-attr]
    exact = double_precision(model)
    assert exact.uid is model.uid and exact.uid.weight.dtype == torch.float32
    assert exact.head[0].weight.dtype == torch.float64
    asked = (torch.tensor([3, 7]), torch.tensor([2, 1]), torch.arange(1, 49))
    found = predict_like(exact, *asked)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), predict_like(model, *asked), rtol=1e-4, atol=1e-5)


def test_golden_requests_rank_by_action_where_the_release_can(
    recommender: Recommender, tmp_path: Path
) -> None:
    holdout = Holdout.of(rated())
    recorded = record_golden(recommender, holdout).to_json()
    asked = [one for one in recorded["requests"] if one.get("rank_by") == "action"]
    assert len(asked) == 2 and asked[1]["actions"][:3] == [5.0, 4.0, None]
    assert all("rank_by" not in one for one in golden_requests(holdout, 3))
    recommender.bundle.save(tmp_path)
    served = Recommender(Bundle.load(tmp_path))
    assert [served.recommend(one) for one in recorded["requests"]] == recorded["answers"]
