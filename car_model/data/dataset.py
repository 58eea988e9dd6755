"""The ingested dataset as the model library reads it (DESIGN: canonical tables)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from car_model.data.histories import PAD, Histories


@dataclass(frozen=True)
class Dataset:
    """Kept interactions and items, and the report that ingest wrote with them."""

    interactions: pd.DataFrame
    items: pd.DataFrame
    report: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """Read interactions.parquet, items.parquet and report.json.

        Raises:
            ValueError: a file is missing or unreadable.
        """
        try:
            return cls(
                interactions=pd.read_parquet(folder / "interactions.parquet"),
                items=pd.read_parquet(folder / "items.parquet"),
                report=json.loads((folder / "report.json").read_text()),
            )
        except (OSError, ValueError) as error:
            raise ValueError(f"the dataset in {folder} can't be read: {error}") from error

    @property
    def digest(self) -> str:
        """Version of the dataset."""
        return str(self.report["dataset_digest"])

    @property
    def text_columns(self) -> list[str]:
        """Columns an item's text is made of, in order."""
        return list(self.report["text_columns"])

    def texts(self) -> list[str]:
        """One text an item, in row order."""
        return compose(self.items, self.text_columns)

    def histories(self, uids: dict[str, int]) -> Histories:
        """Sequences in a catalogue's UIDs."""
        return histories(self.interactions, uids)


def histories(interactions: pd.DataFrame, uids: dict[str, int]) -> Histories:
    """Group an ingested table (sorted by user and position, with `split`) into sequences.

    Raises:
        KeyError: an interaction's item is not in the catalogue.
    """
    frame = interactions.sort_values(["user_id", "position"], kind="stable")
    uid = frame["item_id"].map(uids)
    if uid.isna().any():
        raise KeyError(
            f"item {frame['item_id'][uid.isna()].iloc[0]!r} has interactions but is not in the catalogue."
        )
    codes, users = pd.factorize(frame["user_id"])  # ascending: a user's rows follow each other
    every, split = uid.to_numpy(dtype=np.int64), frame["split"].to_numpy()
    train = split == "train"
    ends = np.bincount(codes[train], minlength=len(users)).cumsum()[:-1]
    held = {}
    for part in ("valid", "test"):
        held[part] = np.full(len(users), PAD, dtype=np.int64)
        held[part][codes[split == part]] = every[split == part]
    return Histories(users.tolist(), np.split(every[train], ends), held["valid"], held["test"])


SEPARATOR = "; "


def template(columns: Sequence[str]) -> str:
    """The template's name, part of the codebook's version: `{title}; {genres}`."""
    return SEPARATOR.join(f"{{{column}}}" for column in columns)


def columns_of(name: str) -> list[str]:
    """The columns that a template names: the inverse of `template`."""
    return [part[1:-1] for part in name.split(SEPARATOR)]


def compose(items: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """One text an item, in row order; an item without any text is described by its id.

    Raises:
        ValueError: a text column is not in the table.
    """
    missing = [column for column in columns if column not in items.columns]
    if missing:
        raise ValueError(
            f"the items have no text column {missing[0]!r}; there are: {', '.join(items.columns)}."
        )
    parts = [items[column].fillna("").astype(str).str.strip() for column in columns]
    rows = zip(*parts, strict=True)
    texts = [SEPARATOR.join(part for part in row if part) for row in rows]
    return [text or str(item) for text, item in zip(texts, items["item_id"], strict=True)]
