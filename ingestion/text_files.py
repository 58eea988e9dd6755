"""A first look at a text file, whatever engine reads it: its header, and which of its lines is broken."""

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
    """What separates the fields of a CSV or TSV source."""
    return source.delimiter or ("\t" if source.resolved_format() == "tsv" else ",")


def header_of(source: Source, path: Path) -> list[str]:
    """The column names in the first line of a CSV or TSV file; every mapped column is among them.

    Raises:
        IngestError: there is no header, it names a column twice, or lacks a mapped one.
    """
    with open_text(path) as stream:
        header = next(_rows(source, stream), [])
    if not header:
        raise IngestError(f"{source.location} has no header; its first line must name the columns.")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise IngestError(f"{source.location} names column '{twice[0]}' twice; rename one of them.")
    require(source, header)
    return header


def require(source: Source, found: list[str]) -> None:
    """Refuse a source that lacks a mapped column."""
    for ours, theirs in source.columns.items():
        if theirs not in found:
            raise IngestError(
                f"{source.location} has no column '{theirs}' (mapped to {ours}); it has: {', '.join(found)}."
            )


def nested(source: Source, name: str, kind: object) -> IngestError:
    """The refusal of a column that is neither text nor a list of texts."""
    return IngestError(
        f"{source.location}, column '{name}', holds nested values ({kind}); "
        "flatten them to text or to a list of texts first."
    )


def no_records(source: Source) -> IngestError:
    """The refusal of JSON Lines that are not objects."""
    return IngestError(f"{source.location} holds no records; every line must be a JSON object.")


def bad_json_line(source: Source, path: Path) -> str | None:
    """Say which line of a JSON Lines file is broken: engines' own line numbers can be off, or missing."""
    with open_text(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                json.loads(line or "null")
            except ValueError as error:
                if line.strip():
                    return f"{source.location} cannot be read as jsonl: line {number} is not JSON ({error})."
    return None


def bad_csv_line(source: Source, path: Path, width: int) -> str | None:
    """Say which line of a CSV or TSV file has another number of fields than `width`, or a stray quote."""
    fix = "fix it, or set delimiter and quote."
    with open_text(path) as stream:
        rows = _rows(source, stream)
        try:
            for row in rows:
                if row and len(row) != width:
                    why = f"Expected Number of Columns: {width} Found: {len(row)}"
                    return f"line {rows.line_num} is broken ({why}); {fix}"
        except csv.Error as error:
            return f"line {rows.line_num} is broken ({error}); {fix}"
    return None


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
