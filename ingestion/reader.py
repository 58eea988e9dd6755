"""The one reader of people's files, for ingestion and onboarding: the same cell is the same text everywhere.

Every mapped column becomes text: identifiers exactly as written, everything else without outer blanks, texts
of items without HTML (ingestion/markup.py), and empty text is null. Numbers keep the digits they were written
with; lists of texts are joined by commas. Only times that a Parquet file stores as times stay times (UTC,
microseconds).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.errors import shorten
from common.limits import MAX_ID, MAX_TITLE
from ingestion.config import IngestError, ItemSource, Source
from ingestion.markup import strip_markup
from ingestion.parts import Part, nested_error, require_columns, source_parts
from ingestion.text_files import MAX_LINE, text_rows

BATCH = 1 << 14  # rows
TIME = pa.timestamp("us", tz="UTC")
LISTS = (
    pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view,
    pa.types.is_large_list_view,
)  # fmt: skip
DAMAGED = (pa.ArrowException, OSError, ValueError, KeyError, RuntimeError, MemoryError)
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
INT64_DIGITS = 19


def read_table(source: Source, path: Path) -> pa.Table:
    """All rows of a file, or of a folder of files; see the module's first lines.

    Raises:
        IngestError: it is empty, broken, or lacks a mapped column.
    """
    return pa.Table.from_batches(list(read_batches(source, path)))


def write_table(source: Source, path: Path, target: Path, names: dict[str, str]) -> int:
    """Write what `read_table` reads to a Parquet file, batch by batch, and return the number of rows.

    Args:
        names: other names for columns; `source_row` is added, the row's number from 0.
    """
    rows = 0
    writer = None
    try:
        for batch in read_batches(source, path):
            numbers = pa.array(range(rows, rows + batch.num_rows), pa.int64())
            columns = {names.get(name, name): batch[name] for name in batch.schema.names}
            table = pa.table({**columns, "source_row": numbers})
            writer = writer or pq.ParquetWriter(target, table.schema)
            writer.write_table(table)
            rows += batch.num_rows
    finally:
        if writer:
            writer.close()
    return rows


def read_batches(source: Source, path: Path) -> Iterator[pa.RecordBatch]:
    """Like `read_table`, in batches that fit into memory."""
    parts = source_parts(source, path)
    is_parquet = source.resolved_format() == "parquet"
    rows, schema = 0, None
    for part, numbers, columns in _parquet(source, parts) if is_parquet else _text(source, parts):
        clean = {
            name: _clean(source, part, name, column, numbers)
            for name, column in zip(source.columns, columns, strict=True)
        }
        batch = pa.RecordBatch.from_pydict(clean)
        schema = schema or batch.schema
        if batch.schema != schema:
            raise IngestError(
                f"{part.location} stores column {shorten(source.columns['timestamp'])} as another type than "
                "the files before it; store all parts alike."
            )
        rows += batch.num_rows
        yield batch
    if not rows:
        raise IngestError(f"{source.location} has no rows; it needs at least one.")


def locate(source: Source, path: Path, row: int) -> str:
    """Where an editor finds a row (from 0): `row 3, line 7`; Parquet has no lines."""
    if source.resolved_format() != "parquet":
        parts = source_parts(source, path)
        part, line, _ = next(islice(text_rows(source, parts), row, None))
        return f"row {row + 1}, line {line}{f' of {part.location}' if len(parts) > 1 else ''}"
    return f"row {row + 1}"


Chunk = tuple[Part, Sequence[int], list[pa.Array]]  # with the lines of its rows, or the rows' own numbers


def _text(source: Source, parts: list[Part]) -> Iterator[Chunk]:
    rows = text_rows(source, parts)
    while True:
        files: list[Part] = []
        lines: list[int] = []
        cells: list[list[str | None]] = [[] for _ in source.columns]  # by column: rows would keep the GC busy
        for file, line, row in islice(rows, BATCH):
            files.append(file)
            lines.append(line)
            for column, cell in zip(cells, row, strict=True):
                column.append(cell)
        if not lines:
            return
        columns = []
        for name, values in zip(source.columns.values(), cells, strict=True):
            try:
                columns.append(pa.array(values, pa.string()))
            except UnicodeEncodeError as error:
                half = re.compile("[\ud800-\udfff]")
                index = next(i for i, value in enumerate(values) if value and half.search(value))
                raise IngestError(
                    f"{files[index].location}, column {shorten(name)}, line {lines[index]}, holds half of a "
                    "character (a lone surrogate); fix what wrote it."
                ) from error
        yield files[0], lines, columns


def _parquet(source: Source, parts: list[Part]) -> Iterator[Chunk]:
    for part in parts:
        try:
            with pq.ParquetFile(part.path, coerce_int96_timestamp_unit="us") as file:
                schema, first = file.schema_arrow, 1
                require_columns(source, part.location, [*schema.names, *part.keys])
                mapped = [column for column in source.columns.values() if column not in part.keys]
                for name, column in source.columns.items():
                    if column not in part.keys:
                        _check_type(source, part, name, schema.field(column).type)
                for batch in file.iter_batches(BATCH, columns=list(dict.fromkeys(mapped)) or None):
                    columns = [
                        pa.array([part.keys[column]] * batch.num_rows, pa.string())
                        if column in part.keys
                        else _typed_text(source, part, name, batch[column])
                        for name, column in source.columns.items()
                    ]
                    yield part, range(first, first := first + batch.num_rows), columns
        except DAMAGED as error:
            reason = getattr(error, "strerror", None) or "it is damaged, or no Parquet"
            raise part.unreadable(source, reason) from error


def _check_type(source: Source, part: Part, name: str, kind: pa.DataType) -> None:
    """Refuse a Parquet column whose cells can't be what they are mapped to."""
    column, role = source.columns[name], source.role(name)
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_list = any(is_one(kind) for is_one in LISTS)
    if pa.types.is_nested(kind) and not (
        is_list and role == "text" and not pa.types.is_nested(kind.value_type)
    ):
        raise nested_error(part.location, column, str(kind))
    if pa.types.is_floating(kind) and role == "id" and name not in source.casts:
        raise IngestError(
            f"{part.location}, column {shorten(column)}, holds ids as floating-point numbers; "
            f'store them as integers or text, or set casts to {{"{name}": "int64"}}.'
        )


def _typed_text(source: Source, part: Part, name: str, column: pa.Array) -> pa.Array:
    """A Parquet column as text, or as times if it stores the interactions' times."""
    is_number = source.role(name) == "number"
    label = f"{part.location}, column {shorten(source.columns[name])},"
    kind = column.type
    try:
        if name == "timestamp" and is_number and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
            return pc.cast(column, options=pc.CastOptions(TIME, allow_time_truncate=True))
        return _as_text(column, is_number)
    except pa.ArrowNotImplementedError as error:
        raise IngestError(f"{label} holds {kind}, which has no text; store it as text.") from error
    except pa.ArrowInvalid as error:
        is_time = pa.types.is_temporal(kind)
        rule = "times outside the years 1 to 9999" if is_time else "bytes that are not UTF-8 text"
        raise IngestError(
            f"{label} holds {rule}; store it as {'other times' if is_time else 'text'}."
        ) from error


def _as_text(column: pa.Array, is_number: bool) -> pa.Array:
    kind = column.type
    if isinstance(kind, pa.UuidType):
        return pa.array([value and str(value) for value in column.to_pylist()], pa.string())
    if isinstance(kind, pa.BaseExtensionType):
        return _as_text(column.storage, is_number)
    if pa.types.is_dictionary(kind):
        return _as_text(column.cast(kind.value_type), is_number)
    if pa.types.is_nested(kind):
        items = _as_text(column.flatten(), is_number).to_pylist()
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_pylist()
        remaining = iter(items)
        texts = [
            ", ".join(text for text in islice(remaining, length) if text is not None) for length in lengths
        ]
        return pa.array(texts, pa.string())
    if pa.types.is_boolean(kind) and is_number:
        return column.cast(pa.int8()).cast(pa.string())
    if pa.types.is_float16(kind):
        column = column.cast(pa.float32())
    if pa.types.is_fixed_size_binary(kind):
        column = column.cast(pa.binary())
    if pa.types.is_duration(kind):
        raise pa.ArrowNotImplementedError("a duration as text is a number without its unit")
    if pa.types.is_timestamp(kind) and kind.tz:
        column = column.cast(pa.timestamp(kind.unit, "UTC"))
    if pa.types.is_floating(column.type) and not is_number:  # NaN is how data frames write no value
        column = pc.if_else(pc.is_nan(column), None, column)
    text = column.cast(pa.string())
    if pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        text = pc.replace_substring_regex(text, r"\.0+(Z?)$", r"\1")
    text.validate(full=True)  # the Parquet reader trusts that text is UTF-8
    return text


def _clean(source: Source, part: Part, name: str, column: pa.Array, numbers: Sequence[int]) -> pa.Array:
    """Without outer blanks (but of ids), empty text as null, of a bearable length, and cast as configured."""
    if not pa.types.is_string(column.type):
        return column
    label = f"{part.location}, column {shorten(source.columns[name])},"
    unit = "row" if source.resolved_format() == "parquet" else "line"
    if (pc.max(pc.binary_length(column)).as_py() or 0) > MAX_LINE:
        index = pc.index(pc.greater(pc.binary_length(column), MAX_LINE), True).as_py()
        raise IngestError(
            f"{label} {unit} {numbers[index]}, has a value of more than {MAX_LINE:,} bytes; shorten it."
        )
    if pc.any(pc.match_substring(column, "\0")).as_py():
        index = pc.index(pc.match_substring(column, "\0"), True).as_py()
        raise IngestError(f"{label} {unit} {numbers[index]}, holds a NUL character; store it as plain text.")
    if source.role(name) != "id":
        column = pc.utf8_trim_whitespace(column)
    if isinstance(source, ItemSource) and source.markup == "strip" and source.role(name) == "text":
        column = strip_markup(column)
    limit = {"item_id": MAX_ID, "title": MAX_TITLE}.get(name)
    if limit and (pc.max(pc.utf8_length(column)).as_py() or 0) > limit:
        index = pc.index(pc.greater(pc.utf8_length(column), limit), True).as_py()
        raise IngestError(
            f"{label} {unit} {numbers[index]}, has more than {limit:,} characters, which no request to a "
            "server and no answer may hold; shorten it, or map another column."
        )
    column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    if source.casts.get(name, "string") == "string":
        return column
    values = []
    for index, text in enumerate(column.to_pylist()):
        number = text and text.strip()
        if number and source.casts[name] == "int64":
            number = _whole(number)
        if text and not (number and NUMBER.fullmatch(number)):
            raise IngestError(
                f"{label} {unit} {numbers[index]}: {shorten(text)} cannot be read as {source.casts[name]}; "
                f"fix it, or drop {name!r} from casts."
            )
        values.append(number)
    return pa.array(values, pa.string())


def _whole(text: str) -> str | None:
    """An int64 as its digits, however it is written (`17.0`, `1e3`); None for anything else."""
    if not NUMBER.fullmatch(text):
        return None
    number = Decimal(text)
    if number.adjusted() >= INT64_DIGITS or number != number.to_integral_value():
        return None
    return str(int(number)) if -(2**63) <= number < 2**63 else None
