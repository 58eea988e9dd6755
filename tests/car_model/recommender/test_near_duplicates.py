"""Near-duplicates are skipped alike in answers and in evaluation, if the release says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from car_model.bundle import Bundle, BundleError, check_bundle
from car_model.data.catalogue import Catalogue
from car_model.evaluation.evaluate import Holdout, holdout_ranks
from car_model.recommender.near_duplicates import share_with_near_duplicates
from car_model.recommender.recommender import Recommender
from car_model.training.recipe import Recipe
from car_model.training.train_car import skips_near_duplicates
from tests.fixtures import ITEMS


def pairs(items: int) -> np.ndarray:
    """Texts by row: items 2n and 2n + 1 are nearly one another, and like no third item."""
    return np.repeat(np.eye(items // 2, dtype=np.float32), 2, axis=0) + np.float32(1e-3)


@pytest.fixture(scope="module")
def listed_twice(parts: Bundle) -> Bundle:
    return replace(parts, catalogue=replace(parts.catalogue, text=pairs(ITEMS)), near_duplicate_cosine=0.95)


def partner(item: str) -> str:
    row = int(item[1:]) - 1
    return f"i{(row ^ 1) + 1}"


def test_an_answer_holds_no_item_twice_and_none_of_the_history_again(
    listed_twice: Bundle, tmp_path: Path
) -> None:
    listed_twice.save(tmp_path / "bundle")
    recommender = Recommender.load(tmp_path / "bundle")
    for history in (["i3", "i8"], []):
        answer = recommender.recommend({"history": history, "k": 50})
        items = [item["item_id"] for item in answer["items"]]
        assert len(items) == ITEMS // 2 - len(history)
        assert not {partner(item) for item in [*items, *history]} & set(items)


def test_what_is_left_keeps_its_order_and_its_scores(listed_twice: Bundle) -> None:
    every = Recommender(replace(listed_twice, near_duplicate_cosine=0.0))
    request = {"history": ["i3", "i8"], "k": ITEMS}
    expected: list[tuple[str, float]] = []
    for item in every.recommend(request)["items"]:
        if partner(item["item_id"]) not in [*request["history"], *(known for known, _ in expected)]:
            expected.append((item["item_id"], item["score"]))
    for k in (1, 5, ITEMS):
        answer = Recommender(listed_twice).recommend({**request, "k": k})
        assert [(item["item_id"], item["score"]) for item in answer["items"]] == expected[:k]


def test_candidates_that_a_request_names_are_all_ranked(listed_twice: Bundle) -> None:
    request = {"history": ["i3"], "candidates": ["i4", "i9", "i10"]}
    assert len(Recommender(listed_twice).recommend(request)["items"]) == 3


def test_evaluation_ranks_what_answers_hold(listed_twice: Bundle, holdout: Holdout) -> None:
    recommender = Recommender(listed_twice)
    ranks = holdout_ranks(recommender, holdout)
    for prompt, target, rank in zip(holdout.prompts, holdout.targets, ranks, strict=True):
        answer = recommender.recommend({"history": prompt, "k": ITEMS, "explain": False})
        items = [item["item_id"] for item in answer["items"]]
        assert rank == (items.index(target) + 1 if target in items else np.inf)


def test_a_catalogue_with_many_is_noticed() -> None:
    def catalogue(text: np.ndarray) -> Catalogue:
        names = [f"x{row}" for row in range(len(text))]
        return Catalogue(names, names, np.zeros((len(text), 2), dtype=np.int32), text=text)

    many, few, small = catalogue(pairs(400)), catalogue(np.eye(400, dtype=np.float32)), catalogue(pairs(20))
    assert share_with_near_duplicates(many, 0.95) == 1
    assert share_with_near_duplicates(few, 0.95) == 0
    assert [skips_near_duplicates(Recipe(), each) for each in (many, few, small)] == [True, False, False]
    skips, offers = Recipe(near_duplicates="skip"), Recipe(near_duplicates="offer")
    assert skips_near_duplicates(skips, small)
    assert not skips_near_duplicates(offers, many)
    assert not skips_near_duplicates(skips, replace(many, text=None))


def test_a_bundle_without_texts_cannot_skip(listed_twice: Bundle, tmp_path: Path) -> None:
    replace(listed_twice, catalogue=replace(listed_twice.catalogue, text=None)).save(tmp_path)
    with pytest.raises(BundleError, match="no coordinates of texts"):
        check_bundle(tmp_path)
