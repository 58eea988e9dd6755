"""The evidence on ranking by action: same ranks as the evaluation's, liked items told apart."""

from __future__ import annotations

import json

import numpy as np
import pytest

from car_model.action_ranker.data import action_histories
from car_model.evaluation.actions import (
    compare_by_liking,
    evaluate_action_ranker,
    hide_past_actions,
    normalised_entropy,
)
from car_model.evaluation.evaluate import Holdout, holdout_ranks
from car_model.evidence.evaluation import ActionRankerEvidence, EntropyInterval
from car_model.metrics.ranking import per_user
from car_model.recommender.recommender import Recommender
from car_model.training.train_ranker import Predictions
from tests.car_model.action_ranker.liking import liking, rated
from tests.fixtures import tiny_parts


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    return Recommender(liking()[0])


@pytest.fixture(scope="module")
def evidence(recommender: Recommender) -> ActionRankerEvidence:
    measured = evaluate_action_ranker(rated(), recommender)
    assert measured
    return measured


def test_it_is_json_and_says_what_was_measured(evidence: ActionRankerEvidence) -> None:
    written = json.dumps(evidence.model_dump(mode="json"), allow_nan=False)
    assert ActionRankerEvidence.model_validate_json(written) == evidence
    assert (evidence.liked, evidence.actions, evidence.candidates) == (5.0, 40, 100)
    entropy = evidence.normalised_entropy
    assert entropy.low < entropy.mean < entropy.high  # type: ignore[operator]
    assert 0 < evidence.normalised_entropy_without_actions.mean != entropy.mean  # type: ignore[operator]
    assert evidence.latency.relevance_p50_ms and evidence.latency.action_p50_ms


def test_by_relevance_the_ranks_are_those_of_the_evaluation(
    evidence: ActionRankerEvidence, recommender: Recommender
) -> None:
    dataset = rated()
    holdout = Holdout.of(dataset)
    gains = per_user(holdout_ranks(recommender, holdout))["ndcg@10"]
    frame = dataset.interactions
    test = frame[frame["split"] == "test"].set_index("user_id")["action"]
    liked = np.array([test[user] >= 5 for user in holdout.users])
    for name, keep in (("liked", liked), ("disliked", ~liked)):
        part = getattr(evidence.ndcg, name)
        assert part.users == keep.sum() > 5
        assert part.relevance["ndcg@10"].mean == pytest.approx(gains[keep].mean(), abs=1e-6)


def test_without_a_ranker_there_is_nothing_to_measure() -> None:
    assert evaluate_action_ranker(rated(), Recommender(tiny_parts())) is None


def test_histories_without_past_actions_know_the_test_actions_alone() -> None:
    uids = {f"i{at}": at for at in range(1, 49)}
    data = action_histories(rated().interactions, uids, liking()[0].ranker.model.config.liked)  # type: ignore[union-attr]
    for before, after, parts in zip(data.actions, hide_past_actions(data).actions, data.parts, strict=True):
        assert (after[parts == 2] == before[parts == 2]).all()
        assert (after[parts != 2] == 0).all() and (before[parts != 2] != 0).all()


@pytest.mark.parametrize("labels", [[], [1, 1, 1], [0, 0]])
def test_where_only_one_class_is_there_is_no_number(labels: list[int]) -> None:
    predictions = Predictions(np.array(labels), np.full(len(labels), 0.5), np.arange(len(labels)))
    assert normalised_entropy(predictions) == EntropyInterval(mean=None, low=None, high=None)


def test_the_base_rate_itself_has_a_normalised_entropy_of_1() -> None:
    labels = np.array([1, 0, 0, 0] * 200)
    entropy = normalised_entropy(Predictions(labels, np.full(800, 0.25), np.arange(800)))
    assert entropy.mean == pytest.approx(1)
    assert entropy.low <= entropy.high and entropy.high >= 1  # type: ignore[operator]


def test_users_who_liked_their_test_item_and_others_are_compared_apart() -> None:
    relevance, action = np.array([1.0, 3.0, 2.0, np.inf]), np.array([1.0, 1.0, 9.0, np.inf])
    comparison = compare_by_liking(relevance, action, np.array([True, True, False, False]))
    assert (comparison.liked.users, comparison.disliked.users) == (2, 2)
    assert comparison.liked.relevance["ndcg@10"].mean == pytest.approx(0.75)
    assert comparison.liked.action["ndcg@10"].mean == 1.0
    assert comparison.liked.paired["ndcg@10"].difference == pytest.approx(0.25)
    assert comparison.disliked.paired["ndcg@10"].difference < 0  # type: ignore[operator]


def test_without_users_who_liked_theirs_there_is_no_number() -> None:
    liked = compare_by_liking(np.array([1.0]), np.array([1.0]), np.array([False])).liked
    assert (liked.users, liked.action["ndcg@10"].mean) == (0, None)
