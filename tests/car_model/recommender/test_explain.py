"""Reasons: the model's own expectations, in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from car_model.bundle import Bundle
from car_model.codebook.labels import CodeLabels
from car_model.recommender.explain import MAX_TITLE, MIN_DROP, MIN_NAMED_DROP, brief
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
    rare = replace(parts, code_share=parts.code_share / 10, labels=owned(parts, "war", "", "Film Noir"))
    for item in Recommender(rare).recommend(REQUEST)["items"]:
        assert item["words"] == "war > Film Noir"
        assert [step["words"] for step in item["path"]] == ["war", "", "Film Noir"]
        first, second = sorted((item["path"][0], item["path"][2]), key=lambda step: -step["probability"])
        assert item["reasons"][0] == f"Fits the interest in {first['words']} and {second['words']}."


def test_words_that_no_item_of_the_history_has_are_what_comes_next(parts: Bundle) -> None:
    labels = owned(parts, "Lamps", "", "")
    history = {item: ["Bulbs", "", ""] for item in REQUEST["history"]}
    rare = replace(
        parts, code_share=parts.code_share / 10, labels=replace(labels, items={**labels.items, **history})
    )
    for item in Recommender(rare).recommend(REQUEST)["items"]:
        assert item["reasons"][0] == "Lamps often comes next."


def test_of_long_words_one_is_named(parts: Bundle) -> None:
    words = ("Creams & Moisturizers", "Tools & Accessories of the Human Hand", "")
    rare = replace(parts, code_share=parts.code_share / 10, labels=owned(parts, *words))
    for item in Recommender(rare).recommend(REQUEST)["items"]:
        first = max(item["path"][:2], key=lambda step: step["probability"])
        assert item["reasons"][0] == f"Fits the interest in {first['words']}."


def test_a_groups_label_is_no_reason(parts: Bundle) -> None:
    """An item need not carry its group's words."""
    rare = replace(parts, code_share=parts.code_share / 10, labels=owned(parts, "", "", ""))
    for item in Recommender(rare).recommend(REQUEST)["items"]:
        assert item["words"] == ""
        assert "group" not in " ".join(item["reasons"])


def test_what_no_history_lifts_is_no_reason(parts: Bundle) -> None:
    common = replace(parts, code_share=np.ones_like(parts.code_share), popular=[])
    for item in Recommender(common).recommend(REQUEST)["items"]:
        assert not any("interest" in reason or "next" in reason for reason in item["reasons"])


def test_codes_without_words_are_no_reason(parts: Bundle) -> None:
    mute = replace(parts, labels=CodeLabels([[""] * 4] * 3), code_share=parts.code_share / 10, popular=[])
    for item in Recommender(mute).recommend(REQUEST)["items"]:
        assert not any("interest" in reason or "next" in reason for reason in item["reasons"])


def test_a_popular_items_rank_is_a_reason_if_there_are_not_two(parts: Bundle) -> None:
    common = replace(parts, code_share=np.ones_like(parts.code_share), popular=[30, 7])
    items = Recommender(common).recommend({**REQUEST, "k": 48})["items"]
    reasons = {item["item_id"]: item["reasons"][-1] for item in items if "Popular" in item["reasons"][-1]}
    assert reasons == {"i30": "Popular: number 1 of 48.", "i7": "Popular: number 2 of 48."}
    rare = replace(common, code_share=parts.code_share / 10, labels=owned(parts, "war", "", ""))
    with_two = with_texts(rare, 0.0)
    with_two.catalogue.text[:] = 1
    assert not any("Popular" in text for text in all_reasons(Recommender(with_two).recommend(REQUEST)))


def all_reasons(answer: dict) -> list[str]:
    return [reason for item in answer["items"] for reason in item["reasons"]]


def test_an_item_that_nothing_singles_out_says_so(parts: Bundle) -> None:
    common = replace(with_texts(parts, 0.0), code_share=np.ones_like(parts.code_share), popular=[])
    common.catalogue.text[:] = np.eye(48, 5)
    assert "The history as a whole speaks for it." in all_reasons(Recommender(common).recommend(REQUEST))


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
def test_short_and_repeated_histories_are_explained(parts: Bundle, history: list[str]) -> None:
    for item in Recommender(with_texts(parts, 0.0)).recommend({"history": history})["items"]:
        causes = [cause["item_id"] for cause in item["because"]]
        assert len(set(causes)) == len(causes)
        assert set(causes) <= set(history)
        assert item["alike"] is None or item["alike"]["item_id"] in history


def texts_of(parts: Bundle, *, nearest: dict[str, str], strays: float = 0.0) -> Bundle:
    """Every item has a text of its own, but for those that have another's, or nearly so."""
    text = np.eye(parts.catalogue.size, dtype=np.float32)
    uids = parts.catalogue.uids
    for item, twin in nearest.items():
        text[uids[item] - 1] = strays * text[uids[item] - 1] + text[uids[twin] - 1]
    return replace(parts, catalogue=replace(parts.catalogue, text=text))


def test_what_weighs_is_named_if_it_is_related(parts: Bundle) -> None:
    """The latest item weighs in on everything: it is named where its text has to do with the item's."""
    request = {"history": [f"i{i}" for i in (1, 5, 9, 2, 7)], "k": 48}
    heavy = [item for item in Recommender(parts).recommend(request)["items"] if item["because"]]
    heavy = [item for item in heavy if item["because"][0]["weight"] >= MIN_NAMED_DROP]
    assert len(heavy) > 2
    for item in heavy:  # without texts
        assert f"Mostly because of “{item['because'][0]['title']}”." in item["reasons"]
    causes = {item["item_id"]: item["because"][0]["item_id"] for item in heavy}
    for strays, sentence in (
        (0.5, "Like “{}”, which counts most."),
        (3.0, "Mostly because of “{}”."),
        (9.0, ""),
    ):
        items = Recommender(texts_of(parts, nearest=causes, strays=strays)).recommend(request)["items"]
        for item in (item for item in items if item["item_id"] in causes):
            expected = sentence.format(item["because"][0]["title"])
            assert not sentence or expected in item["reasons"]
            assert sentence or not any("“" in reason for reason in item["reasons"])


def test_a_code_that_was_never_trained_on_has_no_lift(parts: Bundle) -> None:
    unseen = replace(parts, code_share=np.zeros_like(parts.code_share), popular=[])
    for item in Recommender(unseen).recommend(REQUEST)["items"]:
        assert [step["lift"] for step in item["path"]] == [None] * 3
        assert not any("interest" in reason or "next" in reason for reason in item["reasons"])


def test_likeness_is_of_texts_and_claimed_only_if_one_is_near(parts: Bundle) -> None:
    """However long ago: the model itself reads the latest ten items only."""
    history = ["i5", "i9", *(f"i{i}" for i in range(31, 47))]
    recommender = Recommender(texts_of(parts, nearest={"i30": "i5", "i29": "i9"}, strays=0.5))
    items = {item["item_id"]: item for item in recommender.recommend({"history": history, "k": 48})["items"]}
    assert items["i30"]["alike"] == {"item_id": "i5", "title": "Film number 4", "similarity": 0.894}
    assert any(reason.startswith("Like “Film number 4”") for reason in items["i30"]["reasons"])
    assert {item for item in items if items[item]["alike"]} == {"i30", "i29"}
    assert not any(
        "Like" in reason for item in items.values() if not item["alike"] for reason in item["reasons"]
    )


def test_of_two_equal_texts_the_latest_is_named(parts: Bundle) -> None:
    recommender = Recommender(texts_of(parts, nearest={"i30": "i5", "i9": "i5"}))
    items = recommender.recommend({"history": ["i5", "i9", "i1"], "k": 48})["items"]
    assert next(item for item in items if item["item_id"] == "i30")["alike"]["item_id"] == "i9"


@pytest.mark.parametrize(
    ("title", "shortened"),
    [
        ("Brief", "Brief"),
        ("  Spaced \n out ", "Spaced out"),
        ("OPI Nail Lacquer, Simmer and Shimmer, (0.5-Fluid Ounce)", "OPI Nail Lacquer, Simmer and Shimmer…"),
        ("x" * 60, "x" * (MAX_TITLE - 1) + "…"),
        ("七人の侍" * 20, ("七人の侍" * 20)[: MAX_TITLE - 1] + "…"),
    ],
)
def test_long_titles_end_with_a_whole_word_if_there_is_one(title: str, shortened: str) -> None:
    assert brief(title) == shortened


@given(st.text(min_size=1, max_size=200))
def test_no_title_is_longer_than_the_limit(title: str) -> None:
    assert len(brief(title)) <= MAX_TITLE


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
