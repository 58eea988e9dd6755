"""How the ranker by action is trained: sizes and budget, with defaults found by trials (docs/ranking.md)."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from car_model.ranking import Architecture, RankerConfig, Task
from car_model.training import Precision, TrainConfig

OFF = "off"
SIZES = {"architecture", "width", "layers", "heads", "history", "dropout", "hidden_actions"}
BUDGET = {
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
    width: int = Field(64, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    history: int = Field(100, ge=1)
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

    def ranker(self, items: int, levels: int, codes: int, liked: float) -> RankerConfig:
        """The ranker's configuration for a catalogue, once it is known what counts as liked."""
        task = Task("liked", (liked,))
        return RankerConfig(items, levels, codes, (task,), **self.model_dump(include=SIZES))

    def budget(self) -> TrainConfig:
        """Optimiser and budget."""
        return TrainConfig(**self.model_dump(include=BUDGET))


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
