"""How models are trained: sizes, loss and budget, with defaults found by ablation (docs/results.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from car_model.action_ranker.model import Architecture, RankerConfig
from car_model.encoding.encoder import EMBEDDED
from car_model.models.baselines import SASRecConfig
from car_model.models.car import CARConfig, Fusion, Layout
from car_model.models.transformer import PositionEncoding, check_heads
from car_model.training.trainer import TrainConfig
from common.errors import UserError, first_problem

OFF = "off"  # no ranker


class RecipeError(UserError):
    """A training setting is unknown or wrong; the message names it."""


class BaseRecipe(TrainConfig):
    """Settings that mean the same for every model."""

    d_model: int = Field(64, ge=8)
    """Width of the transformer."""
    n_layers: int = Field(2, ge=1)
    """Blocks of the transformer."""
    n_heads: int = Field(2, ge=1)
    """Attention heads per block; they divide `d_model`."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of activations that are dropped in training."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        check_heads(**self.model_dump(include={"d_model", "n_heads", "position_encoding"}))
        return self

    def options(self, config: type[Any]) -> dict[str, Any]:
        """The settings that a configuration class has fields for."""
        return self.model_dump(include={field.name for field in fields(config)})


class Recipe(BaseRecipe):
    """One training recipe. CAR and the baseline share sizes and budget, so that both are tuned alike."""

    max_history: int = Field(50, ge=1)
    """The latest items of a history that the model reads."""
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
    negatives: int = Field(0, ge=0)
    """Items drawn per training step in place of the whole catalogue, with corrected logits; 0 scores all."""
    ann_candidates: int = Field(0, ge=0)
    """Items that an index finds per request and that are then scored exactly; 0 scores all."""
    near_duplicates: Literal["auto", "skip", "offer"] = "auto"
    """Whether answers skip items that are nearly one of the history, or nearly a better-ranked one: `auto`
    skips them where at least 5 % of 200 items or more have a near-duplicate."""
    near_duplicate_cosine: float = Field(0.95, gt=0, le=1)
    """Cosine of two items' texts from which one is a near-duplicate of the other."""
    baseline: dict[str, float | int | str] = Field({})
    """Settings that differ for SASRec, by the same names."""

    @field_validator("baseline", mode="before")
    @classmethod
    def _baseline_has_settings(cls, values: Any) -> Any:
        names = {field.name for field in fields(SASRecConfig)} | set(TrainConfig.model_fields)
        known_names = [name for name in cls.model_fields if name in names]
        unknown = [name for name in values if name not in known_names] if isinstance(values, dict) else []
        if unknown:
            raise ValueError(f"there is no setting {unknown[0]!r}; there are: {', '.join(known_names)}.")
        return values

    @model_validator(mode="after")
    def _losses_and_baseline_fit(self) -> Self:
        if self.negatives and self.label_smoothing:
            raise ValueError(
                "label_smoothing spreads a target over all items and negatives trains on a sample of them; "
                "set one of the two to 0."
            )
        if self.baseline:
            try:
                self.baseline_recipe()
            except ValidationError as error:
                raise ValueError(f"the baseline's settings: {first_problem(error)}") from error
        return self

    def car(self, n_items: int, n_levels: int, codebook_size: int) -> CARConfig:
        """CAR's configuration for a catalogue."""
        return CARConfig(n_items, n_levels, codebook_size, **self.options(CARConfig))

    def sasrec(self, n_items: int) -> SASRecConfig:
        """The baseline's configuration."""
        return SASRecConfig(n_items, **self.baseline_recipe().options(SASRecConfig))

    def baseline_recipe(self) -> Recipe:
        """This recipe with the baseline's own settings in place; the baseline draws no negatives."""
        shared = self.model_dump(include=Recipe.model_fields.keys() - {"baseline", "negatives"})
        return Recipe.model_validate({**shared, **self.baseline})


class RankerRecipe(BaseRecipe):
    """One training recipe of the ranker by action."""

    liked: float | None = Field(None, allow_inf_nan=False)
    """The least action that counts as liked, such as 4 stars; null: any above the middle of those in
    training."""
    architecture: Architecture = "lfa"
    """`lfa` is late fusion, `mvp` mixed values, `interleaved` the baseline."""
    max_history: int = Field(100, ge=1)
    """The latest items of a history that the model reads."""
    hidden_actions: float = Field(0.1, ge=0, lt=1)
    """Share of the histories that are trained on without their actions, as requests without actions are."""
    epochs: int = Field(10, ge=1)
    """Passes over the training data, at most."""
    batch_size: int = Field(32, ge=1)
    """Histories per training step."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW."""
    patience: int = Field(2, ge=1)
    """Epochs without a better validation metric before training stops."""

    def ranker(self, n_items: int, n_levels: int, codebook_size: int, liked: float) -> RankerConfig:
        """The ranker's configuration for a catalogue, once it is known what counts as liked."""
        options = {**self.options(RankerConfig), "liked": liked}
        return RankerConfig(n_items, n_levels, codebook_size, **options)


class EncoderSettings(BaseModel):
    """The text encoder of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str = Field(EMBEDDED, min_length=1)
    """The embedded encoder, a model on the hub, or a local folder."""
    revision: str = ""
    """Revision on the hub; empty is the newest."""
    max_tokens: int = Field(128, ge=1)
    """Longer texts are cut off."""
    normalisation: Literal["l2", "none"] = "l2"
    """`l2` scales vectors to unit length."""


class RunRecipe(Recipe):
    """Every setting that decides which model a run makes of its data."""

    n_levels: int = Field(4, ge=1)
    """Levels of the semantic IDs of a new codebook."""
    codebook_size: int = Field(0, ge=0)
    """Codes per level of a new codebook; 0 follows the catalogue's size."""
    encoder: EncoderSettings = Field(EncoderSettings.model_validate({}))
    """The text encoder of a new codebook."""
    ranker: RankerRecipe | None = Field(RankerRecipe.model_validate({}))
    """The ranker by action, for data with actions; `off` trains none."""

    @field_validator("ranker", mode="before")
    @classmethod
    def _off_is_none(cls, value: Any) -> Any:
        return None if value is False or value == OFF else value  # YAML reads `off` as false

    def car_recipe(self) -> Recipe:
        """The part that CAR and the baseline are trained by."""
        return Recipe.model_validate(self.model_dump(include=set(Recipe.model_fields)))

    def changed(self, changes: Mapping[str, Any]) -> RunRecipe:
        """This recipe with single settings changed, by dotted names such as `ranker.liked`.

        `seed` and `epochs` are the ranker's too: its seed, and the most epochs that it gets, up to its
        default; so fewer epochs in one run are no limit to the next. A ranker that is off is trained again
        if one of its own settings is changed. Raises RecipeError.
        """
        values = self.model_dump(mode="json")
        check_names(changes)
        if isinstance(values["ranker"], dict) and "ranker" not in changes:
            if "seed" in changes:
                values["ranker"]["seed"] = changes["seed"]
            if isinstance(epochs := changes.get("epochs"), int):
                usual = max(values["ranker"]["epochs"], RankerRecipe.model_fields["epochs"].default)
                values["ranker"]["epochs"] = min(usual, epochs)
        for name, value in changes.items():
            part, _, setting = name.partition(".")
            if setting:
                values[part] = {**(values[part] or {}), setting: value}
            else:
                values[part] = value
        return _parse(RunRecipe, values)


AnyRecipe = TypeVar("AnyRecipe", bound=BaseRecipe)
PARTS: dict[str, type[BaseModel]] = {"encoder": EncoderSettings, "ranker": RankerRecipe}


def setting_descriptions() -> dict[str, str]:
    """Every setting of a run's recipe by its dotted name, and what it means."""
    models: dict[str, type[BaseModel]] = {"": RunRecipe, "baseline.": Recipe}
    models |= {f"{part}.": model for part, model in PARTS.items()}
    return {
        f"{prefix}{name}": field.description or ""
        for prefix, model in models.items()
        for name, field in model.model_fields.items()
    }


def check_names(names: Mapping[str, Any]) -> None:
    """Raise a RecipeError for the first dotted name that is no setting; it names those near to it."""
    settings = setting_descriptions()
    for name in names:
        if name in settings:
            continue
        word = name.rpartition(".")[2].lower()
        near = get_close_matches(name, settings)
        near = near or [setting for setting, text in settings.items() if word in text.lower().split()]
        choice = f"near it: {', '.join(near)}" if near else f"there are: {', '.join(RunRecipe.model_fields)}"
        raise RecipeError(f"there is no setting {name!r}; {choice}.")


def parse_run_recipe(values: Mapping[str, Any]) -> RunRecipe:
    """A run's recipe from settings such as {"epochs": 5, "ranker": {"liked": 4}}. Raises RecipeError."""
    check_names({
        f"{name}.{setting}" if setting else name: None
        for name, value in values.items()
        for setting in ["", *(value if name in PARTS and isinstance(value, Mapping) else ())]
    })  # fmt: skip
    return _parse(RunRecipe, values)


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """A recipe from settings such as {"epochs": 5, "d_model": 32}. Raises RecipeError."""
    return _parse(Recipe, values)


def parse_ranker(text: str) -> RankerRecipe | None:
    """A recipe from JSON such as {"liked": 4}; None for `off`. Raises RecipeError."""
    if text == OFF:
        return None
    try:
        values = json.loads(text)
    except ValueError as error:
        raise RecipeError(f"it is neither {OFF!r} nor JSON: {error}.") from None
    if not isinstance(values, dict):
        raise RecipeError('it must be a JSON object, such as {"liked": 4}.')
    return _parse(RankerRecipe, values)


def _parse(recipe: type[AnyRecipe], values: Any) -> AnyRecipe:
    try:
        return recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(first_problem(error, recipe.model_fields)) from None
