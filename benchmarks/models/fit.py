"""A row of the table becomes a trained model that ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.datasets.load import Tokens
from car_model.bundle import tables
from car_model.data.catalogue import Catalogue
from car_model.data.histories import Histories, pad
from car_model.evaluation.evaluate import Baseline, Ranker
from car_model.evidence.training import TrainingCurves
from car_model.models.ablations.autoregressive import ARConfig, AutoRegressive
from car_model.models.baselines import Popularity, SASRec
from car_model.models.car import CAR
from car_model.recommender.scorer import Scorer
from car_model.recommender.text_similarity import TextSimilarity
from car_model.training.distributed import device
from car_model.training.recipe import SIZES, Recipe
from car_model.training.train_car import best_scales, choose_scales
from car_model.training.trainer import train

VALID_USERS = 2000  # a beam search over every user after every epoch would take longer than the training


@dataclass
class Fitted:
    """A model that ranks, how it learned, and the weights in its score chosen for it on validation."""

    ranker: Ranker
    curves: TrainingCurves
    think_scale: float
    parameters: int
    likeness_scale: float = 0.0


class Scored:
    """CAR with a weight of thinking, as a Ranker: what the Recommender ranks by."""

    def __init__(self, catalogue: Catalogue, model: CAR, scale: float) -> None:
        self.catalogue = catalogue
        self.model = model
        self.scorer = Scorer(model, scale)

    def scores(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Scores [B, N + 1]."""
        with torch.inference_mode():
            where = next(self.model.parameters()).device
            states = self.model.last_state(pad(histories, self.model.config.max_history).to(where))
            return self.scorer.score_all(states, self.model.config.n_levels)


@dataclass
class Alike:
    """Any ranker with the weighted likeness of texts added."""

    catalogue: Catalogue
    ranker: Ranker
    likeness: TextSimilarity
    scale: float

    def scores(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Scores [B, N + 1]."""
        return self.ranker.scores(histories) + self.scale * self.likeness.to_all(histories)


def fit_model(
    kind: str, tokens: Tokens, data: Histories, recipe: Recipe, checkpoint: Path, *, likeness: bool = False
) -> Fitted:
    """Train one model of a kind (`benchmarks.models.variants.Kind`) on a data set's histories.

    Args:
        likeness: whether the likeness of texts joins its ranking, with a weight chosen on validation.
    """
    torch.manual_seed(recipe.seed)
    fitted = FITS[kind](tokens, data, recipe, checkpoint)
    like = TextSimilarity.of_catalogue(tokens.catalogue, recipe.max_history) if likeness else None
    if like is None:
        return fitted
    like.texts = like.texts.to(device())

    def score(prompts: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        found = fitted.ranker.scores(prompts)
        return found, torch.zeros_like(found)

    scale = best_scales(score, data, (0.0,), like)[1]
    return replace(fitted, ranker=Alike(tokens.catalogue, fitted.ranker, like, scale), likeness_scale=scale)


def _popularity(tokens: Tokens, data: Histories, recipe: Recipe, checkpoint: Path) -> Fitted:
    model = Popularity(data.counts(tokens.catalogue.size))
    return Fitted(Baseline(tokens.catalogue, model, recipe.max_history), TrainingCurves(), 0.0, 0)


def _sasrec(tokens: Tokens, data: Histories, recipe: Recipe, checkpoint: Path) -> Fitted:
    model = SASRec(recipe.sasrec(tokens.catalogue.size))
    curves = train(model, data, recipe.train_config(baseline=True), checkpoint, "SASRec")
    model.to(device())
    return Fitted(Baseline(tokens.catalogue, model, model.config.max_history), curves, 0.0, _size(model))


def _car(tokens: Tokens, data: Histories, recipe: Recipe, checkpoint: Path) -> Fitted:
    catalogue = tokens.catalogue
    model = CAR(recipe.car(catalogue.size, catalogue.sids.shape[1], tokens.codes), *tables(catalogue))
    curves = train(model, data, recipe.train_config(), checkpoint, "CAR")
    scale = choose_scales(model.to(device()), data, None)[0]
    return Fitted(Scored(catalogue, model, scale), curves, scale, _size(model))


def _autoregressive(uid: bool) -> Callable[..., Fitted]:
    def fit(tokens: Tokens, data: Histories, recipe: Recipe, checkpoint: Path) -> Fitted:
        catalogue = tokens.catalogue
        sids = torch.from_numpy(catalogue.sid_table)
        sizes: dict[str, Any] = recipe.model_dump(include=set(SIZES))
        config = ARConfig(catalogue.size, sids.shape[1], tokens.codes, uid=uid, **sizes)
        model = AutoRegressive(config, sids)
        few = np.linspace(0, len(data.users) - 1, min(VALID_USERS, len(data.users))).astype(int)
        valid = np.zeros_like(data.valid)
        valid[few] = data.valid[few]
        curves = train(
            model,
            replace(data, valid=valid),
            recipe.train_config(),
            checkpoint,
            "AR" if uid else "TIGER-style",
        )
        model.to(device())
        return Fitted(Baseline(catalogue, model, config.max_history), curves, 0.0, _size(model))

    return fit


def _size(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


FITS: dict[str, Callable[[Tokens, Histories, Recipe, Path], Fitted]] = {
    "popularity": _popularity,
    "sasrec": _sasrec,
    "car": _car,
    "ar": _autoregressive(uid=True),
    "tiger": _autoregressive(uid=False),
}
