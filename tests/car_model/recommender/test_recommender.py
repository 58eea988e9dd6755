"""The Recommender: what it may recommend, in which order, and with which score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from car_model.bundle import Bundle
from car_model.recommender.recommender import DECIMALS, Recommender
from tests.fixtures import ITEMS, tiny_parts

KNOWN = [f"i{i}" for i in range(1, ITEMS + 1)]
ITEM = st.sampled_from([*KNOWN, "stranger", "i0", "i49", "I1", " i1"])
REQUESTS = st.fixed_dictionaries(
    {"history": st.lists(ITEM, max_size=20), "k": st.integers(1, 100)},
    optional={
        "exclude": st.lists(ITEM, max_size=40),
        "candidates": st.none() | st.lists(ITEM, max_size=40),
        "thinking": st.integers(0, 3),
        "explain": st.booleans(),
    },
)
HISTORIES = [np.array(uids) for uids in ([3], [1, 5, 9], list(range(48, 20, -1)), [7, 7, 7], [2, 44])]


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


@given(REQUESTS)
def test_answers_keep_their_promises(recommender: Recommender, request: dict[str, Any]) -> None:
    answer = recommender.recommend(request)
    recommended, in_catalogue = ids(answer), [item for item in request["history"] if item in KNOWN]
    barred = {*in_catalogue, *request.get("exclude", [])}
    named = request.get("candidates")
    if named is not None:
        barred |= set(KNOWN) - set(named)
        assert answer["skipped_candidates"] == [item for item in named if item not in KNOWN]
    assert len(set(recommended)) == len(recommended)
    assert barred.isdisjoint(recommended)
    assert answer["skipped"] == [item for item in request["history"] if item not in KNOWN]
    assert answer["fallback"] == (None if in_catalogue else "popular")
    allowed = len([item for item in KNOWN if item not in barred])
    if in_catalogue:
        assert len(recommended) == min(request["k"], allowed)
        scores = [item["score"] for item in answer["items"]]
        assert scores == sorted(scores, reverse=True)
    else:
        popular = [KNOWN[uid - 1] for uid in recommender.bundle.popular]
        popular += [item for item in KNOWN if item not in popular] if named is not None else []
        assert recommended == [item for item in popular if item not in barred][: request["k"]]
    assert all(item["title"] == f"Film number {int(item['item_id'][1:]) - 1}" for item in answer["items"])
    assert all(("reasons" in item) == request.get("explain", True) for item in answer["items"])
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer


def slow_scores(model: Any, scale: float, history: Sequence[int], thinking: int) -> list[float]:
    """The definition, item by item: log P(UID) + scale * sum of log P(SID) of the first levels."""
    state = model.last_state(torch.tensor([list(history)[-10:]]))
    act = model.act_logits(state)[0].log_softmax(-1)
    think = model.think_logits(state)[0].log_softmax(-1)
    return [
        float(act[uid] + scale * sum(think[level, model.sids[uid, level]] for level in range(thinking)))
        for uid in range(1, ITEMS + 1)
    ]


@pytest.mark.parametrize("thinking", [0, 1, 2, 3, None])
def test_scores_are_the_definition(recommender: Recommender, thinking: int | None) -> None:
    scores = recommender.scores(HISTORIES, thinking)
    assert scores.shape == (len(HISTORIES), ITEMS + 1)
    assert torch.isneginf(scores[:, 0]).all()
    levels = 3 if thinking is None else thinking
    for row, history in zip(scores, HISTORIES, strict=True):
        with torch.no_grad():
            slow = slow_scores(recommender.model, recommender.bundle.think_scale, history, levels)
        assert row[1:].tolist() == pytest.approx(slow, abs=1e-5)


def test_thinking_changes_the_ranking_here(parts: Bundle) -> None:
    eager = Recommender(replace(parts, think_scale=5.0))
    fast, slow = (eager.recommend({"history": ["i1"], "k": 48, "thinking": t}) for t in (0, 3))
    assert ids(fast) != ids(slow)
    assert sorted(ids(fast)) == sorted(ids(slow))


def test_a_scale_of_zero_makes_thinking_free(parts: Bundle) -> None:
    still = Recommender(replace(parts, think_scale=0.0))
    assert torch.equal(still.scores(HISTORIES, 0), still.scores(HISTORIES, 3))


def test_many_at_once_score_like_each_alone(recommender: Recommender) -> None:
    together = recommender.scores(HISTORIES)
    for row, history in zip(together, HISTORIES, strict=True):
        torch.testing.assert_close(recommender.scores([history])[0], row, rtol=0, atol=1e-5)


@pytest.mark.parametrize("thinking", [0, 2, 3])
def test_answers_are_the_rounded_scores_in_order(recommender: Recommender, thinking: int) -> None:
    history = [3, 8, 21]
    scores = recommender.scores([np.array(history)], thinking)[0].tolist()
    free = [uid for uid in range(1, ITEMS + 1) if uid not in history]
    ranked = sorted(free, key=lambda uid: (-round(scores[uid], DECIMALS), uid))[:7]
    request = {"history": [f"i{uid}" for uid in history], "k": 7, "thinking": thinking}
    answer = recommender.recommend(request)
    assert ids(answer) == [f"i{uid}" for uid in ranked]
    assert [item["score"] for item in answer["items"]] == [round(scores[uid], DECIMALS) for uid in ranked]


def test_without_a_wish_all_levels_think(recommender: Recommender) -> None:
    request = {"history": ["i4", "i9"], "k": 20}
    assert recommender.recommend(request) == recommender.recommend({**request, "thinking": 3})


def test_only_the_last_items_are_read_but_all_are_masked(recommender: Recommender) -> None:
    old, recent = KNOWN[:20], KNOWN[20:30]  # the model reads ten
    long = recommender.recommend({"history": old + recent, "k": 48, "explain": False})
    short = recommender.recommend({"history": recent, "k": 48, "explain": False})
    assert long["items"] == [item for item in short["items"] if item["item_id"] not in old]


def test_unknown_items_change_nothing_but_are_reported(recommender: Recommender) -> None:
    plain = recommender.recommend({"history": ["i1", "i2"]})
    mixed = recommender.recommend({"history": ["x", "i1", "y", "i2", "x"], "exclude": ["z"]})
    assert mixed == {**plain, "skipped": ["x", "y", "x"]}


def test_popular_items_come_most_popular_first_without_a_score(recommender: Recommender) -> None:
    answer = recommender.recommend({"history": []})
    assert answer["fallback"] == "popular"
    assert ids(answer) == [KNOWN[uid - 1] for uid in recommender.bundle.popular[:10]]
    assert {item["score"] for item in answer["items"]} == {None}
    assert ids(recommender.recommend({"history": [], "exclude": ids(answer)[:3]}))[:7] == ids(answer)[3:]


def test_candidates_are_ranked_as_they_would_be_among_all(recommender: Recommender) -> None:
    full = recommender.recommend({"history": ["i1", "i2"], "k": ITEMS})
    named = ["i40", "i3", "i1", "i40", "stranger", "i17"]
    few = recommender.recommend({"history": ["i1", "i2"], "k": 5, "candidates": named})
    assert few["items"] == [item for item in full["items"] if item["item_id"] in named]
    assert (ids(few).count("i1"), few["skipped_candidates"]) == (0, ["stranger"])
    assert "skipped_candidates" not in full
    best = recommender.recommend({"history": ["i1", "i2"], "k": 1, "candidates": named})
    assert best["items"] == few["items"][:1]


@pytest.mark.parametrize("history", [[], ["i1"]])
def test_no_candidate_that_can_be_ranked_is_an_empty_answer(
    recommender: Recommender, history: list[str]
) -> None:
    assert recommender.recommend({"history": history, "candidates": []})["items"] == []
    answer = recommender.recommend({"history": history, "candidates": ["x", "i3"], "exclude": ["i3"]})
    assert (answer["items"], answer["skipped_candidates"]) == ([], ["x"])


def test_without_a_history_candidates_come_popular_first_then_by_uid(parts: Bundle) -> None:
    maker = Recommender(replace(parts, popular=[30, 7]))
    answer = maker.recommend({"history": [], "candidates": ["i9", "i7", "i2", "i30"]})
    assert ids(answer) == ["i30", "i7", "i2", "i9"]
    assert answer["items"][2]["reasons"] == ["Not among the most popular; nothing is known of this history."]


def test_a_retired_candidate_is_reported(parts: Bundle) -> None:
    gone = Recommender(replace(parts, catalogue=replace(parts.catalogue, retired=frozenset({"i9"}))))
    answer = gone.recommend({"history": ["i1"], "candidates": ["i9", "i8"]})
    assert (ids(answer), answer["skipped_candidates"]) == (["i8"], ["i9"])


def test_everything_excluded_leaves_an_empty_answer(recommender: Recommender) -> None:
    assert recommender.recommend({"history": ["i1"], "exclude": KNOWN})["items"] == []
    assert recommender.recommend({"history": KNOWN})["items"] == []
    assert recommender.recommend({"history": [], "exclude": KNOWN})["items"] == []


def test_retired_items_are_read_but_never_recommended(parts: Bundle) -> None:
    gone = frozenset(parts.catalogue.item_ids[::2])
    after = Recommender(replace(parts, catalogue=replace(parts.catalogue, retired=gone)))
    before = Recommender(parts)
    history = [*sorted(gone)[:3], *parts.catalogue.item_ids[1:4:2]]
    for request_body in ({"history": history, "k": ITEMS}, {"history": [], "k": ITEMS}):
        all_items = [item["item_id"] for item in before.recommend(request_body)["items"]]
        recommended = after.recommend(request_body)
        assert [item["item_id"] for item in recommended["items"]] == [
            item_id for item_id in all_items if item_id not in gone
        ]
        assert recommended["skipped"] == []


def test_equal_scores_are_ordered_by_uid() -> None:
    flat = tiny_parts(epochs=1)
    with torch.no_grad():
        for weight in flat.model.parameters():
            weight.zero_()
    answer = Recommender(flat).recommend({"history": ["i7"], "k": 100})
    assert ids(answer) == [item for item in KNOWN if item != "i7"]


def test_broken_weights_recommend_nothing_instead_of_anything() -> None:
    broken = tiny_parts(epochs=1)
    with torch.no_grad():
        broken.model.act_bias.fill_(torch.nan)
    assert Recommender(broken).recommend({"history": ["i7"]})["items"] == []


def test_answers_name_release_and_codebook(bundle: Path, parts: Bundle) -> None:
    answer = Recommender.load(bundle, "a" * 64).recommend({"history": ["i1"], "k": 1})
    assert (answer["release"], answer["codebook"]) == ("a" * 64, parts.codebook.version)


@pytest.mark.parametrize("body", [{"history": ["i1", "i9"], "k": 48}, {"history": []}])
def test_equal_bundles_answer_with_equal_bytes(bundle: Path, parts: Bundle, body: dict[str, Any]) -> None:
    makers = (Recommender.load(bundle), Recommender.load(str(bundle)), Recommender(parts))
    assert len({json.dumps(maker.recommend(body)) for maker in makers}) == 1


def test_a_request_leaves_no_trace_in_the_next(recommender: Recommender) -> None:
    request = {"history": ["i1", "i2"], "k": 48}
    before = json.dumps(recommender.recommend(request))
    recommender.recommend({"history": ["i30"], "exclude": KNOWN[:40], "thinking": 0, "explain": False})
    assert json.dumps(recommender.recommend(request)) == before
