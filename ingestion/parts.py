"""The files of a source, one or the parts that a cluster wrote into a folder, and what all formats refuse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize
from urllib.parse import unquote

from common.errors import shorten
from ingestion.config import IngestError, Source

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
TABLES = {"_delta_log": "a Delta table", ".hoodie": "a Hudi table"}  # their folders also hold deleted rows
SHOWN_COLUMNS = 20


@dataclass(frozen=True)
class Part:
    """One file of a source."""

    path: Path
    location: str
    """The file as messages name it."""
    keys: dict[str, str | None] = field(default_factory=dict)
    """Columns that are folders of the path: `day=2024-01-01/part-0.parquet`."""

    def unreadable(self, source: Source, reason: str) -> IngestError:
        """The error for a file that isn't what its format says."""
        return IngestError(f"{self.location} cannot be read as {source.resolved_format()}: {reason}.")


def source_parts(source: Source, path: Path) -> list[Part]:
    """The files to read, in the order of their names; of a folder, hidden and empty ones are left out.

    Raises:
        IngestError: the source is empty, or a folder that more than its files describes.
    """
    if not path.is_dir():
        parts = [Part(path, source.location)]
    else:
        for name, kind in TABLES.items():
            if (path / name).exists():
                raise IngestError(f"{source.location} is {kind}; export its current rows as Parquet or CSV.")
        parts = []
        for file in sorted(path.rglob("*")):
            pieces = file.relative_to(path).parts
            if file.is_file() and not any(piece.startswith((".", "_")) for piece in pieces):
                pairs = (piece.split("=", 1) for piece in pieces[:-1] if "=" in piece)
                keys = {unquote(key): None if value == NO_VALUE else unquote(value) for key, value in pairs}
                parts.append(Part(file, f"{source.location}/{'/'.join(pieces)}", keys))
    parts = [part for part in parts if part.path.stat().st_size]
    if not parts:
        raise IngestError(f"{source.location} is empty; it needs a header or records with at least one row.")
    return parts


def require_columns(source: Source, location: str, columns: Sequence[str], delimiter: str = "") -> None:
    """Refuse a file that lacks a mapped column, or names it twice.

    Args:
        delimiter: what splits the header of a CSV file.
    """
    if twice := [column for column in source.columns.values() if columns.count(column) > 1]:
        raise IngestError(f"{location} names column {shorten(twice[0])} twice; rename one of them.")
    for name, column in source.columns.items():
        if column in columns:
            continue
        shown = ", ".join(shorten(known)[1:-1] for known in columns[:SHOWN_COLUMNS])
        more = f" and {len(columns) - SHOWN_COLUMNS:,} more" if len(columns) > SHOWN_COLUMNS else ""
        hint = ""
        if similar := [known for known in columns if _letters(known) == _letters(column)]:
            hint = f"; {similar[0]!a} differs in case, blanks or accents from {column!a}"
        elif delimiter and len(columns) == 1 and (other := [sign for sign in ";\t|," if sign in columns[0]]):
            hint = f"; if {other[0]!r} separates the fields, set delimiter"
        elif delimiter and source.header:
            hint = "; if the first line is a row, set header to false, and map the numbers of columns"
        raise IngestError(
            f"{location} has no column {shorten(column)} (mapped to {name}); it has: {shown}{more}{hint}."
        )


def nested_error(location: str, column: str, kind: str) -> IngestError:
    """The error for a cell that is neither text nor, in a text column, a list of texts."""
    return IngestError(
        f"{location}, column {shorten(column)}, holds nested values ({kind}); "
        "flatten them to text or, in a text column, to a list of texts first."
    )


def _letters(name: str) -> str:
    return normalize("NFKD", name).casefold().strip()
