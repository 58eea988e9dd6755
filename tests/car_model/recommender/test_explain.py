"""Reasons: the model's own expectations, in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from car_model.bundle import Bundle
from car_model.codebook.labels import CodeLabels
from car_model.recommender.explain import MIN_DROP
from car_model.recommender.recommender import Recommender

REQUEST = {"history": ["i1", "i5", "i9"], "k": 20}


def test_a_path_has_a_step_a_level_that_says_what_was_expected(recommender: Recommender) -> None:
    bundle = recommender.bundle
    with torch.inference_mode():
        state = bundle.model.last_state(torch.tensor([[1, 5, 9]]))
        think = bundle.model.think_logits(state)[0].softmax(-1).numpy()
    for item in recommender.recommend(REQUEST)["items"]:
        sid = bundle.catalogue.sids[bundle.catalogue.uids[item["item_id"]] - 1]
        assert [step["level"] for step in item["path"]] == [1, 2, 3]
        for step, code, chances, words in zip(item["path"], sid, think, bundle.labels.words, strict=True):
            expected = int(chances.argmax())
            assert (step["code"], step["expected_code"]) == (code, expected)
            assert (step["group"], step["expected_group"]) == (words[code], words[expected])
            assert step["rank"] == 1 + (chances > chances[code]).sum()
            assert step["probability"] == pytest.approx(chances[code], abs=6e-4)
            assert step["expected_probability"] == pytest.approx(chances[expected], abs=6e-4)
            assert step["agrees"] == (code == expected)


def test_lift_is_against_the_codes_share_of_training(recommender: Recommender) -> None:
    share = recommender.bundle.code_share
    assert share.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    for item in recommender.recommend(REQUEST)["items"]:
        for level, step in enumerate(item["path"]):
            assert step["lift"] == pytest.approx(step["probability"] / share[level, step["code"]], abs=0.06)


def owned(parts: Bundle, *words: str) -> CodeLabels:
    """Labels under which every item carries these words itself."""
    groups = [[f"group {code}" for code in range(4)] for _ in range(3)]
    return CodeLabels(groups, {item: list(words) for item in parts.catalogue.item_ids})


def test_reasons_are_in_the_items_own_words(parts: Bundle) -> None:
    rare = replace(parts, code_share=parts.code_share / 10, labels=owned(parts, "war", "", "1997"))
    for item in Recommender(rare).recommend(REQUEST)["items"]:
        assert item["words"] == "war > 1997"
        assert [step["words"] for step in item["path"]] == ["war", "", "1997"]
        first, second = sorted((item["path"][0], item["path"][2]), key=lambda step: -step["probability"])
        assert item["reasons"][0] == (
            f"“{first['words']}” is {first['lift']:.1f} times as likely after this history as on average"
            f", “{second['words']}” {second['lift']:.1f} times."
        )


def test_a_groups_label_is_said_to_be_the_groups(parts: Bundle) -> None:
    rare = replace(parts, code_share=parts.code_share / 10, labels=owned(parts, "", "", ""))
    for item in Recommender(rare).recommend(REQUEST)["items"]:
        assert item["words"] == ""
        assert item["reasons"][0].startswith("Its group (often “group ")


def test_what_no_history_lifts_is_no_reason(parts: Bundle) -> None:
    common = replace(parts, code_share=np.ones_like(parts.code_share), popular=[])
    for item in Recommender(common).recommend(REQUEST)["items"]:
        assert not any("times as likely" in reason for reason in item["reasons"])


def test_codes_without_words_are_no_reason(parts: Bundle) -> None:
    mute = replace(parts, labels=CodeLabels([[""] * 4] * 3), code_share=parts.code_share / 10, popular=[])
    for item in Recommender(mute).recommend(REQUEST)["items"]:
        assert not any("times as likely" in reason for reason in item["reasons"])


def test_levels_that_the_model_expected_are_named(recommender: Recommender) -> None:
    seen = set()
    for item in recommender.recommend({**REQUEST, "k": 48})["items"]:
        levels = [str(step["level"]) for step in item["path"] if step["agrees"]]
        reasons = [reason for reason in item["reasons"] if reason.startswith("Just what the model expected")]
        assert len(reasons) == bool(levels)
        if levels:
            assert reasons[0].endswith(f"{' and '.join(levels)} of 3.")
        seen.add(len(levels))
    assert len(seen) > 2


def test_where_no_code_speaks_for_a_popular_item_its_rank_does(parts: Bundle) -> None:
    common = replace(parts, code_share=np.ones_like(parts.code_share), popular=[30, 7])
    items = Recommender(common).recommend({**REQUEST, "k": 48})["items"]
    reasons = {item["item_id"]: item["reasons"][0] for item in items if "Popular" in item["reasons"][0]}
    ranks = {"i30": "Popular: number 1 of 48.", "i7": "Popular: number 2 of 48."}
    agreed = {item["item_id"] for item in items if any(step["agrees"] for step in item["path"])}
    assert reasons == {item: rank for item, rank in ranks.items() if item not in agreed}


def with_texts(parts: Bundle, likeness: float) -> Bundle:
    """The bundle with texts whose nearness joins the score."""
    text = np.random.default_rng(0).normal(size=(parts.catalogue.size, 5)).astype(np.float32)
    return replace(parts, catalogue=replace(parts.catalogue, text=text), similarity_scale=likeness)


@pytest.mark.parametrize("likeness", [0.0, 3.0])
def test_items_of_the_history_weigh_by_what_the_score_loses_without_them(
    parts: Bundle, likeness: float
) -> None:
    """The definition, slowly: ask again without each item and see how much more is lost than by others."""
    recommender = Recommender(with_texts(parts, likeness))
    history = [f"i{i}" for i in (1, 5, 9, 2, 7)]
    uids = recommender.catalogue.uids
    all_scores = recommender.scores([np.array([uids[item] for item in history])])[0]
    popular = recommender.bundle.popular
    for item in recommender.recommend({"history": history, "k": 48})["items"]:
        lost = {}
        for removed in reversed(history):
            rest = np.array([uids[other] for other in history if other != removed])
            fall = (all_scores - recommender.scores([rest])[0]).double()
            lost[removed] = round(float(fall[uids[item["item_id"]]] - fall[popular].mean()), 3)
        best = sorted(
            (removed for removed in lost if lost[removed] >= MIN_DROP), key=lambda removed: -lost[removed]
        )
        assert [cause["item_id"] for cause in item["because"]] == best[:2]
        assert all(
            cause["weight"] == pytest.approx(lost[cause["item_id"]], abs=2e-3) for cause in item["because"]
        )


@pytest.mark.parametrize("history", [["i4"], ["i4", "i4"], ["i4", "x"], ["i4"] * 60, ["i1", "i2"] * 30])
def test_short_and_repeated_histories_are_explained(recommender: Recommender, history: list[str]) -> None:
    for item in recommender.recommend({"history": history})["items"]:
        causes = [cause["item_id"] for cause in item["because"]]
        assert len(set(causes)) == len(causes)
        assert set(causes) <= set(history)
        assert item["alike"]["item_id"] in history
        assert item["reasons"][-1].startswith(f"Of the history, “{item['alike']['title']}” is most like it")


def test_what_weighs_is_named(recommender: Recommender) -> None:
    items = recommender.recommend({"history": [f"i{i}" for i in (1, 5, 9, 2, 7)], "k": 48})["items"]
    endings = {len(item["because"]): item["reasons"][-1] for item in items}
    assert endings[1].endswith(" weighs most.")
    assert endings[2].endswith(" weigh most.")
    assert endings[2].count(" and ") == 1


def test_a_code_that_was_never_trained_on_has_no_lift(parts: Bundle) -> None:
    unseen = replace(parts, code_share=np.zeros_like(parts.code_share), popular=[])
    for item in Recommender(unseen).recommend(REQUEST)["items"]:
        assert [step["lift"] for step in item["path"]] == [None] * 3
        assert not any("times as likely" in reason for reason in item["reasons"])


def test_an_item_is_closest_to_its_twin(parts: Bundle) -> None:
    """Two items with one vector: the one in the history explains the other."""
    recommender = Recommender(parts)
    chunks = recommender.explainer.chunks.clone()
    chunks[30] = chunks[5]
    recommender.explainer.chunks = chunks
    items = recommender.recommend({"history": ["i1", "i5", "i9"], "k": 48})["items"]
    twin = next(item for item in items if item["item_id"] == "i30")
    assert twin["alike"] == {"item_id": "i5", "title": "Film number 4"}
    assert twin["reasons"][-1].startswith("Of the history, “Film number 4” is most like it")


def test_popularity_is_counted_among_what_is_offered(parts: Bundle) -> None:
    catalogue = replace(parts.catalogue, retired=frozenset(["i3", "i4"]))
    item = Recommender(replace(parts, catalogue=catalogue)).recommend({"history": []})["items"][0]
    assert " of 46; nothing is known of this history." in item["reasons"][0]


def test_popular_items_say_so(recommender: Recommender) -> None:
    item = recommender.recommend({"history": []})["items"][0]
    assert item["reasons"] == ["Popular: number 1 of 48; nothing is known of this history."]
    assert (item["path"], item["because"], item["alike"]) == ([], [], None)


def test_explaining_changes_no_item_and_no_score(recommender: Recommender) -> None:
    full = recommender.recommend(REQUEST)["items"]
    bare = recommender.recommend({**REQUEST, "explain": False})["items"]
    assert [{key: item[key] for key in ("item_id", "title", "score")} for item in full] == bare
