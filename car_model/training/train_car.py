"""Train on a dataset: CAR into a bundle, SASRec into a folder of weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from car_model.bundle import Bundle, popularity_priors, tables
from car_model.codebook.codebook import Codebook
from car_model.codebook.labels import CodeLabels
from car_model.data.catalogue import Catalogue
from car_model.data.dataset import Dataset
from car_model.data.histories import Histories, pad
from car_model.evidence.training import TrainingCurves
from car_model.metrics.ranking import mask_histories, per_user, ranks_of
from car_model.models.baselines import SASRec
from car_model.models.car import CAR
from car_model.models.losses import Negatives
from car_model.recommender.ann_index import require_faiss
from car_model.recommender.near_duplicates import FROM_ITEMS, MANY, share_with_near_duplicates
from car_model.recommender.scorer import Scorer
from car_model.recommender.text_similarity import TextSimilarity
from car_model.training.onboard import extend_car, extend_sasrec, without_cold
from car_model.training.recipe import Recipe
from car_model.training.trainer import scored, train
from car_model.training.warm_start import codes_aligned, warm_start
from car_model.weights import save_baseline, weights_digest

THINK_SCALES = (0.0, 0.05, 0.1, 0.2, 0.4)
SIMILARITY_SCALES = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
ROWS = 256


def fit_car(
    dataset: Dataset,
    codebook_folder: Path,
    catalogue: Catalogue,
    recipe: Recipe,
    *,
    checkpoint: Path | None = None,
    parent: Bundle | None = None,
) -> tuple[Bundle, TrainingCurves]:
    """Train CAR, from a parent release if any, and put together all that serving needs.

    `checkpoint` is the folder of the resumable state. Raises WarmStartError if the parent's model has other
    sizes than the recipe, and CandidateIndexError if the recipe asks for an index without faiss.
    """
    if recipe.ann_candidates:
        require_faiss()  # hours of training must not end at an evaluation that lacks it
    codebook, labels = Codebook.load(codebook_folder), CodeLabels.load(codebook_folder)
    trained = without_cold(catalogue, dataset)
    training_data = dataset.histories(trained.uids)
    torch.manual_seed(recipe.seed)
    config = recipe.car(trained.size, codebook.n_levels, codebook.codebook_size)
    axes = 0 if trained.text is None else trained.text.shape[1]
    model = CAR(replace(config, text_dim=min(config.text_dim, axes)), *tables(trained))
    start = ""
    if parent:
        aligned = codes_aligned(codebook, trained, parent)
        warm_start(model, trained, parent.model, parent.catalogue, aligned)
        start = weights_digest(model)
    if recipe.negatives:
        model.negatives = Negatives(torch.from_numpy(training_data.counts(trained.size)), recipe.negatives)
        start += f" negatives {recipe.negatives}"
    curves = train(model, training_data, recipe, checkpoint, "CAR", start=start)
    model, data = extend_car(model, trained, catalogue), dataset.histories(catalogue.uids)
    popular, share = popularity_priors(data.counts(catalogue.size), catalogue, codebook.codebook_size)
    texts = TextSimilarity.of_catalogue(catalogue, model.config.max_history)
    think, similarity = choose_scales(model, data, texts)
    bundle = Bundle(
        codebook=codebook,
        labels=labels,
        catalogue=catalogue,
        model=model,
        popular=popular,
        code_share=share,
        think_scale=think,
        similarity_scale=similarity,
        near_duplicate_cosine=recipe.near_duplicate_cosine if skips_near_duplicates(recipe, catalogue) else 0,
        dataset_digest=dataset.digest,
        ann_candidates=recipe.ann_candidates,
        repeats=dataset.report.config.duplicates,
    )
    return bundle, curves


def skips_near_duplicates(recipe: Recipe, catalogue: Catalogue) -> bool:
    """Whether a release skips near-duplicates: as the recipe says, or because its catalogue has many."""
    if recipe.near_duplicates != "auto" or catalogue.text is None:
        return recipe.near_duplicates == "skip" and catalogue.text is not None
    share = share_with_near_duplicates(catalogue, recipe.near_duplicate_cosine)
    return catalogue.size >= FROM_ITEMS and share >= MANY


def fit_sasrec(
    dataset: Dataset, catalogue: Catalogue, recipe: Recipe, output: Path, checkpoint: Path | None = None
) -> TrainingCurves:
    """Train the baseline on the same histories and write it to `output`.

    It gets what CAR gets: its budget, and text similarity with a weight chosen on the same validation items.
    """
    torch.manual_seed(recipe.seed)
    trained = without_cold(catalogue, dataset)
    model = SASRec(recipe.sasrec(trained.size))
    curves = train(model, dataset.histories(trained.uids), recipe.baseline_recipe(), checkpoint, "SASRec")
    model = extend_sasrec(model, trained, catalogue)
    texts = TextSimilarity.of_catalogue(catalogue, model.config.max_history)
    similarity_scale = choose_similarity(model, dataset.histories(catalogue.uids), texts)
    save_baseline(model, similarity_scale, output)
    return curves


def choose_similarity(model: SASRec, data: Histories, similarity: TextSimilarity | None) -> float:
    """Weight of text similarity in the baseline's score, as `best_scales`."""
    device = next(model.parameters()).device

    def score(prompts: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        scores = model.score(pad(prompts, model.config.max_history).to(device))
        return scores, torch.zeros_like(scores)

    return best_scales(score, data, (0.0,), similarity)[1]


def choose_scales(model: CAR, data: Histories, similarity: TextSimilarity | None) -> tuple[float, float]:
    """Weights of SID levels and text similarity as `best_scales`; heads that were not trained get none."""
    thinks = THINK_SCALES if model.config.think_weight else (0.0,)
    scorer, device = Scorer(model, 1.0), next(model.parameters()).device

    def score(prompts: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            states = model.last_state(pad(prompts, model.config.max_history).to(device))
            act, full = (scorer.score_all(states, thinking) for thinking in (0, model.config.n_levels))
        return act, full - act  # padding: -inf minus -inf

    return best_scales(score, data, thinks, similarity)


def best_scales(
    score: Callable[[list[np.ndarray]], tuple[Tensor, Tensor]],
    data: Histories,
    thinks: Sequence[float],
    similarity: TextSimilarity | None,
) -> tuple[float, float]:
    """The pair of weights that ranks validation items best (NDCG@10, full ranking); ties go to the smaller.

    Args:
        score: scores [B, N + 1] of prompts, and what a weight of 1 on thinking adds to them; both are its
            caller's to write to.
        thinks: weights of thinking to choose from.
    """
    users = scored(data)[:5000]
    grid = list(product(thinks, SIMILARITY_SCALES if similarity else (0.0,)))
    gains = dict.fromkeys(grid, 0.0)
    for start in range(0, len(users), ROWS):
        group = users[start : start + ROWS]
        prompts = [data.train[user] for user in group]
        with torch.inference_mode():
            base, think_part = score(prompts)
            base[:, 0], think_part[:, 0] = -torch.inf, 0.0  # padding
            mask_histories(base, prompts)  # stays so, whatever is added
            text_part = similarity.to_all(prompts) if similarity else torch.zeros_like(base)
            for think, like in grid:
                ranks = ranks_of(base + think * think_part + like * text_part, data.valid[group])
                gains[think, like] += float(per_user(ranks)["ndcg@10"].sum())
    return max(grid, key=lambda pair: (round(gains[pair], 9), -pair[0], -pair[1]))
