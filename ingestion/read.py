"""Files -> raw tables, with the row's place in the file, and errors that people can act on."""

from __future__ import annotations

import csv
import gzip
import json
import re
from pathlib import Path
from typing import IO

import duckdb
import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from ingestion import transform
from ingestion.config import Source
from ingestion.engine import Engine
from ingestion.errors import IngestError

CSV_LINE = re.compile(
    r"CSV Error on Line: (?P<line>\d+).*?"
    r"^(?P<why>Expected Number of Columns: \d+ Found: \d+|Value with unterminated quote found)",
    re.DOTALL | re.MULTILINE,
)


def read_source(engine: Engine, source: Source, path: Path) -> ir.Table:
    """Load the mapped columns of a file, under our names, with `source_row` (0.. in file order).

    Values stay as the file has them: text for CSV, TSV and JSONL; typed for Parquet.

    Raises:
        IngestError: the file is empty, broken, or lacks a mapped column.
    """
    where = source.location
    if path.stat().st_size == 0:
        raise IngestError(f"{where} is empty; it needs a header or records with at least one row.")
    readers = {"csv": _read_delimited, "tsv": _read_delimited, "jsonl": _read_jsonl, "parquet": _read_parquet}
    try:
        table = readers[source.resolved_format()](engine.connection, source, path)
        renamed = table.select({ours: table[theirs] for ours, theirs in source.columns.items()})
        # DuckDB documents that an empty window keeps the order of the file.
        raw, rows = engine.store(renamed.mutate(source_row=ibis.row_number()))
    except (duckdb.Error, UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise IngestError(f"{where} cannot be read as {source.resolved_format()}: {_say(error)}") from error
    if not rows:
        raise IngestError(f"{where} has no rows; it needs at least one.")
    return _cast(raw, source)


def _read_delimited(connection: Backend, source: Source, path: Path) -> ir.Table:
    delimiter = source.delimiter or ("\t" if source.resolved_format() == "tsv" else ",")
    header = _header(source, path, delimiter)
    if not header:
        raise IngestError(f"{source.location} has no header; its first line must name the columns.")
    _require(source, header)
    # Sniffing is off: it would quietly take a short or long row for a header.
    return connection.read_csv(
        _literal(path),
        auto_detect=False,
        header=True,
        columns=dict.fromkeys(header, "VARCHAR"),
        delim=delimiter,
        quote=source.quote,
        escape=source.quote,
        strict_mode=True,
    )


def _header(source: Source, path: Path, delimiter: str) -> list[str]:
    with _open_text(path) as stream:
        if source.quote:
            header = next(csv.reader(stream, delimiter=delimiter, quotechar=source.quote), [])
        else:
            header = next(csv.reader(stream, delimiter=delimiter, quoting=csv.QUOTE_NONE), [])
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise IngestError(f"{source.location} names column '{twice[0]}' twice; rename one of them.")
    return header


def _read_jsonl(connection: Backend, source: Source, path: Path) -> ir.Table:
    try:
        found = connection.read_json(_literal(path), format="newline_delimited", sample_size=-1).schema()
        if list(found) == ["json"]:  # DuckDB's name for values that are no records
            raise IngestError(f"{source.location} holds no records; every line must be a JSON object.")
        _require(source, list(found))
        wanted = {name: _json_type(source, name, found[name]) for name in source.columns.values()}
        return connection.read_json(_literal(path), format="newline_delimited", columns=wanted)
    except duckdb.Error as error:
        raise IngestError(_bad_json_line(source, path) or f"{source.location}: {_say(error)}") from error


def _json_type(source: Source, name: str, kind: ibis.DataType) -> str:
    """Scalars are read as the text they were written as, so that 1 and "1" are the same id."""
    nested = kind.is_struct() or kind.is_map() or (kind.is_array() and kind.value_type.is_nested())
    if nested:
        raise IngestError(
            f"{source.location}, column '{name}', holds nested values ({kind}); "
            "flatten them to text or to a list of texts first."
        )
    if kind.is_array():
        return "VARCHAR[]"
    return "BOOLEAN" if kind.is_boolean() else "VARCHAR"


def _bad_json_line(source: Source, path: Path) -> str | None:
    """Say which line is broken: DuckDB's own line numbers can be off by one."""
    with _open_text(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                json.loads(line or "null")
            except ValueError as error:
                if line.strip():
                    return f"{source.location} cannot be read as jsonl: line {number} is not JSON ({error})."
    return None


def _read_parquet(connection: Backend, source: Source, path: Path) -> ir.Table:
    table = connection.read_parquet(_literal(path))
    _require(source, list(table.columns))
    return table


def _require(source: Source, found: list[str]) -> None:
    for ours, theirs in source.columns.items():
        if theirs not in found:
            raise IngestError(
                f"{source.location} has no column '{theirs}' (mapped to {ours}); it has: {', '.join(found)}."
            )


def _cast(raw: ir.Table, source: Source) -> ir.Table:
    casts = {"string": transform.as_id, "int64": transform.as_integer, "float64": transform.as_number}
    for name, kind in source.casts.items():
        cast = raw.mutate(**{name: casts[kind](raw[name])})
        require_readable(source, raw, cast, name, f"{kind}: fix them, or drop '{name}' from casts")
        raw = cast
    for name in {"user_id", "item_id"} & set(raw.columns):
        if raw[name].type().is_floating():
            raise IngestError(
                f"{source.location}, column '{source.columns[name]}', holds ids as floating-point numbers; "
                f'store them as integers or text, or set casts to {{"{name}": "int64"}}.'
            )
    return raw


def require_readable(source: Source, raw: ir.Table, mapped: ir.Table, column: str, expected: str) -> None:
    """Refuse a column with values that are there but could not be read.

    Args:
        expected: ends the sentence "cannot be read as ...": what was expected, and what to do.

    Raises:
        IngestError: naming file, column, the number of such values, and the first one.
    """
    bad = transform.unreadable(raw, mapped, column)
    count = bad.count().to_pyarrow().as_py()
    if count:
        first = bad.limit(1).to_pyarrow().to_pylist()[0]
        raise IngestError(
            f"{source.location}, column '{source.columns[column]}': {count} value{'s' if count > 1 else ''} "
            f"(first: '{first['value']}' in row {first['source_row'] + 1}) cannot be read as {expected}."
        )


def _literal(path: Path) -> str:
    """A path in which the engine sees no wildcards."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))


def _open_text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _say(error: Exception) -> str:
    """The part of an engine's message that names the trouble, without its advice on the engine."""
    text = str(error)
    broken = CSV_LINE.search(text)
    if broken:
        return f"line {broken['line']} is broken ({broken['why']}); fix it, or set delimiter and quote."
    if isinstance(error, UnicodeDecodeError) or "not utf-8" in text:
        return "it is not UTF-8 text; save it as UTF-8."
    return text.split("\n\n", maxsplit=1)[0].split(": ", 1)[-1].replace("\n", " ").rstrip(". ") + "."
