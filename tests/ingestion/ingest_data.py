"""Small datasets on disk, and slow but obvious versions of what ingest computes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ingestion.config import DatasetConfig, InteractionSource, ItemSource

Rows = Sequence[Sequence[Any]]

ITEMS = [(f"i{i}", f"Item {i}") for i in range(5)]
INTERACTIONS = [(f"u{u}", f"i{i}", f"2024-01-0{i + 1}T0{u}:00:00Z") for u in range(4) for i in range(5)]


def write_csv(path: Path, header: Sequence[str], rows: Rows) -> Path:
    """Plain CSV; None is an empty field."""
    lines = [",".join("" if value is None else str(value) for value in row) for row in [header, *rows]]
    path.write_text("\n".join(lines) + "\n")
    return path


def dataset(
    folder: Path,
    interactions: Rows = INTERACTIONS,
    items: Rows = ITEMS,
    columns: Sequence[str] = ("user_id", "item_id", "timestamp"),
    item_columns: Sequence[str] = ("item_id", "title"),
    *,
    file_order: bool = False,
    **settings: Any,
) -> DatasetConfig:
    """Write both CSV files into `folder` and describe them; cores of 2 unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    left = write_csv(folder / "interactions.csv", columns, interactions)
    right = write_csv(folder / "items.csv", item_columns, items)
    return DatasetConfig(
        interactions=InteractionSource(
            location=str(left), columns={name: name for name in columns}, file_order=file_order
        ),
        items=ItemSource(location=str(right), columns={name: name for name in item_columns}),
        **{"user_core": 2, "item_core": 2, **settings},
    )


def rows_of(path: Path) -> list[dict[str, Any]]:
    """A Parquet file as records."""
    return pq.read_table(path).to_pylist()


def histories(folder: Path) -> dict[str, list[str]]:
    """Every user's items in order, from a dataset folder."""
    result: dict[str, list[str]] = {}
    for row in rows_of(folder / "interactions.parquet"):
        result.setdefault(row["user_id"], []).append(row["item_id"])
    return result


def naive_k_core(pairs: list[tuple[str, str]], user_core: int, item_core: int) -> list[tuple[str, str]]:
    """Remove one offending user or item at a time, until there is none."""
    remaining = list(pairs)
    while True:
        users, items = Counter(user for user, _ in remaining), Counter(item for _, item in remaining)
        few = [(0, user) for user in users if users[user] < user_core]
        few += [(1, item) for item in items if items[item] < item_core]
        if not few:
            return remaining
        side, name = few[0]
        remaining = [pair for pair in remaining if pair[side] != name]


def write_jsonl(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
