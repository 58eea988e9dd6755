"""The ingested dataset as the model library reads it (DESIGN: canonical tables)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from car_model import text
from car_model.sequences import PAD, Histories


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
        return text.compose(self.items, self.text_columns)

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
    frame = pd.DataFrame({"user": frame["user_id"], "uid": uid.astype("int64"), "split": frame["split"]})
    users = frame["user"].drop_duplicates().tolist()
    held = {split: frame[frame["split"] == split].set_index("user")["uid"] for split in ("valid", "test")}
    kept = frame[frame["split"] == "train"].groupby("user", sort=False)["uid"]
    train = {user: group.to_numpy() for user, group in kept}
    nothing = np.zeros(0, dtype=np.int64)
    return Histories(
        users=users,
        train=[train.get(user, nothing) for user in users],
        valid=held["valid"].reindex(users, fill_value=PAD).to_numpy(),
        test=held["test"].reindex(users, fill_value=PAD).to_numpy(),
    )
