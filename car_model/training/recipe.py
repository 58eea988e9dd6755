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
    """One training recipe. CAR and the baseline share sizes and budget, so that both are tuned alike."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True
    )

    d_model: int = Field(64, ge=8)
    """Width of the transformer."""
    n_layers: int = Field(2, ge=1)
    """Blocks of the transformer."""
    n_heads: int = Field(2, ge=1)
    """Attention heads per block; they divide `d_model`."""
    max_history: int = Field(50, ge=1)
    """The latest items of a history that the model reads."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of activations that are dropped in training."""
    layout: Layout = "collapsed"
    """Positions of the transformer per item: one (`collapsed`), or one per token of the chunk (`full`)."""
    fusion: Fusion = "sum"
    """Item vectors: the sum of the UID's row and the codes' rows, or the UID's row alone (`none`)."""
    think_weight: float = Field(0.1, ge=0)
    """Weight of the loss on semantic IDs, relative to the loss on items; 0 trains without thinking."""
    tied: bool = True
    """Whether the output rows are the input embeddings."""
    text_dim: int = Field(0, ge=0)
    """Coordinates of an item's text that are fused into its vector; 0 for none."""
    position_encoding: PositionEncoding = "learned"
    """How the transformer knows the order of a history."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of a target's probability that is spread over all items."""
    epochs: int = Field(20, ge=1)
    """Passes over the training data, at most."""
    batch_size: int = Field(64, ge=1)
    """Histories per training step."""
    batching: Batching = "length"
    """Batches of histories of similar length, or at random."""
    learning_rate: float = Field(2e-3, gt=0)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of AdamW."""
    warmup: float = Field(0.05, ge=0, le=1)
    """Share of the steps in which the learning rate rises; it falls to zero afterwards."""
    patience: int = Field(10, ge=1)
    """Epochs without a better validation metric before training stops."""
    seed: int = 0
    """Seed of weights, batches and dropout."""
    threads: int = Field(0, ge=0)
    """CPU threads of torch; 0 takes half of the cores."""
    precision: Precision = "auto"
    """Arithmetic of training; `auto` is bfloat16 on a GPU and float32 on a CPU."""
    negatives: int = Field(0, ge=0)
    """Items drawn per training step in place of the whole catalogue, with corrected logits; 0 scores all."""
    ann_candidates: int = Field(0, ge=0)
    """Items that an index finds per request and that are then scored exactly; 0 scores all."""
    baseline: dict[str, float | int | str] = {}
    """Settings that differ for SASRec, by the same names."""

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
    """One training recipe of the ranker by action."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    liked: float | None = Field(None, allow_inf_nan=False)
    """The least action that counts as liked, such as 4 stars; null: any above the middle of those in
    training."""
    architecture: Architecture = "lfa"
    """`lfa` is late fusion, `mvp` mixed values, `interleaved` the baseline."""
    d_model: int = Field(64, ge=8)
    """Width of the transformer."""
    n_layers: int = Field(2, ge=1)
    """Blocks of the transformer."""
    n_heads: int = Field(2, ge=1)
    """Attention heads per block; they divide `d_model`."""
    max_history: int = Field(100, ge=1)
    """The latest items of a history that the model reads."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of activations that are dropped in training."""
    hidden_actions: float = Field(0.1, ge=0, lt=1)
    """Share of the histories that are trained on without their actions, as requests without actions are."""
    epochs: int = Field(10, ge=1)
    """Passes over the training data, at most."""
    batch_size: int = Field(32, ge=1)
    """Histories per training step."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of AdamW."""
    warmup: float = Field(0.05, ge=0, le=1)
    """Share of the steps in which the learning rate rises; it falls to zero afterwards."""
    patience: int = Field(2, ge=1)
    """Epochs without a better validation metric before training stops."""
    seed: int = 0
    """Seed of weights, batches and dropout."""
    threads: int = Field(0, ge=0)
    """CPU threads of torch; 0 takes half of the cores."""
    precision: Precision = "auto"
    """Arithmetic of training; `auto` is bfloat16 on a GPU and float32 on a CPU."""

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
