"""The report of an ingestion: rows read, dropped and kept, and the digest of the result."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from common.digests import files_digest, json_digest
from ingestion.config import DatasetConfig


class ReportModel(BaseModel):
    """A part of report.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Counts(ReportModel):
    """Rows of the two tables."""

    interactions: int
    """Rows of interactions."""
    items: int
    """Rows of items."""


class Dropped(ReportModel):
    """Rows dropped by each rule, in the order in which the rules ran."""

    interactions: dict[str, int]
    """Rows of interactions by rule."""
    items: dict[str, int]
    """Rows of items by rule."""


class IngestReport(ReportModel):
    """`report.json` of a dataset folder; `read` is `kept` plus everything in `dropped`."""

    format: int = 1
    """Version of this format."""
    name: str
    """Name of the dataset."""
    read: Counts
    """Rows that the sources hold."""
    dropped: Dropped
    """Rows that the rules removed."""
    kept: Counts
    """Rows of the two resulting tables."""
    users: int
    """Users with a kept interaction."""
    items: int
    """Items with a kept interaction."""
    cold_items: int
    """Items without one, which are offered through their text."""
    density: float
    """Interactions per possible pair of a user and an item, 0 to 1."""
    splits: dict[str, int]
    """Interactions in train, valid and test."""
    k_core_rounds: int
    """Rounds of k-core filtering that removed something."""
    order: tuple[str, ...]
    """Columns that ordered each user's interactions."""
    first_time: str | None
    """Time of the first kept interaction (ISO 8601, UTC); none if the source has no times."""
    last_time: str | None
    """Time of the last kept interaction (ISO 8601, UTC); none if the source has no times."""
    text_columns: tuple[str, ...]
    """Columns that an item's text is composed of, in order."""
    source_digest: str
    """Digest of the settings and the sources' content."""
    dataset_digest: str
    """Digest of the values in the two resulting tables."""
    config: DatasetConfig
    """The settings."""


def content_digest(interactions: pa.Table, items: pa.Table) -> str:
    """Digest of the values of both tables, whatever wrote or compressed the files."""
    digests = {}
    for name, table in (("interactions", interactions), ("items", items)):
        for column_name in table.column_names:
            column = table[column_name]
            if pa.types.is_timestamp(column.type):
                column = column.cast(pa.int64())
            digests[f"{name}/{column_name}"] = json_digest(column.to_pylist())
    return files_digest(digests)


def time_range(times: pa.ChunkedArray) -> tuple[str | None, str | None]:
    """First and last time as ISO 8601, or two Nones."""
    if times.null_count == len(times):
        return None, None
    bounds = pc.min_max(times).as_py()
    first, last = (bounds[name].isoformat().replace("+00:00", "Z") for name in ("min", "max"))
    return first, last
