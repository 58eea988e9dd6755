"""Items without interactions: offered through their text, run after run, and nothing else changes by them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from car_model.bundle import Bundle
from car_model.codebook.residual_kmeans import CodebookConfig
from car_model.codebook.semantic_ids import Parent, Tokenized, tokenize_vectors
from car_model.data.dataset import Dataset
from car_model.evaluation.evaluate import Holdout, holdout_ranks
from car_model.recommender.recommender import Recommender
from car_model.training.onboard import onboard, reuse_weights
from car_model.training.recipe import RankerRecipe, Recipe
from car_model.training.train_car import fit_car, fit_sasrec
from car_model.training.train_ranker import fit_ranker
from car_model.weights import load_sasrec
from tests.car_model.builders import tiny_dataset
from tests.fixtures import ITEMS, tiny_parts, tiny_vectors

COLD = ["a-cold", "n0", "n1"]
CODEBOOK = CodebookConfig(n_levels=3, codebook_size=4)
RECIPE = Recipe(epochs=2, d_model=16, n_layers=1, n_heads=2, max_history=10)


def with_items(dataset: Dataset, items: list[str]) -> Dataset:
    """The dataset with cold items after the others, each with the text of a warm one."""
    rows = dataset.items.iloc[: len(items)].assign(item_id=items)
    return replace(dataset, items=pd.concat([dataset.items, rows], ignore_index=True))


def tokens_of(dataset: Dataset, parent: Bundle | None = None) -> Tokenized:
    """The dataset's tokens; a cold item's vector is that of the item whose text it has, nearly."""
    vectors = tiny_vectors()
    cold = vectors[: len(dataset.items) - ITEMS] * np.float32(1.001)
    lineage = Parent(parent.codebook, parent.labels, parent.catalogue) if parent else None
    spec = parent.codebook.encoder if parent else tiny_parts().codebook.encoder
    all_vectors = np.concatenate([vectors, cold])
    return tokenize_vectors(dataset, all_vectors, spec, CODEBOOK, mode="reuse", parent=lineage)


def fitted(dataset: Dataset, folder: Path, parent: Bundle | None = None) -> Bundle:
    tokens = tokens_of(dataset, parent)
    tokens.save(folder / "codebook", folder / "catalogue.parquet")
    return fit_car(dataset, folder / "codebook", tokens.catalogue, RECIPE)[0]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return fitted(tiny_dataset(), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def offering(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return fitted(with_items(tiny_dataset(), COLD), tmp_path_factory.mktemp("offering"))


def test_cold_items_change_nothing_for_warm_ones(plain: Bundle, offering: Bundle) -> None:
    assert offering.codebook.version == plain.codebook.version
    assert offering.labels.words == plain.labels.words
    assert offering.labels.items.items() >= plain.labels.items.items()
    assert offering.catalogue.item_ids == [*plain.catalogue.item_ids, *COLD]
    assert np.array_equal(offering.catalogue.sids[:ITEMS], plain.catalogue.sids)
    assert offering.popular == plain.popular
    prompt = torch.tensor([[3, 7, 11]])
    with torch.inference_mode():
        before, after = (each.model.act_logits(each.model.last_state(prompt)) for each in (plain, offering))
    assert torch.equal(after[:, 1 : ITEMS + 1], before[:, 1:])


def test_cold_items_are_ranked_by_their_text(offering: Bundle) -> None:
    recommender = Recommender(offering)
    for cold, twin in (("a-cold", "i1"), ("n0", "i2")):
        answer = recommender.recommend({"history": [twin], "k": ITEMS})
        assert cold in [item["item_id"] for item in answer["items"]]
        assert recommender.recommend({"history": [cold], "k": 3})["skipped"] == []


def test_baseline_and_ranker_are_trained_without_them_too(
    plain: Bundle, offering: Bundle, tmp_path: Path
) -> None:
    dataset = tiny_dataset()
    grown = with_items(dataset, COLD)
    fit_sasrec(dataset, plain.catalogue, RECIPE, tmp_path / "plain")
    fit_sasrec(grown, offering.catalogue, RECIPE, tmp_path / "offering")
    uids = torch.tensor([[3, 7, 11]])
    with torch.inference_mode():
        before, after = (load_sasrec(tmp_path / name).score(uids) for name in ("plain", "offering"))
    shift = (after[:, 1 : ITEMS + 1] - before[:, 1:])[0]  # of the softmax's mass
    assert torch.allclose(shift, shift[:1].expand(ITEMS), atol=1e-5)
    actions = [1.0, 5.0] * len(dataset.interactions)
    rated = [
        replace(data, interactions=data.interactions.assign(action=actions[: len(data.interactions)]))
        for data in (dataset, grown)
    ]
    recipe = RankerRecipe(epochs=1, d_model=16, n_layers=1, n_heads=2, max_history=10)
    summaries = [
        fit_ranker(data, bundle, recipe)[1] for data, bundle in zip(rated, (plain, offering), strict=True)
    ]
    assert summaries[0].train_loss == summaries[1].train_loss


def test_what_is_offered_is_what_is_ranked(plain: Bundle, offering: Bundle) -> None:
    """Cold items compete: some test items rank lower, and none does among the warm items alone."""
    holdout = Holdout.of(tiny_dataset())
    before = holdout_ranks(Recommender(plain), holdout)
    with_cold = replace(offering, think_scale=plain.think_scale, similarity_scale=plain.similarity_scale)
    after = holdout_ranks(Recommender(with_cold), holdout)
    assert (after >= before).all()
    assert (after > before).any()
    assert np.array_equal(holdout_ranks(Recommender(with_cold), holdout, plain.catalogue.offered), before)


def test_onboarded_items_stay_in_every_later_run(plain: Bundle, tmp_path: Path) -> None:
    """A run, an onboarding at noon, a nightly run with the new item on file, a run with its first buyers."""
    noon = onboard(plain, ["n0"], ["Novel"], tiny_vectors()[:1])
    catalogue = with_items(tiny_dataset(), ["n0"])
    nightly = fitted(catalogue, tmp_path / "nightly", noon)
    assert nightly.catalogue.item_ids == noon.catalogue.item_ids
    assert nightly.catalogue.retired == frozenset()
    assert np.array_equal(nightly.catalogue.sids, noon.catalogue.sids)
    tokens = tokens_of(catalogue, noon)
    assert (tokens.health.cold_items, tokens.health.churn.retired, tokens.health.churn.whole) == (1, 0, 0)

    sold = catalogue.interactions.copy()
    sold.loc[sold["item_id"] == "i1", "item_id"] = "n0"  # everybody who bought i1 buys n0 instead
    next_week = replace(catalogue, interactions=sold)
    third = fitted(next_week, tmp_path / "third", nightly)
    assert third.catalogue.offered == nightly.catalogue.offered  # i1 has no buyers left, and stays as well
    assert third.catalogue.uids["n0"] == noon.catalogue.uids["n0"]
    uid_rows = [bundle.model.uid.weight[bundle.catalogue.uids["n0"]] for bundle in (nightly, third)]
    assert not uid_rows[0].any()
    assert uid_rows[1].any()
    untrained = reuse_weights(nightly, next_week, tmp_path / "nightly" / "codebook", nightly.catalogue)
    assert untrained.catalogue.offered == nightly.catalogue.offered


def test_an_item_that_left_the_catalogue_is_retired(plain: Bundle, offering: Bundle, tmp_path: Path) -> None:
    nightly = fitted(with_items(tiny_dataset(), COLD[:1]), tmp_path, offering)
    assert nightly.catalogue.retired == set(COLD[1:])
    assert nightly.catalogue.offered == {*plain.catalogue.offered, COLD[0]}
