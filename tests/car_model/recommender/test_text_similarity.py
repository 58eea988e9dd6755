"""TextSimilarity is the cosine to the nearest text of a history, and joins the score with its weight."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from car_model.bundle import HEADER, Bundle, BundleError
from car_model.recommender.recommender import Recommender
from car_model.recommender.text_similarity import TextSimilarity
from tests.fixtures import ITEMS, tiny_parts, tiny_vectors

TEXT = np.concatenate([np.zeros((1, 16), dtype=np.float32), tiny_vectors()])


def slow(history: list[int], uid: int) -> float:
    """The definition, one pair at a time."""
    rows = TEXT.astype(np.float64)
    lengths = np.maximum(np.linalg.norm(rows, axis=1), 1e-12)
    return max(rows[seen] @ rows[uid] / (lengths[seen] * lengths[uid]) for seen in history)


@given(st.lists(st.integers(1, ITEMS), min_size=1, max_size=6), st.integers(1, ITEMS))
def test_it_is_the_definition(history: list[int], uid: int) -> None:
    cosines = TextSimilarity(TEXT, 50).to_all([np.array(history)])
    assert cosines.shape == (1, ITEMS + 1)
    assert float(cosines[0, uid]) == pytest.approx(slow(history, uid), abs=1e-5)
    assert float(cosines[0, 0]) == 0.0


def test_an_item_of_the_history_is_like_itself_and_order_means_nothing() -> None:
    similarity = TextSimilarity(TEXT, 50)
    first, second = similarity.to_all([np.array([3, 9, 20]), np.array([20, 3, 9])])
    assert torch.equal(first, second)
    assert first[[3, 9, 20]].tolist() == pytest.approx([1.0, 1.0, 1.0], abs=1e-6)


def test_only_the_latest_items_count() -> None:
    assert torch.equal(
        TextSimilarity(TEXT, 2).to_all([np.array([3, 9, 20])]),
        TextSimilarity(TEXT, 2).to_all([np.array([9, 20])]),
    )


def test_an_answer_does_not_depend_on_its_batch() -> None:
    histories = [np.array([3, 9]), np.array([20]), np.array([5, 6, 7, 8])]
    similarity = TextSimilarity(TEXT, 50)
    assert torch.equal(
        similarity.to_all(histories), torch.cat([similarity.to_all([history]) for history in histories])
    )


def test_a_text_without_a_direction_is_like_none() -> None:
    blank = TEXT.copy()
    blank[7] = 0
    cosines = TextSimilarity(blank, 50).to_all([np.array([7])])
    assert torch.equal(cosines, torch.zeros(1, ITEMS + 1))


@pytest.fixture(scope="module")
def bundle_with_text() -> Bundle:
    parts = tiny_parts()
    return replace(parts, catalogue=replace(parts.catalogue, text=TEXT[1:]), similarity_scale=3.0)


def test_it_joins_the_score_with_its_weight(bundle_with_text: Bundle) -> None:
    histories = [np.array([3, 9, 20]), np.array([5])]
    plain = Recommender(replace(bundle_with_text, similarity_scale=0.0)).scores(histories)
    scores = Recommender(bundle_with_text).scores(histories)
    assert torch.allclose(scores, plain + 3 * TextSimilarity(TEXT, 10).to_all(histories))
    assert torch.isneginf(scores[:, 0]).all()


def test_answers_are_ranked_by_the_very_scores(bundle_with_text: Bundle) -> None:
    recommender = Recommender(bundle_with_text)
    history = np.array([3, 9, 20])
    scores = recommender.scores([history])[0].clone()
    scores[history] = -torch.inf
    items = recommender.recommend({"history": ["i3", "i9", "i20"], "k": 5})["items"]
    top = scores.topk(5)
    assert [bundle_with_text.catalogue.uids[item["item_id"]] for item in items] == top.indices.tolist()
    assert [item["score"] for item in items] == pytest.approx(top.values.tolist(), abs=1e-4)


def test_a_bundle_keeps_texts_and_weight(bundle_with_text: Bundle, tmp_path: Path) -> None:
    rounded = replace(
        bundle_with_text,
        catalogue=replace(bundle_with_text.catalogue, text=TEXT[1:].astype(np.float16).astype("f4")),
    )
    rounded.save(tmp_path)
    back = Bundle.load(tmp_path)
    assert back.similarity_scale == 3.0
    assert back.catalogue.text is not None
    assert np.array_equal(back.catalogue.text, rounded.catalogue.text)
    histories = [np.array([3, 9, 20])]
    assert torch.equal(Recommender(back).scores(histories), Recommender(rounded).scores(histories))


@pytest.mark.parametrize("scale", ["-1", "1e9", '"3"', "null", "NaN"])
def test_a_weight_that_is_none_is_refused(bundle_with_text: Bundle, tmp_path: Path, scale: str) -> None:
    bundle_with_text.save(tmp_path)
    text = (tmp_path / HEADER).read_text()
    (tmp_path / HEADER).write_text(text.replace('"similarity_scale": 3.0', f'"similarity_scale": {scale}'))
    with pytest.raises(BundleError, match=r"similarity_scale|NaN. is not a finite"):
        Bundle.load(tmp_path)


def test_a_weight_without_texts_is_refused(bundle_with_text: Bundle, tmp_path: Path) -> None:
    replace(bundle_with_text, catalogue=replace(bundle_with_text.catalogue, text=None)).save(tmp_path)
    with pytest.raises(BundleError, match="the catalogue has no coordinates"):
        Bundle.load(tmp_path)
