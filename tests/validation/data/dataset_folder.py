"""A small, sound dataset folder in the shape that ingest writes, and a way to break it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

USERS, ITEMS, LENGTH = 6, 8, 5
START = datetime(2020, 1, 1, tzinfo=UTC)
TIME = pa.timestamp("us", "UTC")
SOURCE = {"user_id": pa.string(), "item_id": pa.string(), "timestamp": TIME, "action": pa.float64()}
KEPT = {
    "user_id": pa.string(),
    "item_id": pa.string(),
    "position": pa.int64(),
    "timestamp": TIME,
    "action": pa.float64(),
    "split": pa.string(),
}

Rows = list[dict[str, object]]


def write_dataset(folder: Path) -> Path:
    """Users with LENGTH interactions each, over ITEMS items."""
    interactions: Rows = []
    for user in range(USERS):
        for position in range(LENGTH):
            interactions.append({
                "user_id": f"u{user}",
                "item_id": f"i{(user + 2 * position) % ITEMS}",
                "position": position,
                "timestamp": START + timedelta(days=user, hours=position),
                "action": float(1 + (user + position) % 5),
                "split": {LENGTH - 1: "test", LENGTH - 2: "valid"}.get(position, "train"),
            })  # fmt: skip
    items: Rows = [{"item_id": f"i{item}", "title": f"Film {item}"} for item in range(ITEMS)]
    folder.mkdir(parents=True, exist_ok=True)
    save(folder, "interactions", interactions, KEPT)
    save(folder, "source_interactions", [{key: row[key] for key in SOURCE} for row in interactions], SOURCE)
    for name in ("items", "source_items"):
        save(folder, name, items, {"item_id": pa.string(), "title": pa.string()})
    return folder


def save(folder: Path, name: str, rows: Rows, types: dict[str, pa.DataType]) -> None:
    """Write rows as a Parquet table with the given column types."""
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(types)), folder / f"{name}.parquet")


def edit(folder: Path, name: str, change: Callable[[Rows], object]) -> None:
    """Change a table's rows in place; types stay."""
    table = pq.read_table(folder / f"{name}.parquet")
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / f"{name}.parquet")


def cast(folder: Path, name: str, column: str, kind: pa.DataType) -> None:
    """Give a column another type."""
    table = pq.read_table(folder / f"{name}.parquet")
    index = table.schema.get_field_index(column)
    pq.write_table(table.set_column(index, column, table[column].cast(kind)), folder / f"{name}.parquet")


def drop(folder: Path, name: str, column: str) -> None:
    """Remove a column."""
    pq.write_table(pq.read_table(folder / f"{name}.parquet").drop_columns(column), folder / f"{name}.parquet")
