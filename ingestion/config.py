"""What to ingest: where the two sources lie, which columns mean what, and what is kept."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.errors import UserError


class IngestError(UserError, ValueError):
    """Data or configuration that cannot be ingested; the message is a sentence for the data's owner."""


Format = Literal["csv", "tsv", "jsonl", "parquet"]
TimestampUnit = Literal["iso", "epoch_s", "epoch_ms"]

INTERACTION_COLUMNS = ("user_id", "item_id", "timestamp", "position", "action")
SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


class Strict(BaseModel):
    """Immutable settings that refuse a name they do not know, and suggest the one that was meant."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _known_settings(cls, value: Any) -> Any:
        for name in value if isinstance(value, dict) else ():
            if name not in cls.model_fields:
                near = difflib.get_close_matches(str(name), cls.model_fields, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(cls.model_fields)}."
                raise ValueError(f"unknown setting '{name}'; {hint}")
        return value


class Source(Strict):
    """One file, and what its columns mean."""

    location: str = Field(min_length=1)
    """A path, relative to dataset.json, or `gs://bucket/path/file`."""
    format: Format | None = None
    """The file's format; null: by its suffix, before a closing `.gz`."""
    columns: dict[str, str]
    """Our name -> the source's name."""
    casts: dict[str, Literal["string", "int64", "float64"]] = {}
    """Types that columns are converted to first, by our names: `int64` turns 17.0 into 17."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """Delimiter of CSV or TSV; null: by the format."""
    quote: str = Field(default='"', max_length=1)
    """Quote character of CSV and TSV; empty if quotes are ordinary characters."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in self.casts:
            if name not in self.columns:
                raise ValueError(f"casts names '{name}', which columns does not map")
        self.resolved_format()
        return self

    def resolved_format(self) -> Format:
        """The given format, or the one that the file's suffix says (a closing .gz is looked through)."""
        if self.format:
            return self.format
        suffix = Path(self.location.removesuffix(".gz")).suffix.lower()
        if suffix not in SUFFIXES:
            raise ValueError(
                f"the format of {self.location} cannot be told from its suffix; "
                "set format to csv, tsv, jsonl or parquet"
            )
        return SUFFIXES[suffix]


class InteractionSource(Source):
    """Who met which item when. `timestamp`, `position` or both give the order; `action` is optional."""

    columns: dict[str, str] = {"user_id": "user_id", "item_id": "item_id", "timestamp": "timestamp"}
    """Our name -> the source's name: `user_id`, `item_id`, `timestamp` or `position`, `action`."""
    timestamp_unit: TimestampUnit = "iso"
    """Unit of `timestamp`. `iso` is a date, or a date and a time with `Z`, `+02:00` or no zone (UTC)."""

    @model_validator(mode="after")
    def _mapped(self) -> Self:
        unknown = [name for name in self.columns if name not in INTERACTION_COLUMNS]
        if unknown:
            raise ValueError(
                f"interactions.columns maps '{unknown[0]}'; it can map {', '.join(INTERACTION_COLUMNS)}"
            )
        for name in ("user_id", "item_id"):
            if name not in self.columns:
                raise ValueError(f"interactions.columns must map '{name}'")
        if not {"timestamp", "position"} & set(self.columns):
            raise ValueError("interactions.columns must map 'timestamp' or 'position', which give the order")
        return self


class ItemSource(Source):
    """The catalogue: `item_id`, usually `title`, and any further text columns under names of your choice."""

    columns: dict[str, str] = {"item_id": "item_id", "title": "title"}
    """Our name -> the source's name: `item_id`, `title`, and text columns under names of your choice."""

    @model_validator(mode="after")
    def _mapped(self) -> Self:
        if "item_id" not in self.columns:
            raise ValueError("items.columns must map 'item_id'")
        if "source_row" in self.columns:
            raise ValueError("items.columns cannot map 'source_row': that name is used here; choose another")
        return self


class SparkSettings(Strict):
    """Where Spark runs."""

    master: str = Field(default="local[*]", min_length=1)
    """`local[2]`, `spark://host:7077`, `k8s://...`, `yarn`, or `sc://host:15002` (Spark Connect)."""
    settings: dict[str, str] = {}
    """Spark's own, such as `{"spark.executor.memory": "8g"}`; a Connect server has its own."""


class DatasetConfig(Strict):
    """Everything `ingest` needs to know; travels as one JSON string."""

    name: str = Field(default="dataset", min_length=1)
    """Name of the dataset, shown in reports."""
    interactions: InteractionSource
    """Who met which item, and when."""
    items: ItemSource
    """The catalogue."""
    text_columns: tuple[str, ...] = ()
    """Columns that make up an item's text, in this order; `title` always comes first. Empty: as mapped."""
    user_core: int = Field(default=5, ge=0)
    """Least interactions per user; 0 or 1 keeps all."""
    item_core: int = Field(default=5, ge=0)
    """Least interactions per item; 0 or 1 keeps all."""
    duplicates: Literal["first", "last", "all"] = "first"
    """Which of several interactions of a user with an item is kept."""
    action_min: float | None = None
    """Least valid action. Validation stops the run below it."""
    action_max: float | None = None
    """Greatest valid action. Validation stops the run above it."""
    positive_action: float | None = None
    """Drop interactions with a lower action, or without one; null keeps all."""
    engine: Literal["duckdb", "spark"] = "duckdb"
    """What computes the tables; it does not change them."""
    spark: SparkSettings = SparkSettings()
    """Where Spark runs, if it is the engine."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in self.text_columns:
            if name not in {"title", *self.items.columns}:
                raise ValueError(f"text_columns names '{name}', which items.columns does not map")
        wants_action = [self.action_min, self.action_max, self.positive_action] != [None, None, None]
        if wants_action and "action" not in self.interactions.columns:
            raise ValueError(
                "action_min, action_max and positive_action need 'action' mapped in interactions.columns"
            )
        if self.action_min is not None and self.action_max is not None and self.action_min > self.action_max:
            raise ValueError(f"action_min {self.action_min} is above action_max {self.action_max}")
        return self

    def ordered_text(self) -> tuple[str, ...]:
        """Text columns in the order in which an item's text is composed; always starts with `title`."""
        names = self.text_columns or [name for name in self.items.columns if name != "item_id"]
        return ("title", *dict.fromkeys(name for name in names if name != "title"))


def parse_config(text: str, origin: str = "the dataset configuration") -> DatasetConfig:
    """Read a DatasetConfig from JSON.

    Raises:
        IngestError: one sentence naming the setting that is wrong.
    """
    try:
        json.loads(text)
    except ValueError as error:
        raise IngestError(f"{origin} is not valid JSON: {error}.") from error
    try:
        return DatasetConfig.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ").rstrip(".")
        raise IngestError(f"{origin}: {where + ': ' if where else ''}{message}.") from error
