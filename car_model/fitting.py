"""Train on a dataset: CAR into a bundle, SASRec into a folder of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from car_model.baselines import SASRec
from car_model.bundle import Bundle, popularity_priors
from car_model.catalogue import Catalogue
from car_model.checkpoint import save_model, weights_digest
from car_model.codebook import Codebook
from car_model.dataset import Dataset
from car_model.labels import CodeLabels
from car_model.metrics import per_user, ranks_of
from car_model.model import CAR
from car_model.recipe import Recipe
from car_model.recommend import rank_scores
from car_model.sequences import Histories, pad
from car_model.training import scored, train
from car_model.warm_start import codes_aligned, warm_start

THINK_SCALES = (0.0, 0.05, 0.1, 0.2, 0.4)
SCALE_USERS = 5000  # users the scale is chosen on
ROWS = 256

Curves = dict[str, list]


def fit_car(
    dataset: Dataset,
    codebook_folder: Path,
    catalogue: Catalogue,
    recipe: Recipe,
    *,
    checkpoint: Path | None = None,
    parent: Bundle | None = None,
) -> tuple[Bundle, Curves]:
    """Train CAR and put together all that serving needs; returns the bundle and the loss curves.

    Args:
        checkpoint: folder of the resumable state.
        parent: the release to start from; None starts cold.

    Raises:
        WarmStartError: the parent's model has other sizes than the recipe.
    """
    codebook, labels = Codebook.load(codebook_folder), CodeLabels.load(codebook_folder)
    data = dataset.histories(catalogue.uids)
    torch.manual_seed(recipe.seed)
    model = CAR(
        recipe.car(catalogue.size, codebook.levels, codebook.codes), torch.from_numpy(catalogue.sid_table)
    )
    start = ""
    if parent:
        aligned = codes_aligned(codebook, catalogue, parent)
        warm_start(model, catalogue, parent.model, parent.catalogue, aligned)
        start = weights_digest(model)
    curves = train(model, data, recipe.budget(), checkpoint, "CAR", start=start)
    popular, share = popularity_priors(data.counts(catalogue.size), catalogue, codebook.codes)
    scale = choose_think_scale(model, data)
    return Bundle(codebook, labels, catalogue, model, popular, share, scale, dataset.digest), curves


def fit_sasrec(
    dataset: Dataset, catalogue: Catalogue, recipe: Recipe, output: Path, checkpoint: Path | None = None
) -> Curves:
    """Train the baseline on the same histories and write its weights to `output`."""
    torch.manual_seed(recipe.seed)
    model = SASRec(recipe.sasrec(catalogue.size))
    curves = train(
        model, dataset.histories(catalogue.uids), recipe.budget(baseline=True), checkpoint, "SASRec"
    )
    save_model(model, output)
    return curves


def choose_think_scale(model: CAR, data: Histories) -> float:
    """The weight of the SID levels in the score that ranks validation items best (NDCG@10, full ranking).

    Ties go to the smaller weight; test items are never looked at. Heads that were not trained get none.
    """
    if not model.config.think_weight:
        return 0.0
    chosen = scored(data)[:SCALE_USERS]
    gains = dict.fromkeys(THINK_SCALES, 0.0)
    for start in range(0, len(chosen), ROWS):
        group = chosen[start : start + ROWS]
        prompts = [data.train[at] for at in group]
        with torch.inference_mode():
            states = model.last_state(pad(prompts, model.config.history))
            act, full = (rank_scores(model, states, model.config.levels, scale).numpy() for scale in (0, 1))
        with np.errstate(invalid="ignore"):  # padding: -inf minus -inf; masked before ranking
            think = full - act
        for scale in THINK_SCALES:
            gains[scale] += _gain(act + scale * think, prompts, data.valid[group])
    return max(THINK_SCALES, key=lambda scale: (round(gains[scale], 9), -scale))


def _gain(scores: np.ndarray, prompts: list[np.ndarray], targets: np.ndarray) -> float:
    for row, prompt in zip(scores, prompts, strict=True):
        row[prompt] = -np.inf
        row[0] = -np.inf
    return float(per_user(ranks_of(scores, targets))["ndcg@10"].sum())
