"""The ingested dataset as the model library reads it, and how an item's text is composed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from car_model.data.histories import Histories, Repeats
from common.errors import UserError

SEPARATOR = "; "  # between the columns of an item's text


class DatasetError(UserError):
    """The dataset can't be read or lacks a column; the message says which."""


class DatasetSettings(BaseModel):
    """What the model library reads of the dataset's settings."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    duplicates: Repeats = "all"
    """Which interactions of a user with the same item were kept."""


class DatasetReport(BaseModel):
    """What the model library reads of report.json; ingestion writes more into it."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    name: str = "dataset"
    """The dataset's name."""
    dataset_digest: str
    """Version of the dataset: digest of its interactions and items."""
    text_columns: tuple[str, ...]
    """Columns that an item's text is composed of, in order."""
    config: DatasetSettings = DatasetSettings()
    """The settings that it was ingested with."""


@dataclass(frozen=True)
class Dataset:
    """Interactions and items as ingested, and the report that came with them."""

    interactions: pd.DataFrame
    items: pd.DataFrame
    report: DatasetReport

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """Read interactions.parquet, items.parquet and report.json. Raises DatasetError."""
        try:
            return cls(
                interactions=pd.read_parquet(folder / "interactions.parquet"),
                items=pd.read_parquet(folder / "items.parquet"),
                report=DatasetReport.model_validate_json((folder / "report.json").read_bytes()),
            )
        except (OSError, ValueError) as error:
            raise DatasetError(f"the dataset in {folder} can't be read: {error}") from error

    @property
    def digest(self) -> str:
        """Version of the dataset."""
        return self.report.dataset_digest

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Columns that an item's text is composed of, in order."""
        return self.report.text_columns

    @property
    def warm(self) -> np.ndarray:
        """Which items have interactions, bool [items] in row order; the others are cold."""
        return self.items["item_id"].isin(self.interactions["item_id"].unique()).to_numpy()

    def texts(self) -> list[str]:
        """The text of every item, in row order."""
        return compose_texts(self.items, self.text_columns)

    def histories(self, uids: dict[str, int]) -> Histories:
        """Sequences in a catalogue's UIDs. Raises HistoryError."""
        return Histories.from_interactions(self.interactions, uids)


def text_template(columns: Sequence[str]) -> str:
    """The name of a composition, part of the codebook's version: `{title}; {genres}`."""
    return SEPARATOR.join(f"{{{column}}}" for column in columns)


def template_columns(template: str) -> list[str]:
    """The columns that a template names: the inverse of `text_template`."""
    return [part[1:-1] for part in template.split(SEPARATOR)]


def compose_texts(items: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """The text of every item, in row order; an item without any text is described by its id.

    Raises:
        DatasetError: a text column is not in the table.
    """
    missing = [column for column in columns if column not in items.columns]
    if missing:
        names = ", ".join(items.columns)
        raise DatasetError(f"the items have no text column {missing[0]!r}; there are: {names}.")
    parts = [items[column].fillna("").astype(str).str.strip() for column in columns]
    texts = [SEPARATOR.join(part for part in row if part) for row in zip(*parts, strict=True)]
    return [text or str(item) for text, item in zip(texts, items["item_id"], strict=True)]
