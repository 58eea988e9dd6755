"""Files -> raw tables, with the row's place in the file, and errors that people can act on."""

from __future__ import annotations

import gzip
from pathlib import Path

import ibis.expr.types as ir

from ingestion import transform
from ingestion.config import IngestError, Source
from ingestion.engines.base import Engine


def read_source(engine: Engine, source: Source, path: Path) -> ir.Table:
    """Load the mapped columns of a file, under our names, with `source_row` (0.. in file order).

    Values stay as the file has them: text for CSV, TSV and JSONL; typed for Parquet.

    Raises:
        IngestError: the file is empty, broken, or lacks a mapped column.
    """
    where = source.location
    if path.stat().st_size == 0:
        raise IngestError(f"{where} is empty; it needs a header or records with at least one row.")
    try:
        raw, rows = engine.read(source, path)
    except UnicodeDecodeError as error:
        why = "it is not UTF-8 text; save it as UTF-8."
        raise IngestError(f"{where} cannot be read as {source.resolved_format()}: {why}") from error
    except (gzip.BadGzipFile, EOFError) as error:
        why = f"{str(error).rstrip('. ')}."
        raise IngestError(f"{where} cannot be read as {source.resolved_format()}: {why}") from error
    if not rows:
        raise IngestError(f"{where} has no rows; it needs at least one.")
    return _cast(engine, raw, source)


def _cast(engine: Engine, raw: ir.Table, source: Source) -> ir.Table:
    casts = {"string": transform.as_id, "int64": transform.as_integer, "float64": transform.as_number}
    for name, kind in source.casts.items():
        cast = raw.mutate(**{name: casts[kind](raw[name])})
        require_readable(
            engine, source, raw, cast, column=name, expected=f"{kind}: fix them, or drop '{name}' from casts"
        )
        raw = cast
    for name in {"user_id", "item_id"} & set(raw.columns):
        if raw[name].type().is_floating():
            raise IngestError(
                f"{source.location}, column '{source.columns[name]}', holds ids as floating-point numbers; "
                f'store them as integers or text, or set casts to {{"{name}": "int64"}}.'
            )
    return raw


def require_readable(
    engine: Engine, source: Source, raw: ir.Table, mapped: ir.Table, *, column: str, expected: str
) -> None:
    """Refuse a column with values that are there but could not be read.

    Args:
        expected: ends the sentence "cannot be read as ...": what was expected, and what to do.

    Raises:
        IngestError: naming file, column, the number of such values, and the first one.
    """
    bad, count = engine.store(transform.unreadable(raw, mapped, column))
    if count:
        first = engine.fetch(bad.order_by("source_row").limit(1)).to_pylist()[0]
        raise IngestError(
            f"{source.location}, column '{source.columns[column]}': {count} value{'s' if count > 1 else ''} "
            f"(first: '{first['value']}' in row {first['source_row'] + 1}) cannot be read as {expected}."
        )
