"""Train the model of an accuracy variant and choose the weights in its score on validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.datasets.load import Tokens
from benchmarks.models.autoregressive import ARConfig, AutoRegressive
from benchmarks.models.variants import Kind
from car_model.bundle import tables
from car_model.data.catalogue import Catalogue
from car_model.data.histories import Histories, pad
from car_model.evaluation.evaluate import Baseline, NearestText, Ranker
from car_model.evidence.training import TrainingCurves
from car_model.models.baselines import Popularity, SASRec
from car_model.models.car import CAR
from car_model.recommender.scorer import Scorer
from car_model.recommender.text_similarity import TextSimilarity
from car_model.training.distributed import device
from car_model.training.recipe import Recipe
from car_model.training.train_car import best_scales, choose_scales
from car_model.training.trainer import train

VALID_USERS = 2000  # a beam search over every user after every epoch would take longer than the training


@dataclass
class Fitted:
    """A trained model, its training curves, and the weights in its score that validation chose."""

    ranker: Ranker
    curves: TrainingCurves
    think_scale: float
    parameters: int
    similarity_scale: float = 0.0


class CARRanker:
    """CAR with its think scale as a Ranker; scores as the Recommender does."""

    def __init__(self, catalogue: Catalogue, model: CAR, scale: float) -> None:
        self.catalogue = catalogue
        self.model = model
        self.scorer = Scorer(model, scale)

    def scores(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Scores [B, N + 1]."""
        with torch.inference_mode():
            states = self.model.last_state(pad(histories, self.model.config.max_history).to(device()))
            return self.scorer.score_all(states, self.model.config.n_levels)


def fit_model(
    kind: Kind,
    tokens: Tokens,
    data: Histories,
    recipe: Recipe,
    checkpoint: Path,
    *,
    text_similarity: bool = False,
) -> Fitted:
    """Train one model on a data set's histories.

    Args:
        kind: the model.
        tokens: the items and their SIDs.
        checkpoint: folder of the checkpoint; a training that was killed continues from it.
        text_similarity: add text similarity to the score, with a weight chosen on validation.
    """
    torch.manual_seed(recipe.seed)
    fitted = FIT_FUNCTIONS[kind](tokens, data, recipe, checkpoint)
    similarity = (
        TextSimilarity.of_catalogue(tokens.catalogue, recipe.max_history) if text_similarity else None
    )
    if similarity is None:
        return fitted
    similarity.texts = similarity.texts.to(device())

    def score(prompts: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        scores = fitted.ranker.scores(prompts)
        return scores, torch.zeros_like(scores)

    scale = best_scales(score, data, (0.0,), similarity)[1]
    ranker = NearestText(tokens.catalogue, similarity, fitted.ranker, scale)
    return replace(fitted, ranker=ranker, similarity_scale=scale)


def fit_popularity(tokens: Tokens, data: Histories, recipe: Recipe, checkpoint: Path) -> Fitted:
    """Count interactions; nothing is trained."""
    model = Popularity(data.counts(tokens.catalogue.size))
    return Fitted(Baseline(tokens.catalogue, model, recipe.max_history), TrainingCurves(), 0.0, 0)


def fit_nearest_text(tokens: Tokens, data: Histories, recipe: Recipe, checkpoint: Path) -> Fitted:
    """Text similarity to the nearest item of the history; nothing is trained."""
    texts = tables(tokens.catalogue)[1]
    if texts is None:
        raise ValueError("the catalogue has no texts.")
    similarity = TextSimilarity(texts.numpy(), recipe.max_history)
    return Fitted(NearestText(tokens.catalogue, similarity), TrainingCurves(), 0.0, 0)


def fit_sasrec(tokens: Tokens, data: Histories, recipe: Recipe, checkpoint: Path) -> Fitted:
    """SASRec with full cross-entropy."""
    model = SASRec(recipe.sasrec(tokens.catalogue.size))
    curves = train(model, data, recipe.baseline_recipe(), checkpoint, "SASRec")
    model.to(device())
    ranker = Baseline(tokens.catalogue, model, model.config.max_history)
    return Fitted(ranker, curves, 0.0, n_parameters(model))


def fit_car(tokens: Tokens, data: Histories, recipe: Recipe, checkpoint: Path) -> Fitted:
    """CAR; its think scale is chosen on validation."""
    catalogue = tokens.catalogue
    config = recipe.car(catalogue.size, catalogue.sids.shape[1], tokens.codebook_size)
    model = CAR(config, *tables(catalogue))
    curves = train(model, data, recipe, checkpoint, "CAR")
    scale = choose_scales(model.to(device()), data, None)[0]
    return Fitted(CARRanker(catalogue, model, scale), curves, scale, n_parameters(model))


def fit_autoregressive(
    tokens: Tokens, data: Histories, recipe: Recipe, checkpoint: Path, *, uid: bool
) -> Fitted:
    """The autoregressive ablation (SIDs and UID), or without UID the TIGER-style model."""
    catalogue = tokens.catalogue
    sids = torch.from_numpy(catalogue.sid_table)
    config = ARConfig(
        catalogue.size, sids.shape[1], tokens.codebook_size, uid=uid, **recipe.options(ARConfig)
    )
    model = AutoRegressive(config, sids)
    sample = np.linspace(0, len(data.users) - 1, min(VALID_USERS, len(data.users))).astype(int)
    valid = np.zeros_like(data.valid)
    valid[sample] = data.valid[sample]
    name = "AR" if uid else "TIGER-style"
    curves = train(model, replace(data, valid=valid), recipe, checkpoint, name)
    model.to(device())
    return Fitted(Baseline(catalogue, model, config.max_history), curves, 0.0, n_parameters(model))


def n_parameters(model: torch.nn.Module) -> int:
    """Trainable and fixed weights together."""
    return sum(weight.numel() for weight in model.parameters())


FIT_FUNCTIONS: dict[Kind, Callable[[Tokens, Histories, Recipe, Path], Fitted]] = {
    "popularity": fit_popularity,
    "nearest-text": fit_nearest_text,
    "sasrec": fit_sasrec,
    "car": fit_car,
    "ar": partial(fit_autoregressive, uid=True),
    "tiger": partial(fit_autoregressive, uid=False),
}
