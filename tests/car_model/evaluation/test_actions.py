"""The evidence on ranking by action: same ranks as the evaluation's, liked items told apart."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from car_model.action_ranker.data import action_histories
from car_model.evaluation.actions import action_evidence, blind, normalised_entropy
from car_model.evaluation.evaluate import Holdout, holdout_ranks
from car_model.metrics.ranking import per_user
from car_model.recommender.recommender import Recommender
from car_model.training.train_ranker import Predictions
from tests.car_model.action_ranker.liking import liking, rated
from tests.fixtures import tiny_parts


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    return Recommender(liking()[0])


@pytest.fixture(scope="module")
def evidence(recommender: Recommender) -> dict[str, Any]:
    return action_evidence(rated(), recommender)


def test_it_is_json_and_says_what_was_measured(evidence: dict[str, Any]) -> None:
    assert json.loads(json.dumps(evidence, allow_nan=False)) == evidence
    assert evidence["ranker"] is True
    assert (evidence["liked"], evidence["actions"], evidence["candidates"]) == (5.0, 40, 100)
    found = evidence["normalised_entropy"]
    assert found["low"] < found["mean"] < found["high"] < 1
    assert 0 < evidence["normalised_entropy_without_actions"]["mean"] != found["mean"]
    assert set(evidence["latency"]) == {"relevance_p50_ms", "action_p50_ms"}


def test_by_relevance_the_ranks_are_those_of_the_evaluation(
    evidence: dict[str, Any], recommender: Recommender
) -> None:
    dataset = rated()
    holdout = Holdout.of(dataset)
    gains = per_user(holdout_ranks(recommender, holdout))["ndcg@10"]
    frame = dataset.interactions
    test = frame[frame["split"] == "test"].set_index("user_id")["action"]
    liked = np.array([test[user] >= 5 for user in holdout.users])
    for name, keep in (("liked", liked), ("disliked", ~liked)):
        assert evidence["ndcg"][name]["users"] == keep.sum() > 5
        assert evidence["ndcg"][name]["relevance"]["ndcg@10"]["mean"] == pytest.approx(
            gains[keep].mean(), abs=1e-6
        )


def test_without_a_ranker_it_says_why() -> None:
    recommender = Recommender(tiny_parts())
    assert action_evidence(rated(), recommender)["ranker"] is False
    told = action_evidence(rated(), recommender, {"trained": False, "why": "none was asked for."})
    assert told == {"ranker": False, "why": "none was asked for."}


def test_blind_histories_know_the_test_actions_alone() -> None:
    uids = {f"i{at}": at for at in range(1, 49)}
    data = action_histories(rated().interactions, uids, liking()[0].ranker.model.config.tasks)  # type: ignore[union-attr]
    for before, after, parts in zip(data.actions, blind(data).actions, data.parts, strict=True):
        assert (after[parts == 2] == before[parts == 2]).all()
        assert (after[parts != 2] == 0).all() and (before[parts != 2] != 0).all()


@pytest.mark.parametrize("labels", [[], [1, 1, 1], [0, 0]])
def test_where_only_one_class_is_there_is_no_number(labels: list[int]) -> None:
    found = Predictions(np.array(labels), np.full(len(labels), 0.5), np.arange(len(labels)))
    assert normalised_entropy(found) == {"mean": None, "low": None, "high": None}


def test_the_base_rate_itself_has_a_normalised_entropy_of_1() -> None:
    labels = np.array([1, 0, 0, 0] * 200)
    found = normalised_entropy(Predictions(labels, np.full(800, 0.25), np.arange(800)))
    assert found["mean"] == pytest.approx(1)
    assert found["low"] <= found["high"] and found["high"] >= 1  # type: ignore[operator]
