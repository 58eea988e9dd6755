"""A shortlist misses little, never invents, and leaves the rest of an answer as it is."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from car_model.bundle import HEADER, Bundle, BundleError
from car_model.recommender.ann_index import CandidateIndex, CandidateIndexError, InvertedFile
from car_model.recommender.recommender import Recommender
from tests.fixtures import tiny_parts

HISTORY = {"history": ["i1", "i4"], "k": 5}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return tiny_parts(epochs=2)


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def vectors(rows: int, dim: int = 16) -> np.ndarray:
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(40, dim))
    return (centres[rng.integers(0, 40, rows)] + 0.3 * rng.normal(size=(rows, dim))).astype(np.float32)


def test_an_index_finds_nearly_all_that_a_full_search_finds() -> None:
    table, queries = vectors(4000), vectors(50)
    uids = np.arange(1, 4001)
    neighbours = InvertedFile.build(table, uids).search(queries, 100)
    exact = [(np.argsort(-(table @ query), kind="stable")[:10] + 1).tolist() for query in queries]
    hits = [len(set(best) & set(row[:10])) for best, row in zip(exact, neighbours.tolist(), strict=True)]
    assert np.mean(hits) > 9


def test_an_index_is_the_same_every_time() -> None:
    first, second = (
        InvertedFile.build(vectors(3000), np.arange(1, 3001)).search(vectors(20), 50) for _ in range(2)
    )
    assert np.array_equal(first, second)


@pytest.mark.parametrize("rows", [1, 5, 17])
def test_a_few_items_have_an_index_too(rows: int) -> None:
    table = vectors(rows)
    neighbours = InvertedFile.build(table, np.arange(1, rows + 1)).search(table, rows + 3)
    assert neighbours.shape == (rows, rows + 3)
    assert set(neighbours.ravel().tolist()) <= set(range(rows + 1))
    assert neighbours.any(axis=1).all()


def test_texts_bring_in_what_the_act_head_would_not() -> None:
    rows, texts = torch.zeros(501, 4, dtype=torch.float64), torch.randn(501, 8)
    rows[1:251, 0] = 1.0  # the act head likes the first half
    texts = torch.nn.functional.normalize(texts, dim=1)
    candidate_index = CandidateIndex(rows, torch.zeros(501, dtype=torch.float64), texts, 20)
    state = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    [near] = candidate_index.candidates(state, [np.array([400])], latest=10)
    assert 400 in near.tolist()  # nothing is nearer to a text than itself
    assert (near > 0).all() and (near.diff() > 0).all()


def test_a_shortlist_of_everything_ranks_as_all_scores_do(bundle: Bundle) -> None:
    exact = Recommender(bundle)
    short = Recommender(replace(bundle, ann_candidates=10**6))
    assert short.ann_index
    for inverted_file in short.ann_index.indices:
        inverted_file.index.nprobe = inverted_file.index.nlist  # look into every cell
    for request in (HISTORY, {**HISTORY, "exclude": ["i2"]}, {**HISTORY, "thinking": 1}):
        first, second = exact.recommend(request), short.recommend(request)
        assert ids(first) == ids(second)
        differences = {
            round(mine["score"] - theirs["score"], 3)
            for mine, theirs in zip(first["items"], second["items"], strict=True)
        }
        assert max(differences) - min(differences) < 2e-3  # the same up to one number
        assert [item["reasons"] for item in first["items"]] == [item["reasons"] for item in second["items"]]


def test_candidates_and_long_lists_of_exclusions_are_answered_exactly(bundle: Bundle) -> None:
    exact, short = Recommender(bundle), Recommender(replace(bundle, ann_candidates=3))
    for request in ({**HISTORY, "candidates": ["i7", "i8", "i9"]}, {**HISTORY, "k": 12}):
        assert short.recommend(request)["items"] == exact.recommend(request)["items"]


def test_a_bundle_keeps_its_shortlist_and_refuses_nonsense(bundle: Bundle, tmp_path: Path) -> None:
    header = replace(bundle, ann_candidates=7).save(tmp_path / "bundle")
    assert header.ann_candidates == 7
    assert Bundle.load(tmp_path / "bundle").ann_candidates == 7
    assert bundle.save(tmp_path / "plain").ann_candidates is None
    assert "ann_candidates" not in (tmp_path / "plain" / HEADER).read_text()
    path = tmp_path / "bundle" / "bundle.json"
    path.write_text(path.read_text().replace('"ann_candidates": 7', '"ann_candidates": "all"'))
    with pytest.raises(BundleError, match="no proper 'ann_candidates'"):
        Bundle.load(tmp_path / "bundle")


def test_without_faiss_the_sentence_says_what_to_do(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(CandidateIndexError, match=r"needs faiss: pip install .* make image EXTRAS=ann"):
        Recommender(replace(bundle, ann_candidates=5))
    Recommender(bundle)
