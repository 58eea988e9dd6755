"""Reasons: the model's own expectations, in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from car_model.bundle import Bundle
from car_model.explain import LIFT, REASONS
from car_model.labels import CodeLabels
from car_model.recommend import Recommender

REQUEST = {"history": ["i1", "i5", "i9"], "k": 20}


def test_a_path_has_a_step_a_level_that_says_what_was_expected(recommender: Recommender) -> None:
    bundle = recommender.bundle
    with torch.inference_mode():
        state = bundle.model.last_state(torch.tensor([[1, 5, 9]]))
        think = bundle.model.think_logits(state)[0].softmax(-1).numpy()
    for item in recommender.answer(REQUEST)["items"]:
        sid = bundle.catalogue.sids[bundle.catalogue.uids[item["item_id"]] - 1]
        assert [step["level"] for step in item["path"]] == [1, 2, 3]
        for step, code, chances, words in zip(item["path"], sid, think, bundle.labels.words, strict=True):
            expected = int(chances.argmax())
            assert (step["code"], step["expected_code"]) == (code, expected)
            assert (step["label"], step["expected"]) == (words[code], words[expected])
            assert step["probability"] == pytest.approx(chances[code], abs=6e-4)
            assert step["expected_probability"] == pytest.approx(chances[expected], abs=6e-4)
            assert step["agrees"] == (code == expected)


def test_lift_is_against_the_codes_share_of_training(recommender: Recommender) -> None:
    share = recommender.bundle.code_share
    assert share.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    for item in recommender.answer(REQUEST)["items"]:
        for level, step in enumerate(item["path"]):
            assert step["lift"] == pytest.approx(step["probability"] / share[level, step["code"]], abs=0.06)


def test_reasons_name_lifted_codes_and_the_nearest_item(parts: Bundle) -> None:
    rare = replace(parts, code_share=parts.code_share / 10)  # everything is lifted
    for item in Recommender(rare).answer(REQUEST)["items"]:
        labels = {step["label"] for step in item["path"] if step["lift"] >= LIFT and step["label"]}
        *fits, closest = item["reasons"]
        assert len(fits) == min(REASONS, len(labels))  # a label that two levels share is one reason
        assert all(any(f"“{label}”" in reason for label in labels) for reason in fits)
        assert closest in {f"Closest to “Film number {at}” in the history." for at in (0, 4, 8)}


def test_codes_that_are_expected_anyway_are_no_reason(parts: Bundle) -> None:
    common = replace(parts, code_share=np.ones_like(parts.code_share), popular=[])
    for item in Recommender(common).answer(REQUEST)["items"]:
        assert len(item["reasons"]) == 1


def test_codes_without_words_are_no_reason(parts: Bundle) -> None:
    mute = replace(parts, labels=CodeLabels([[""] * 4] * 3), code_share=parts.code_share / 10, popular=[])
    for item in Recommender(mute).answer(REQUEST)["items"]:
        assert len(item["reasons"]) == 1


def test_where_no_code_speaks_for_a_popular_item_its_rank_does(parts: Bundle) -> None:
    common = replace(parts, code_share=np.ones_like(parts.code_share), popular=[30, 7])
    items = Recommender(common).answer({**REQUEST, "k": 48})["items"]
    said = {item["item_id"]: item["reasons"][0] for item in items if len(item["reasons"]) == 2}
    assert said == {"i30": "Popular: number 1 of 48.", "i7": "Popular: number 2 of 48."}


def test_a_code_that_was_never_trained_on_has_no_lift(parts: Bundle) -> None:
    unseen = replace(parts, code_share=np.zeros_like(parts.code_share), popular=[])
    for item in Recommender(unseen).answer(REQUEST)["items"]:
        assert [step["lift"] for step in item["path"]] == [None] * 3
        assert len(item["reasons"]) == 1


def test_an_item_is_closest_to_its_twin(parts: Bundle) -> None:
    """Two items with one vector: the one in the history explains the other."""
    recommender = Recommender(parts)
    vectors = recommender._explainer.vectors.clone()
    vectors[30] = vectors[5]
    recommender._explainer.vectors = vectors
    items = recommender.answer({"history": ["i1", "i5", "i9"], "k": 48})["items"]
    twin = next(item for item in items if item["item_id"] == "i30")
    assert twin["reasons"][-1] == "Closest to “Film number 4” in the history."


def test_popular_items_say_so(recommender: Recommender) -> None:
    item = recommender.answer({"history": []})["items"][0]
    assert item["reasons"] == ["Popular: number 1 of 48; nothing is known of this history."]
    assert item["path"] == []


def test_explaining_changes_no_item_and_no_score(recommender: Recommender) -> None:
    full = recommender.answer(REQUEST)["items"]
    bare = recommender.answer({**REQUEST, "explain": False})["items"]
    assert [{key: item[key] for key in ("item_id", "title", "score")} for item in full] == bare
