"""Reads a dataset folder and adds the columns that make cross-row rules checkable row by row.

A rule that spans rows or tables (is this item in the catalogue? is this user's order complete?) becomes a
helper column: null if the row keeps the rule, the offending id if it does not. Great Expectations then checks
that the column is null, and its examples are the ids to look for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from validation.data.findings import Finding

COLUMNS = {
    "source_interactions": ("user_id", "item_id", "timestamp", "position", "action"),
    "source_items": ("item_id", "title"),
    "interactions": ("user_id", "item_id", "position", "timestamp", "action", "split"),
    "items": ("item_id", "title"),
}
REPEATED = 5  # items; a title that more of them have tells none of them from the others
EVALUATED_FROM = 3  # users with fewer interactions are all train


@dataclass(frozen=True)
class Table:
    """One table as loaded, and the findings from loading it."""

    name: str
    frame: pd.DataFrame
    findings: tuple[Finding, ...] = ()


def load_tables(dataset: Path) -> dict[str, Table]:
    """Load the four tables of a dataset folder with their helper columns.

    A missing or unreadable file gives an empty table and a finding, so that all problems show at once.
    """
    tables = {name: _load(dataset, name) for name in COLUMNS}
    source, catalogue = tables["source_interactions"].frame, tables["source_items"].frame
    kept, items = tables["interactions"].frame, tables["items"].frame
    if "title" not in catalogue:
        catalogue["title"] = pd.Series(index=catalogue.index, dtype="str")
    title = catalogue["title"]
    _add(catalogue, "item_without_title", "item_id", title.isna() | (title.astype("str").str.strip() == ""))
    words = title.fillna("").astype(str).str.casefold().str.findall(r"\w+").str.join(" ")
    carriers = words.map(words[words != ""].value_counts()).fillna(0)
    _add(catalogue, "item_with_same_title", "title", carriers > 1)
    _add(catalogue, "item_with_repeated_title", "title", carriers > REPEATED)
    for rows, known_items in ((source, catalogue), (kept, items)):
        if "item_id" in rows and "item_id" in known_items:
            orphan = rows["item_id"].notna() & ~rows["item_id"].isin(known_items["item_id"])
            _add(rows, "orphan_item", "item_id", orphan)
    if {"user_id", "position", "split"} <= set(kept):  # positions are 0..n-1, the last rows valid and test
        count = kept.groupby("user_id", sort=False, dropna=False)["user_id"].cumcount()
        _add(kept, "user_with_position_gap", "user_id", kept["position"] != count)
        size = kept["user_id"].map(kept["user_id"].value_counts()).fillna(0)
        from_end = np.where(size >= EVALUATED_FROM, size - 1 - count, -1)
        expected = np.select([from_end == 0, from_end == 1], ["test", "valid"], "train")
        _add(kept, "user_with_wrong_split", "user_id", kept["split"] != expected)
    return tables


def _load(dataset: Path, name: str) -> Table:
    path = dataset / f"{name}.parquet"
    try:
        schema = pq.read_schema(path)
        findings = [_check_type(name, field) for field in schema if field.name in COLUMNS[name]]
        wrong = {finding.column for finding in findings if finding}
        columns = [field for field in COLUMNS[name] if field in schema.names and field not in wrong]
        frame = pq.read_table(path, columns=columns).to_pandas()
    except (OSError, pa.ArrowException, ValueError) as error:
        details = " ".join(str(error).split())[:200]
        reason = f"cannot be read ({details})" if path.exists() else "is missing"
        unreadable = Finding(
            table=name,
            expects="The table is a readable Parquet file.",
            ok=False,
            observed=reason,
            problem=f"Table {name}: the file {path.name} {reason}; run ingest again.",
        )
        return Table(name, pd.DataFrame(), (unreadable,))
    if "timestamp" in frame and not isinstance(frame["timestamp"].dtype, pd.DatetimeTZDtype):
        frame["timestamp"] = pd.to_datetime(frame["timestamp"], utc=True)
    return Table(name, frame, tuple(finding for finding in findings if finding))


def _check_type(table: str, field: pa.Field) -> Finding | None:
    """A finding if a column's type is not what the table's contract says; all-null columns fit any."""
    kinds = {
        "timestamp": ("a timestamp", pa.types.is_timestamp),
        "position": ("an integer", pa.types.is_integer),
        "action": ("a number", lambda kind: pa.types.is_floating(kind) or pa.types.is_integer(kind)),
    }
    text = ("text", lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind))
    expected, fits = kinds.get(field.name, text)
    if fits(field.type) or pa.types.is_null(field.type):
        return None
    return Finding(
        table=table,
        column=field.name,
        expects=f"{field.name} is {expected}.",
        ok=False,
        observed=str(field.type),
        problem=f"Table {table}, column {field.name}: the type is {field.type}, not {expected}; "
        "correct the column mapping and run ingest again.",
    )


def _add(frame: pd.DataFrame, helper: str, id_column: str, broken: pd.Series) -> None:
    """Add a helper column: the id (or title) if a row breaks the rule, null otherwise."""
    if id_column in frame:
        ids = frame[id_column].astype(object)
        frame[helper] = ids.where(ids.notna(), "(null)").where(broken, None)
