"""New items without retraining: known items answer as before, new ones are found through their SIDs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from car_model.bundle import Bundle
from car_model.codebook.codebook import CodebookError
from car_model.data.catalogue import CatalogueError
from car_model.recommender.recommender import Recommender
from car_model.training.onboard import OnboardingError, onboard, reuse_weights
from tests.car_model.builders import tiny_dataset
from tests.fixtures import ITEMS, tiny_parts, tiny_vectors


@pytest.fixture(scope="module")
def parent() -> Bundle:
    return tiny_parts(epochs=20)


@pytest.fixture(scope="module")
def grown(parent: Bundle) -> Bundle:
    """Four new items, one a genre (genres repeat every four items)."""
    return onboard(parent, ["n0", "n1", "n2", "n3"], ["N0", "N1", "N2", "N3"], tiny_vectors()[:4])


def history(bundle: Bundle, genre: int) -> np.ndarray:
    return np.array([bundle.catalogue.uids[f"i{at + 1}"] for at in range(genre, ITEMS, 4)][:6])


def test_known_items_keep_uid_sid_and_logit(parent: Bundle, grown: Bundle) -> None:
    assert grown.catalogue.item_ids[:ITEMS] == parent.catalogue.item_ids
    assert np.array_equal(grown.catalogue.sids[:ITEMS], parent.catalogue.sids)
    prompt = torch.from_numpy(history(parent, 1))[None]
    with torch.inference_mode():
        before, after = (one.model.act_logits(one.model.last_state(prompt)) for one in (parent, grown))
    assert torch.allclose(after[:, 1 : ITEMS + 1], before[:, 1:], rtol=0, atol=1e-5)


def test_of_the_new_items_the_histories_own_genre_ranks_first(grown: Bundle) -> None:
    recommender = Recommender(grown)
    for genre in range(4):
        scores = recommender.scores([history(grown, genre)])[0, ITEMS + 1 :]
        assert int(scores.argmax()) == genre


def test_new_items_are_answered_explained_and_read_as_history(grown: Bundle, tmp_path: Path) -> None:
    grown.save(tmp_path / "bundle")
    recommender = Recommender.load(tmp_path / "bundle")
    answer = recommender.recommend({"history": ["n0"], "k": 51, "explain": True})
    found = {item["item_id"]: item for item in answer["items"]}
    assert answer["skipped"] == []
    assert {"n1", "n2", "n3"} <= set(found)
    assert len(found["n1"]["path"]) == 3


def test_without_training_only_the_parents_codebook_is_taken(parent: Bundle, tmp_path: Path) -> None:
    dataset = tiny_dataset()
    parent.codebook.save(tmp_path / "same")
    reused = reuse_weights(parent, dataset, tmp_path / "same", parent.catalogue)
    assert (reused.dataset_digest, reused.popular) == (dataset.digest, parent.popular)
    replace(parent.codebook, mean=parent.codebook.mean + 1).save(tmp_path / "changed")
    with pytest.raises(OnboardingError, match="without training the codebook must be the parent's"):
        reuse_weights(parent, dataset, tmp_path / "changed", parent.catalogue)


def test_nothing_of_the_parent_is_changed(parent: Bundle) -> None:
    before = {name: weight.clone() for name, weight in parent.model.state_dict().items()}
    onboard(parent, ["n"], ["N"], tiny_vectors()[:1])
    assert parent.catalogue.size == ITEMS
    assert all(torch.equal(weight, before[name]) for name, weight in parent.model.state_dict().items())


def test_known_items_and_foreign_vectors_are_refused(parent: Bundle) -> None:
    with pytest.raises(CatalogueError, match="'i7' is in the catalogue already"):
        onboard(parent, ["n", "i7"], ["N", "I"], tiny_vectors()[:2])
    with pytest.raises(CatalogueError, match="'n' is in the catalogue twice"):
        onboard(parent, ["n", "n"], ["N", "N"], tiny_vectors()[:2])
    with pytest.raises(CodebookError, match="another encoder"):
        onboard(parent, ["n"], ["N"], tiny_vectors()[:1, :3])
