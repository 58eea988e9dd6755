"""How models are trained: sizes, loss and budget, with defaults found by ablation (docs/results.md)."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from car_model.action_ranker.model import Architecture, RankerConfig
from car_model.models.baselines import SASRecConfig
from car_model.models.car import CARConfig, Fusion, Layout
from car_model.models.transformer import PositionEncoding
from car_model.training.trainer import Batching, Precision, TrainConfig

SIZES = ("d_model", "n_layers", "n_heads", "max_history", "dropout")
REGULAR = ("position_encoding", "label_smoothing")  # as SIZES, but not AR's
CHUNK = ("layout", "fusion", "think_weight", "tied", "text_dim")
BUDGET = (
    *("epochs", "batch_size", "batching", "learning_rate", "weight_decay", "warmup"),
    *("patience", "seed", "threads", "precision"),
)


class Recipe(BaseModel):
    """One training recipe. CAR and the baseline share sizes and budget, so that both are tuned alike.

    `baseline` holds what tuning changed for SASRec alone, by the same names. `negatives` is how
    many items a training step of CAR draws, beside as many of its targets, in place of the whole catalogue;
    `ann_candidates` how many candidates an index proposes when serving a large catalogue; 0 scores all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    d_model: int = Field(64, ge=8)
    n_layers: int = Field(2, ge=1)
    n_heads: int = Field(2, ge=1)
    max_history: int = Field(50, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    layout: Layout = "collapsed"
    fusion: Fusion = "sum"
    think_weight: float = Field(0.1, ge=0)
    tied: bool = True
    text_dim: int = Field(0, ge=0)
    position_encoding: PositionEncoding = "learned"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    epochs: int = Field(20, ge=1)
    batch_size: int = Field(64, ge=1)
    batching: Batching = "length"
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup: float = Field(0.05, ge=0, le=1)
    patience: int = Field(10, ge=1)
    seed: int = 0
    threads: int = Field(0, ge=0)
    precision: Precision = "auto"
    negatives: int = Field(0, ge=0)
    ann_candidates: int = Field(0, ge=0)
    baseline: dict[str, float | int | str] = {}

    def car(self, n_items: int, n_levels: int, codebook_size: int) -> CARConfig:
        """CAR's configuration for a catalogue."""
        own = self.model_dump(include={*SIZES, *REGULAR, *CHUNK})
        return CARConfig(n_items=n_items, n_levels=n_levels, codebook_size=codebook_size, **own)

    def sasrec(self, n_items: int) -> SASRecConfig:
        """The baseline's configuration."""
        return SASRecConfig(n_items=n_items, **self.baseline_recipe().model_dump(include={*SIZES, *REGULAR}))

    def train_config(self, baseline: bool = False) -> TrainConfig:
        """Optimiser and budget of CAR, or of the baseline."""
        chosen = self.baseline_recipe() if baseline else self
        return TrainConfig(**chosen.model_dump(include=set(BUDGET)))

    def baseline_recipe(self) -> Recipe:
        """This recipe with the baseline's own settings in place."""
        return Recipe.model_validate({**self.model_dump(exclude={"baseline"}), **self.baseline})


def parse_recipe(values: dict[str, Any]) -> Recipe:
    """A recipe from settings such as {"epochs": 5, "d_model": 32}; the rest keeps its default.

    Raises:
        ValueError: a setting is unknown or wrong; the sentence names it and what there is.
    """
    known = (*SIZES, *REGULAR, *BUDGET)
    own = values.get("baseline") if isinstance(values, dict) else None
    strangers = [name for name in own if name not in known] if isinstance(own, dict) else []
    if strangers:
        raise ValueError(
            f"the baseline has no training setting {strangers[0]!r}; there are: {', '.join(known)}."
        )
    try:
        recipe = Recipe.model_validate(values)
        recipe.car(1, 1, 1).backbone()
        recipe.sasrec(1).backbone()  # the baseline's own settings are held to the same bounds
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ValueError(
                f"there is no training setting {name!r}; there are: {', '.join(Recipe.model_fields)}."
            ) from None
        raise ValueError(f"the training setting {name!r} is {first['input']!r}: {first['msg']}.") from None
    if recipe.negatives and recipe.label_smoothing:
        raise ValueError(
            "label_smoothing spreads a target over all items and negatives trains on a sample of them; "
            "set one of the two to 0."
        )
    return recipe


OFF = "off"
RANKER_SIZES = {"architecture", "d_model", "n_layers", "n_heads", "max_history", "dropout", "hidden_actions"}
RANKER_BUDGET = {
    *("epochs", "batch_size", "learning_rate", "weight_decay", "warmup"),
    *("patience", "seed", "threads", "precision"),
}


class RankerRecipe(BaseModel):
    """One recipe.

    Attributes:
        liked: the least action that counts as liked, such as 4 stars; None: any above the middle of what
            occurs in training (4 of 1 to 5, 1 of 0 and 1).
        hidden_actions: share of the histories that are trained on without their actions, so that requests
            without actions are answered as well.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    liked: float | None = Field(None, allow_inf_nan=False)
    architecture: Architecture = "lfa"
    d_model: int = Field(64, ge=8)
    n_layers: int = Field(2, ge=1)
    n_heads: int = Field(2, ge=1)
    max_history: int = Field(100, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    hidden_actions: float = Field(0.1, ge=0, lt=1)
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup: float = Field(0.05, ge=0, le=1)
    patience: int = Field(2, ge=1)
    seed: int = 0
    threads: int = Field(0, ge=0)
    precision: Precision = "auto"

    def ranker(self, n_items: int, n_levels: int, codebook_size: int, liked: float) -> RankerConfig:
        """The ranker's configuration for a catalogue, once it is known what counts as liked."""
        return RankerConfig(n_items, n_levels, codebook_size, liked, **self.model_dump(include=RANKER_SIZES))

    def train_config(self) -> TrainConfig:
        """Optimiser and budget."""
        return TrainConfig(**self.model_dump(include=RANKER_BUDGET))


def parse_ranker(text: str) -> RankerRecipe | None:
    """A recipe from JSON such as {"liked": 4}, where the rest keeps its default; None of `off`.

    Raises:
        ValueError: it is no JSON object, or a setting is unknown or wrong; the sentence names it.
    """
    if text == OFF:
        return None
    try:
        values: Any = json.loads(text)
    except ValueError as error:
        raise ValueError(f"it is neither {OFF!r} nor JSON: {error}.") from None
    if not isinstance(values, dict):
        raise ValueError('it must be a JSON object, such as {"liked": 4}.')
    try:
        return RankerRecipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = ", ".join(RankerRecipe.model_fields)
            raise ValueError(f"the ranker has no setting {name!r}; there are: {known}.") from None
        raise ValueError(f"the ranker's setting {name!r} is {first['input']!r}: {first['msg']}.") from None
