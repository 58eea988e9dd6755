"""From a dataset to a bundle, and the weight of thinking chosen on validation alone."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from car_model.bundle import Bundle
from car_model.data.dataset import Dataset
from car_model.data.histories import Histories
from car_model.evaluation.evaluate import Baseline, NearestText
from car_model.metrics.ranking import per_user, ranks_of
from car_model.recommender.ann_index import CandidateIndexError
from car_model.recommender.recommender import Recommender
from car_model.recommender.text_similarity import TextSimilarity
from car_model.training.recipe import parse_recipe
from car_model.training.train_car import SIMILARITY_SCALES, THINK_SCALES, choose_scales, fit_car, fit_sasrec
from car_model.weights import load_baseline, weights_digest
from tests.car_model.builders import tiny_dataset
from tests.fixtures import ITEMS, tiny_histories, tiny_vectors

RECIPE = parse_recipe({"d_model": 16, "n_layers": 1, "max_history": 10, "epochs": 2, "threads": 1})
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def slow_gain(parts: Bundle, data: Histories, scale: float) -> float:
    scores = Recommender(replace(parts, think_scale=scale)).scores(data.train).numpy().copy()
    for row, prompt in zip(scores, data.train, strict=True):
        row[[0, *prompt]] = -np.inf
    return float(per_user(ranks_of(scores, data.valid))["ndcg@10"].sum())


def strong_thinker() -> tuple[Bundle, Histories]:
    """A model whose codes know the next item and whose UIDs know nothing."""
    from tests.fixtures import tiny_parts

    parts, data = tiny_parts(epochs=1), tiny_histories()
    with torch.no_grad():
        for weight in parts.model.parameters():
            weight.mul_(0.01)
        favourite = parts.catalogue.sids[data.valid[0] - 1]
        for level, code in enumerate(favourite):
            parts.model.think_bias[level * 4 + int(code)] = 3.0
    return parts, replace(data, valid=np.full_like(data.valid, data.valid[0]))


def test_the_scale_that_ranks_best_is_chosen() -> None:
    parts, data = strong_thinker()
    kept = [at for at in range(len(data.users)) if data.valid[at] not in data.train[at]]
    data = replace(
        data,
        users=[data.users[at] for at in kept],
        train=[data.train[at] for at in kept],
        valid=data.valid[kept],
    )
    gains = {scale: round(slow_gain(parts, data, scale), 6) for scale in THINK_SCALES}
    best = max(gains.values())
    assert gains[0.0] < best
    assert choose_scales(parts.model, data, None) == (
        min(scale for scale, gain in gains.items() if gain == best),
        0.0,
    )


def with_texts(parts: Bundle) -> Bundle:
    """Texts that lie together by genre, the films of one genre each somewhere else."""
    return replace(parts, catalogue=replace(parts.catalogue, text=tiny_vectors(ITEMS)))


def test_both_weights_are_chosen_together(parts: Bundle) -> None:
    told, data = with_texts(parts), tiny_histories()
    gains = {
        (think, like): round(slow_gain(replace(told, similarity_scale=like), data, think), 6)
        for think in THINK_SCALES
        for like in SIMILARITY_SCALES
    }
    best = max(gains.values())
    assert gains[0.0, 0.0] < best
    chosen = choose_scales(told.model, data, TextSimilarity.of_catalogue(told.catalogue, 10))
    assert chosen == min(pair for pair, gain in gains.items() if gain == best)


def test_ties_go_to_the_smaller_scales(parts: Bundle) -> None:
    told, data = with_texts(parts), tiny_histories()
    blind = replace(data, valid=np.zeros_like(data.valid))
    assert choose_scales(told.model, blind, TextSimilarity.of_catalogue(told.catalogue, 10)) == (0.0, 0.0)


def test_test_items_are_never_looked_at(parts: Bundle) -> None:
    told, data = with_texts(parts), tiny_histories()
    like = TextSimilarity.of_catalogue(told.catalogue, 10)
    other = replace(data, test=np.roll(data.test, 7))
    assert choose_scales(told.model, other, like) == choose_scales(told.model, data, like)


def test_a_dataset_becomes_a_bundle_that_serves(parts: Bundle, dataset: Dataset, tmp_path: Path) -> None:
    parts.save(tmp_path / "parts")
    made, curves = fit_car(dataset, tmp_path / "parts" / "codebook", parts.catalogue, RECIPE)
    assert curves.epoch == (1, 2)
    assert made.think_scale in THINK_SCALES
    assert made.dataset_digest == dataset.digest
    assert made.model.config == RECIPE.car(ITEMS, 3, 4)
    made.save(tmp_path / "made")
    answer = Recommender.load(tmp_path / "made").recommend({"history": ["i1"], "k": 3})
    assert len(answer["items"]) == 3


def test_fitting_twice_gives_the_same_bundle(parts: Bundle, dataset: Dataset, tmp_path: Path) -> None:
    parts.save(tmp_path / "parts")
    headers = []
    for run in ("one", "two"):
        made, _ = fit_car(dataset, tmp_path / "parts" / "codebook", parts.catalogue, RECIPE)
        headers.append(made.save(tmp_path / run))
        torch.rand(3)  # what else ran in the process must not matter
    assert headers[0] == headers[1]


def test_what_could_not_be_served_here_is_not_trained(
    parts: Bundle, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)  # as where it is not installed
    parts.save(tmp_path / "parts")
    book, kept = tmp_path / "parts" / "codebook", tmp_path / "kept"
    with pytest.raises(CandidateIndexError, match="needs faiss"):
        fit_car(
            dataset, book, parts.catalogue, RECIPE.model_copy(update={"ann_candidates": 5}), checkpoint=kept
        )
    assert not kept.exists()


def test_a_warm_start_does_not_resume_what_was_trained_cold_or_from_another_parent(
    parts: Bundle, dataset: Dataset, tmp_path: Path
) -> None:
    """All that a checkpoint is known by is equal but the weights training begins with."""
    parts.save(tmp_path / "parts")
    book = tmp_path / "parts" / "codebook"

    def weights(parent: Bundle | None, checkpoint: Path | None) -> str:
        made, _ = fit_car(dataset, book, parts.catalogue, RECIPE, checkpoint=checkpoint, parent=parent)
        return weights_digest(made.model)

    cold, _ = fit_car(dataset, book, parts.catalogue, RECIPE)
    other, _ = fit_car(dataset, book, parts.catalogue, RECIPE.model_copy(update={"seed": 1}))
    shared = tmp_path / "checkpoint"
    found = [weights(parent, shared) for parent in (None, cold, other)]
    assert found == [weights(parent, None) for parent in (None, cold, other)]
    assert len(set(found)) == 3


def test_the_baseline_uses_its_own_settings(parts: Bundle, tmp_path: Path) -> None:
    own = RECIPE.model_copy(update={"baseline": {"epochs": 1, "d_model": 8}})
    curves = fit_sasrec(tiny_dataset(), parts.catalogue, own, tmp_path)
    assert curves.epoch == (1,)
    assert load_baseline(tmp_path)[0].config == own.sasrec(ITEMS)


def test_the_baseline_gets_text_similarity_as_car_does(parts: Bundle, tmp_path: Path) -> None:
    """From the same weights, on the same validation items, by the same metric."""
    catalogue, data = with_texts(parts).catalogue, tiny_histories()
    fit_sasrec(tiny_dataset(), catalogue, RECIPE, tmp_path)
    model, weight = load_baseline(tmp_path)
    plain, texts = Baseline(catalogue, model, 10), TextSimilarity.of_catalogue(catalogue, 10)
    assert texts
    gains = {}
    for scale in SIMILARITY_SCALES:
        scores = NearestText(catalogue, texts, plain, scale).scores(data.train).numpy()
        for row, prompt in zip(scores, data.train, strict=True):
            row[[0, *prompt]] = -np.inf
        gains[scale] = round(float(per_user(ranks_of(scores, data.valid))["ndcg@10"].sum()), 6)
    best = max(gains.values())
    assert weight == min(scale for scale, gain in gains.items() if gain == best) > 0
    fit_sasrec(tiny_dataset(), parts.catalogue, RECIPE, tmp_path)
    assert load_baseline(tmp_path)[1] == 0.0  # there are no texts


def test_a_model_reads_as_much_of_the_texts_as_there_is(
    parts: Bundle, dataset: Dataset, tmp_path: Path
) -> None:
    parts.save(tmp_path / "parts")
    reading = RECIPE.model_copy(update={"text_dim": 64})
    for catalogue, axes in ((parts.catalogue, 0), (with_texts(parts).catalogue, 16)):
        made, _ = fit_car(dataset, tmp_path / "parts" / "codebook", catalogue, reading)
        assert made.model.config.text_dim == axes
        assert made.similarity_scale in (SIMILARITY_SCALES if axes else (0.0,))
