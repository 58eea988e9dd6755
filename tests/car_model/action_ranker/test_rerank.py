"""Candidates get what the ranker says of them, and only candidates change places."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from car_model.action_ranker.model import ARCHITECTURES
from car_model.action_ranker.rerank import (
    WEIGHTS,
    Reranker,
    ScoredHistory,
    choose_weight,
    combine,
    predict_like,
)
from tests.car_model.action_ranker.rankers import random_batch, tiny_ranker
from tests.fixtures import ITEMS

RANKERS = {name: tiny_ranker(name) for name in ARCHITECTURES}
each = pytest.mark.parametrize("architecture", ARCHITECTURES)


@each
@pytest.mark.parametrize("length", [0, 1, 5, 11, 12, 20])
def test_a_candidate_gets_what_the_ranker_says_of_it_as_the_next_item(architecture: str, length: int) -> None:
    model = RANKERS[architecture]
    uids, actions = (x[0, :length] for x in random_batch([max(length, 1)]))
    candidates = torch.tensor([3, 48, 3, 17])
    found = predict_like(model, uids, actions, candidates)
    kept = min(length, model.config.max_history - 1)  # the candidate takes the last place
    for uid, chance in zip(candidates, found, strict=True):
        longer = torch.cat([uids[length - kept :], uid[None]])[None]
        acted = torch.cat([actions[length - kept :], torch.tensor([1])])[None]
        expected = model.probabilities(longer, acted)[0, -1]
        torch.testing.assert_close(chance, expected, rtol=1e-4, atol=1e-5)


def scores_of(*values: float) -> torch.Tensor:
    return torch.tensor([-torch.inf, *values])


def test_candidates_are_ordered_by_the_stated_sum() -> None:
    found = combine(scores_of(5, 4, 3), torch.tensor([1, 2, 3]), torch.tensor([-3.0, -0.5, -0.1]), 2.0)
    torch.testing.assert_close(found, scores_of(-1, 3, 2.8))


@given(
    values=st.lists(st.floats(-50, 50, width=32) | st.just(-torch.inf), min_size=2, max_size=12),
    count=st.integers(1, 5),
    weight=st.sampled_from(WEIGHTS),
    seed=st.integers(0, 9),
)
def test_others_stay_behind_the_candidates_in_their_order(
    values: list[float], count: int, weight: float, seed: int
) -> None:
    scores = scores_of(*values)
    top = scores.topk(min(count, len(scores)))
    uids = top.indices[top.values > -torch.inf]
    chances = -torch.rand(len(uids), generator=torch.Generator().manual_seed(seed))
    found = combine(scores, uids, chances, weight)
    assert torch.equal(found.isneginf(), scores.isneginf())
    others = [at for at in range(len(scores)) if at not in uids.tolist() and scores[at] > -torch.inf]
    if others and len(uids):
        assert found[others].max() < found[uids].min()
        order = scores[others].argsort(stable=True)
        assert (found[others][order].diff() >= 0).all()


@each
def test_weight_0_changes_no_order_and_the_weight_moves_what_is_liked_up(architecture: str) -> None:
    model = RANKERS[architecture]
    uids, actions = (x[0].numpy() for x in random_batch([6]))
    scores = torch.linspace(0, 1, ITEMS + 1)
    scores[0] = -torch.inf
    asked = ScoredHistory(scores, uids, actions)
    plain = Reranker(model, 0.0, candidates=10).scores(asked)
    assert torch.equal(plain.argsort(), scores.argsort())
    chosen, chances = Reranker(model, 0.0, candidates=10).top_log_chances(asked)
    assert sorted(chosen.tolist()) == list(range(ITEMS - 9, ITEMS + 1))
    strong = Reranker(model, 1e4, candidates=10).scores(asked)
    assert strong.argmax() == chosen[chances.argmax()]


def test_where_nothing_may_be_recommended_nothing_is_asked() -> None:
    nothing = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    asked = ScoredHistory(torch.full((5,), -torch.inf), *nothing)
    assert Reranker(RANKERS["mvp"], 1.0).scores(asked).isneginf().all()


def test_the_weight_is_what_finds_liked_items_best() -> None:
    model = RANKERS["mvp"]
    rng = np.random.default_rng(0)
    asked, best, worst = [], [], []
    for _ in range(12):
        uids = rng.integers(1, ITEMS + 1, 6)
        actions = rng.integers(1, 3, 6)
        scores = torch.zeros(ITEMS + 1)
        scores[0] = -torch.inf
        scores[1:] += 0.01 * torch.from_numpy(rng.random(ITEMS)).float()
        one = ScoredHistory(scores, uids, actions)
        candidates, chances = Reranker(model, 0.0).top_log_chances(one)
        asked.append(one)
        best.append(int(candidates[chances.argmax()]))
        worst.append(int(candidates[chances.argmin()]))
    assert choose_weight(model, asked, np.array(best)) > 0
    assert choose_weight(model, asked, np.array(worst)) == 0
