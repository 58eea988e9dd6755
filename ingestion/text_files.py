"""CSV, TSV and JSON Lines row by row: the mapped cells as text, and the line on which each row starts."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import IO, Any, NoReturn

import pyarrow as pa

from common.errors import shorten
from ingestion.config import IngestError, Source
from ingestion.parts import Part, nested_error, require_columns

MAX_LINE = 1 << 24  # characters of a line or a value; a quote that is never closed ends here
INNER = "\x1f"  # stands for a delimiter of several characters, which the csv module can't split by
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"(\xb5/\xfd": "zstd"}
FOREIGN = {
    b"PK\x03\x04": "it is a zip archive or a workbook; unpack or export it",
    b"\xfd7zXZ": "it is an xz archive; unpack it",
    b"PAR1": "it is Parquet; set format to parquet",
}
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
CSV_ERRORS = {
    "unexpected end of data": "starts a quoted value that never ends",
    "expected after": "has text after a closing quote",
    "field larger": f"has a value of more than {MAX_LINE:,} characters; perhaps a closing quote is missing",
}

csv.field_size_limit(MAX_LINE)


def text_rows(source: Source, parts: Sequence[Part]) -> Iterator[tuple[Part, int, Sequence[str | None]]]:
    """Every row of a source: its file, the line where it starts (from 1), and the cells that are mapped.

    Raises:
        IngestError: a file is broken, or lacks a mapped column.
    """
    is_json, keys = source.resolved_format() == "jsonl", set[str]()
    for part in parts:
        try:
            with _open_text(source, part) as stream:
                lines = _lines(source, part, stream)
                rows = _json_rows(source, part, lines, keys) if is_json else _csv_rows(source, part, lines)
                for line, cells in rows:
                    yield part, line, cells
        except UnicodeError as error:
            raise part.unreadable(source, f"it is not {source.encoding.upper()} text") from error
        except OSError as error:
            reason = error.strerror or "its compressed content is damaged"
            raise part.unreadable(source, reason) from error
    if keys:  # of all records: a single one may lack some
        require_columns(source, source.location, sorted(keys))


@contextmanager
def _open_text(source: Source, part: Part) -> Iterator[IO[str]]:
    """A text file, whatever compressed it; bytes that are no text become surrogates."""
    with part.path.open("rb") as stream:
        head = stream.read(8)
    for magic, reason in FOREIGN.items():
        if head.startswith(magic):
            raise part.unreadable(source, reason)
    is_utf8 = codecs.lookup(source.encoding).name == "utf-8"
    if head.startswith(UTF_16) and is_utf8:
        raise part.unreadable(source, 'it is UTF-16 text; save it as UTF-8, or set encoding to "utf-16"')
    compression = next((kind for magic, kind in COMPRESSIONS.items() if head.startswith(magic)), None)
    with pa.input_stream(str(part.path), compression=compression) as binary:
        encoding = "utf-8-sig" if is_utf8 else source.encoding
        yield io.TextIOWrapper(binary, encoding=encoding, errors="surrogateescape", newline="")


def _lines(source: Source, part: Part, stream: IO[str]) -> Iterator[str]:
    number = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        if "\0" in line:
            raise part.unreadable(source, f"line {number} holds a NUL character; save the file as UTF-8 text")
        if len(line) > MAX_LINE:
            raise part.unreadable(source, f"line {number} has more than {MAX_LINE:,} characters")
        if not line.isascii():
            try:
                line.encode()
            except UnicodeEncodeError as error:
                advice = "save it as UTF-8, or set encoding to what it is, such as latin-1"
                raise part.unreadable(
                    source, f"line {number} is not {source.encoding.upper()} text; {advice}"
                ) from error
        yield line


def _csv_rows(source: Source, part: Part, lines: Iterator[str]) -> Iterator[tuple[int, Sequence[str | None]]]:
    delimiter = source.delimiter or ("\t" if source.resolved_format() == "tsv" else ",")
    is_long = len(delimiter) > 1
    if is_long:
        lines = _with_inner_delimiter(source, part, lines, delimiter)
    reader = csv.reader(
        lines,
        delimiter=INNER if is_long else delimiter,
        quotechar=source.quote or None,
        quoting=csv.QUOTE_MINIMAL if source.quote else csv.QUOTE_NONE,
        strict=True,
    )
    end, pick, width = 0, None, 0
    try:
        for row in reader:
            start, end = end + 1, reader.line_num
            if pick is None:
                if not row:
                    raise IngestError(f"{part.location} has no header; its first line must name the columns.")
                width = len(row)
                names = row if source.header else [str(number) for number in range(1, width + 1)]
                names = [*names, *part.keys]
                require_columns(source, part.location, names, delimiter)
                pick = itemgetter(*(names.index(column) for column in source.columns.values()))
                if source.header:
                    continue
            if len(row) != width:
                if not row:
                    continue
                fields = f"{len(row)} field{'s' if len(row) > 1 else ''}"
                rule = f"has {fields}, line 1 has {width}; fix it, or set delimiter and quote"
                raise part.unreadable(source, f"line {start} {rule}")
            cells = pick([*row, *part.keys.values()]) if part.keys else pick(row)
            if len(source.columns) == 1:
                cells = (cells,)
            yield start, [cell and cell.replace(INNER, delimiter) for cell in cells] if is_long else cells
    except csv.Error as error:
        reason = next((text for key, text in CSV_ERRORS.items() if key in str(error)), "has stray quotes")
        raise part.unreadable(
            source, f"line {end + 1} {reason}; fix it, or set delimiter and quote"
        ) from error


def _with_inner_delimiter(source: Source, part: Part, lines: Iterator[str], delimiter: str) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if INNER in line:
            raise part.unreadable(source, f"line {number} holds the control character U+001F; remove it")
        yield line.replace(delimiter, INNER)


def _json_rows(
    source: Source, part: Part, lines: Iterator[str], keys: set[str]
) -> Iterator[tuple[int, Sequence[str | None]]]:
    """Numbers stay the text they were written as, so that 1 and "1" are the same id and 1e5 stays 1e5."""
    decode = json.JSONDecoder(
        object_pairs_hook=tuple, parse_int=str, parse_float=str, parse_constant=_refuse_constant
    ).decode
    columns = list(source.columns.items())
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            pairs = decode(line)
        except (ValueError, RecursionError) as error:
            deep = isinstance(error, RecursionError)
            reason = "it nests too deeply" if deep else getattr(error, "msg", None) or str(error)
            raise part.unreadable(
                source, f"line {number} is not a JSON object ({reason}); write one object a line"
            ) from error
        if not isinstance(pairs, tuple):
            raise part.unreadable(source, f"line {number} holds {_kind(pairs)}; write one object a line")
        record = dict(pairs)
        if len(record) < len(pairs):
            names = [name for name, _ in pairs]
            for column in source.columns.values():
                if names.count(column) > 1:
                    raise part.unreadable(source, f"line {number} names {shorten(column)} twice; remove one")
        record |= part.keys
        keys.update(record)
        cells = []
        for name, column in columns:
            value = record.get(column)
            if value is not None and not isinstance(value, str):
                if isinstance(value, tuple) or (isinstance(value, list) and source.role(name) != "text"):
                    raise nested_error(part.location, column, f"{_kind(value)} in line {number}")
                value = _json_text(value, source.role(name) == "number")
                if value is None:
                    raise nested_error(part.location, column, f"a list of lists or objects in line {number}")
            cells.append(value)
        yield number, cells


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number; write null")


def _kind(value: Any) -> str:
    kinds = {list: "a list", tuple: "an object", str: "text or a number", bool: "true or false"}
    return kinds.get(type(value), "null")


def _json_text(value: Any, is_number: bool) -> str | None:
    """A scalar or a list of scalars as text; None for what is nested deeper."""
    if isinstance(value, bool):
        return str(int(value)) if is_number else str(value).lower()
    if isinstance(value, str):
        return value
    texts = [_json_text(item, is_number) for item in value if item is not None]
    nested = any(isinstance(item, list | tuple) for item in value)
    return None if nested else ", ".join(filter(None, texts))
