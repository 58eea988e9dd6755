"""Look into a text file before or after an engine reads it: its header, and which line is broken."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ingestion.config import IngestError, Source

if TYPE_CHECKING:
    from _csv import Reader


def delimiter_of(source: Source) -> str:
    """Character between the fields of a CSV or TSV source."""
    return source.delimiter or ("\t" if source.resolved_format() == "tsv" else ",")


def header_of(source: Source, path: Path) -> list[str]:
    """The column names in the first line of a CSV or TSV file.

    Raises:
        IngestError: there is no header, or it names a column twice or lacks a mapped one.
    """
    with open_text(path) as stream:
        header = next(_rows(source, stream), [])
    if not header:
        raise IngestError(f"{source.location} has no header; its first line must name the columns.")
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise IngestError(f"{source.location} names column '{repeated[0]}' twice; rename one of them.")
    require_columns(source, header)
    return header


def require_columns(source: Source, columns: list[str]) -> None:
    """Refuse a file whose columns lack a mapped one."""
    for name, column in source.columns.items():
        if column not in columns:
            raise IngestError(
                f"{source.location} has no column '{column}' (mapped to {name}); "
                f"it has: {', '.join(columns)}."
            )


def nested_error(source: Source, column: str, kind: object) -> IngestError:
    """The error for a column that is neither text nor a list of texts."""
    return IngestError(
        f"{source.location}, column '{column}', holds nested values ({kind}); "
        "flatten them to text or to a list of texts first."
    )


def no_records_error(source: Source) -> IngestError:
    """The error for JSON Lines that are not objects."""
    return IngestError(f"{source.location} holds no records; every line must be a JSON object.")


def bad_json_line(source: Source, path: Path) -> str | None:
    """A sentence on the first broken line of a JSON Lines file; engines do not always give its number."""
    with open_text(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                json.loads(line or "null")
            except ValueError as error:
                if line.strip():
                    return f"{source.location} cannot be read as jsonl: line {number} is not JSON ({error})."
    return None


def bad_csv_line(source: Source, path: Path, width: int) -> str | None:
    """A sentence on the first line of a CSV or TSV file with a stray quote or not `width` fields."""
    with open_text(path) as stream:
        rows = _rows(source, stream)
        try:
            bad = next((row for row in rows if row and len(row) != width), None)
            reason = f"Expected Number of Columns: {width} Found: {len(bad)}" if bad else None
        except csv.Error as error:
            reason = str(error)
        return (
            f"line {rows.line_num} is broken ({reason}); fix it, or set delimiter and quote."
            if reason
            else None
        )


def open_text(path: Path) -> IO[str]:
    """A text file, gzipped or not, with or without a byte order mark."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _rows(source: Source, stream: IO[str]) -> Reader:
    quote, delimiter = source.quote, delimiter_of(source)
    if quote:
        return csv.reader(stream, delimiter=delimiter, quotechar=quote, strict=True)
    return csv.reader(stream, delimiter=delimiter, quoting=csv.QUOTE_NONE)
