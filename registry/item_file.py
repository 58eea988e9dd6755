"""A file of items, as people hand it over: CSV, TSV, JSONL or Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from registry.errors import ReleaseError

SEPARATORS = {".csv": ",", ".tsv": "\t"}


def read_items(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Items as text columns, one row an item. Raises ReleaseError."""
    table = _read(path)
    for column in ("item_id", "title", *columns):
        if column not in table.columns:
            raise ReleaseError(f"{path} has no column {column!r}; there are: {', '.join(table.columns)}.")
    table = table.fillna("").astype(str)
    for column in ("item_id", "title"):
        empty = table.index[table[column].str.strip() == ""]
        if len(empty):
            raise ReleaseError(f"{path} has no {column} in row {empty[0] + 1}.")
    twice = table["item_id"][table["item_id"].duplicated()]
    if len(twice):
        raise ReleaseError(f"{path} holds item {twice.iloc[0]!r} twice.")
    return table


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix in SEPARATORS:
            return pd.read_csv(path, sep=SEPARATORS[path.suffix], dtype=str, keep_default_na=False)
        if path.suffix == ".jsonl":
            return pd.read_json(path, lines=True, dtype=False)
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ReleaseError(f"{path} cannot be read: {error}.") from error
    raise ReleaseError(f"{path} is neither .csv, .tsv, .jsonl nor .parquet.")
