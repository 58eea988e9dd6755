"""The settings of a dataset: which two sources to read, what their columns mean, and which rows to keep."""

from __future__ import annotations

import difflib
import json
import re
from codecs import BOM_UTF8
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from common.errors import UserError, first_problem
from common.files import parse_json_object


class IngestError(UserError):
    """Data or configuration that can't be ingested; the message is a sentence for the data's owner."""


Format = Literal["csv", "tsv", "jsonl", "parquet"]
TimestampUnit = Literal["iso", "epoch_s", "epoch_ms", "epoch_us", "epoch_ns"]
Role = Literal["id", "number", "text"]

INTERACTION_COLUMNS = ("user_id", "item_id", "timestamp", "position", "action")
SUFFIXES: dict[str, Format] = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".parquet": "parquet"}
SUFFIXES |= {".ndjson": "jsonl", ".pq": "parquet"}
MAX_CORE = 1 << 31
COMPRESSED = (".gz", ".bz2", ".zst")


class Settings(BaseModel):
    """Immutable settings that refuse an unknown name and suggest the closest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, value: Any) -> Any:
        for name in value if isinstance(value, dict) else ():
            if name not in cls.model_fields:
                close = difflib.get_close_matches(str(name), cls.model_fields, n=1)
                hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(cls.model_fields)}."
                raise ValueError(f"unknown setting '{name}'; {hint}")
        return value


Column = Annotated[str, BeforeValidator(lambda name: str(name) if type(name) is int else name)]


class Source(Settings):
    """One file or one folder of files, and what its columns are called here."""

    location: str = Field(min_length=1)
    """Path of the file or folder, relative to the dataset's folder, or the gs:// address of a file."""
    format: Format | None = None
    """Format of the file. Default: what its suffix says; a final .gz, .bz2 or .zst is ignored."""
    columns: dict[str, Column]
    """Column names here, each with the name that the file has for it."""
    casts: dict[str, Literal["string", "int64", "float64"]] = {}
    """Types by column name here, applied before anything else: `{"user_id": "int64"}` turns the 17.0 that a
    data frame made of an integer back into 17."""
    header: bool = True
    """Whether the first line of CSV and TSV names the columns. If not, `columns` gives their numbers."""
    encoding: str = "utf-8"
    """Encoding of CSV, TSV and JSON Lines, such as `latin-1` or `utf-16`."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=8)
    """What separates the fields of CSV and TSV, such as `;` or `::`. Default: comma or tab."""
    quote: str = Field(default='"', max_length=1)
    """Character around fields of CSV and TSV; "" if fields are never quoted."""

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        for name in self.casts:
            if name not in self.columns:
                raise ValueError(f"casts names '{name}', which columns does not map")
        try:
            "".encode(self.encoding)
        except (LookupError, ValueError) as error:
            raise ValueError(
                f"there is no encoding '{self.encoding}'; known are utf-8, latin-1, utf-16"
            ) from error
        if set(f"{self.delimiter or ''}{self.quote}") & set("\r\n\0") or self.delimiter == self.quote:
            raise ValueError("delimiter and quote must differ, and be no line breaks")
        if not self.header:
            if self.resolved_format() not in ("csv", "tsv"):
                raise ValueError("header is a setting of csv and tsv")
            for name, column in self.columns.items():
                if not re.fullmatch("[1-9][0-9]*", column):
                    raise ValueError(
                        f"without a header, columns.{name} must be a column's number, not '{column}'"
                    )
        self.resolved_format()
        return self

    def role(self, name: str) -> Role:
        """What the cells of a column (by its name here) are."""
        raise NotImplementedError

    def resolved_format(self) -> Format:
        """The format that is set, or the one that the file's suffix says (before that of a compression)."""
        if self.format:
            return self.format
        path = Path(self.location.lower())
        suffix = Path(path.stem if path.suffix in COMPRESSED else path).suffix
        if suffix not in SUFFIXES:
            raise ValueError(
                f"the format of {self.location} does not follow from its suffix; "
                "set format to csv, tsv, jsonl or parquet"
            )
        return SUFFIXES[suffix]


class InteractionSource(Source):
    """Which user interacted with which item, and when."""

    columns: dict[str, Column] = {"user_id": "user_id", "item_id": "item_id", "timestamp": "timestamp"}
    """Column names here, each with the file's name for it: `user_id`, `item_id`, `timestamp` or `position` or
    both, which give the order, and optionally `action`, such as a rating."""
    timestamp_unit: TimestampUnit = "iso"
    """What timestamps are: ISO 8601 text, or seconds, milli-, micro- or nanoseconds since 1970."""
    file_order: bool = False
    """Whether a user's rows stand in the file in the order in which they happened. It replaces `position`,
    for files that have neither a position nor times."""

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        unknown = [name for name in self.columns if name not in INTERACTION_COLUMNS]
        if unknown:
            known = ", ".join(INTERACTION_COLUMNS)
            raise ValueError(f"interactions.columns maps '{unknown[0]}'; it can map {known}")
        for name in ("user_id", "item_id"):
            if name not in self.columns:
                raise ValueError(f"interactions.columns must map '{name}'")
        if self.file_order and "position" in self.columns:
            raise ValueError("interactions has both a position and file_order; drop one of them")
        if not self.file_order and not {"timestamp", "position"} & set(self.columns):
            raise ValueError(
                "interactions.columns must map 'timestamp' or 'position', which give the order; "
                "if the rows of the file are in order, set interactions.file_order to true"
            )
        return self

    def role(self, name: str) -> Role:
        """See Source."""
        return "id" if name in ("user_id", "item_id") else "number"


class ItemSource(Source):
    """The catalogue of items and their texts."""

    columns: dict[str, Column] = {"item_id": "item_id", "title": "title"}
    """Column names here, each with the file's name for it: `item_id`, usually `title`, and any further text
    columns under names of your choice."""
    markup: Literal["strip", "keep"] = "strip"
    """What becomes of HTML in texts: `strip` turns entities into characters, drops tags, and makes any white
    space one blank; `keep` reads texts as they are."""

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        if "item_id" not in self.columns:
            raise ValueError("items.columns must map 'item_id'")
        for name in self.columns:
            if not name or "; " in name:  # which separates the columns of an item's text in a codebook
                raise ValueError(f"items.columns cannot map '{name}': choose a name without '; '")
        return self

    def role(self, name: str) -> Role:
        """See Source."""
        return "id" if name == "item_id" else "text"


class SparkSettings(Settings):
    """Where Spark runs, if it computes the dataset."""

    master: str = Field(default="local[*]", min_length=1)
    """`local[2]`, `spark://host:7077`, `k8s://...`, `yarn`, or `sc://host:15002` (Spark Connect)."""
    settings: dict[str, str] = {}
    """Spark's own settings, such as `{"spark.executor.memory": "8g"}`; a Connect server has its own."""


class DatasetConfig(Settings):
    """The settings of a dataset: `dataset.json` in the folder of your own data."""

    name: str = Field(default="dataset", min_length=1)
    """Name of the dataset in reports."""
    interactions: InteractionSource
    """The file of interactions."""
    items: ItemSource
    """The file of items."""
    text_columns: tuple[str, ...] = ()
    """Columns that an item's text is composed of, in order; `title` is always first. Default: as mapped."""
    user_core: int = Field(default=5, ge=0, le=MAX_CORE)
    """Every kept user has at least so many interactions with kept items."""
    item_core: int = Field(default=5, ge=0, le=MAX_CORE)
    """Every kept item has at least so many interactions by kept users."""
    cold_items: Literal["offer", "drop"] = "offer"
    """Items of the catalogue without a kept interaction, such as new ones: `offer` recommends them through
    their text, if they have one; `drop` leaves them out."""
    duplicates: Literal["first", "last", "all"] = "first"
    """Which interactions of a user with the same item are kept."""
    action_min: float | None = None
    """Smallest valid action. Validation checks it; ingestion drops nothing."""
    action_max: float | None = None
    """Largest valid action. Validation checks it; ingestion drops nothing."""
    positive_action: float | None = None
    """Interactions with a lower action, or none, are dropped. Default: all interactions count."""
    data_policy: dict[str, Any] = {}
    """Limits of validation that differ from the [defaults](data-policy.md), such as `{"min_users": 50}`."""
    engine: Literal["duckdb", "spark"] = "duckdb"
    """What computes the dataset; the result is the same."""
    spark: SparkSettings = SparkSettings()
    """Where Spark runs, if it is the engine."""

    @model_validator(mode="after")
    def _check_dataset(self) -> Self:
        for name in self.text_columns:
            if name not in {"title", *self.items.columns}:
                raise ValueError(f"text_columns names '{name}', which items.columns does not map")
        needs_action = [self.action_min, self.action_max, self.positive_action] != [None, None, None]
        if needs_action and "action" not in self.interactions.columns:
            raise ValueError("action_min, action_max and positive_action need 'action' mapped")
        if self.action_min is not None and self.action_max is not None and self.action_min > self.action_max:
            raise ValueError(f"action_min {self.action_min} is above action_max {self.action_max}")
        return self

    def ordered_text(self) -> tuple[str, ...]:
        """Text columns in the order in which an item's text is composed; always starts with `title`."""
        names = self.text_columns or [name for name in self.items.columns if name != "item_id"]
        return ("title", *dict.fromkeys(name for name in names if name != "title"))


def parse_config(content: str | bytes, origin: str = "the dataset configuration") -> DatasetConfig:
    """Read a DatasetConfig from JSON. Raises IngestError, which names the wrong setting."""
    text = content.encode() if isinstance(content, str) else content
    settings = parse_json_object(
        text.removeprefix(BOM_UTF8), origin, IngestError, "docs/data.md describes it"
    )
    try:
        return DatasetConfig.model_validate_json(json.dumps(settings))  # where half a character is an error
    except ValidationError as error:
        raise IngestError(f"{origin}: {first_problem(error)}") from error
