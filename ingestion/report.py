"""The account of one ingest: what was read, dropped and kept, and the digest that names the result."""

from __future__ import annotations

import datetime

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from common.digests import files_digest, json_digest
from ingestion.config import DatasetConfig


class Counts(BaseModel):
    """Rows of the two tables."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    interactions: int
    items: int


class Dropped(BaseModel):
    """Rows dropped, by rule, in the order in which the rules ran."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    interactions: dict[str, int]
    items: dict[str, int]


class IngestReport(BaseModel):
    """`report.json` of a dataset folder; `read` is `kept` plus everything in `dropped`.

    Attributes:
        density: interactions per possible pair of a user and an item, 0..1.
        splits: interactions in train, valid and test.
        first_time, last_time: of the kept interactions (ISO 8601, UTC); None where the source has no times.
        order: the columns that ordered each user's interactions.
        text_columns: the order in which an item's text is composed.
        source_digest: names settings and sources; dataset_digest names the two resulting tables' content.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = 1
    name: str
    read: Counts
    dropped: Dropped
    kept: Counts
    users: int
    items: int
    density: float
    splits: dict[str, int]
    k_core_rounds: int
    order: tuple[str, ...]
    first_time: str | None
    last_time: str | None
    text_columns: tuple[str, ...]
    source_digest: str
    dataset_digest: str
    config: DatasetConfig


def content_digest(interactions: pa.Table, items: pa.Table) -> str:
    """Digest of values, column by column: the same for any Parquet writer, compression or row grouping."""
    tables = {"interactions": interactions, "items": items}
    return files_digest(
        {
            f"{name}/{column}": json_digest(_plain(table[column]).to_pylist())
            for name, table in tables.items()
            for column in table.column_names
        }
    )


def time_range(times: pa.ChunkedArray) -> tuple[str | None, str | None]:
    """First and last time as ISO 8601, or two Nones."""
    if times.null_count == len(times):
        return None, None
    bounds = pc.min_max(times).as_py()
    return _iso(bounds["min"]), _iso(bounds["max"])


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column


def _iso(time: datetime.datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")
