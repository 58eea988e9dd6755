"""DuckDB, in this process, spilling to disk what memory cannot hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
from ibis.backends.duckdb import Backend

from ingestion.config import IngestError, Source
from ingestion.text_files import bad_json_line, delimiter_of, header_of, nested, no_records, require

CSV_LINE = re.compile(
    r"CSV Error on Line: (?P<line>\d+).*?"
    r"^(?P<why>Expected Number of Columns: \d+ Found: \d+|Value with unterminated quote found)",
    re.DOTALL | re.MULTILINE,
)


class DuckEngine:
    """An Engine; what it holds is gone with it."""

    def __init__(self, connection: Backend) -> None:
        self.connection = connection
        self._stored = 0

    def store(self, expression: ir.Table) -> tuple[ir.Table, int]:
        """Run an expression once; gives the stored result and its number of rows."""
        self._stored += 1
        table = self.connection.create_table(f"stored_{self._stored}", expression, temp=True)
        return table, table.count().to_pyarrow().as_py()

    def fetch(self, expression: ir.Table) -> pa.Table:
        """Run an expression and bring its rows into memory."""
        return expression.to_pyarrow()

    def read(self, source: Source, path: Path) -> tuple[ir.Table, int]:
        """The mapped columns of a file, under our names, with `source_row`, and the number of rows."""
        kind = source.resolved_format()
        readers = {"csv": _delimited, "tsv": _delimited, "jsonl": _jsonl, "parquet": _parquet}
        try:
            table = readers[kind](self.connection, source, path)
            renamed = table.select({ours: table[theirs] for ours, theirs in source.columns.items()})
            # DuckDB documents that an empty window keeps the order of the file.
            return self.store(renamed.mutate(source_row=ibis.row_number()))
        except duckdb.Error as error:
            raise IngestError(f"{source.location} cannot be read as {kind}: {_say(error)}") from error


@contextmanager
def open_duck(scratch: Path) -> Iterator[DuckEngine]:
    """An engine that reads times without a zone as UTC and spills into `scratch`."""
    connection = ibis.duckdb.connect(temp_directory=str(scratch))
    try:
        connection.raw_sql("SET TimeZone = 'UTC'")
        connection.raw_sql("SET enable_progress_bar = false")
        connection.raw_sql("CREATE MACRO timestamp_millis(ms) AS epoch_ms(ms)::TIMESTAMPTZ")
        yield DuckEngine(connection)
    finally:
        connection.disconnect()


def _delimited(connection: Backend, source: Source, path: Path) -> ir.Table:
    # Sniffing is off: it would quietly take a short or long row for a header.
    return connection.read_csv(
        _literal(path),
        auto_detect=False,
        header=True,
        columns=dict.fromkeys(header_of(source, path), "VARCHAR"),
        delim=delimiter_of(source),
        quote=source.quote,
        escape=source.quote,
        strict_mode=True,
    )


def _jsonl(connection: Backend, source: Source, path: Path) -> ir.Table:
    try:
        found = connection.read_json(_literal(path), format="newline_delimited", sample_size=-1).schema()
        if list(found) == ["json"]:  # DuckDB's name for values that are no records
            raise no_records(source)
        require(source, list(found))
        wanted = {name: _json_type(source, name, found[name]) for name in source.columns.values()}
        return connection.read_json(_literal(path), format="newline_delimited", columns=wanted)
    except duckdb.Error as error:
        raise IngestError(bad_json_line(source, path) or f"{source.location}: {_say(error)}") from error


def _json_type(source: Source, name: str, kind: ibis.DataType) -> str:
    """Scalars are read as the text they were written as, so that 1 and "1" are the same id."""
    if kind.is_struct() or kind.is_map() or (kind.is_array() and kind.value_type.is_nested()):
        raise nested(source, name, kind)
    if kind.is_array():
        return "VARCHAR[]"
    return "BOOLEAN" if kind.is_boolean() else "VARCHAR"


def _parquet(connection: Backend, source: Source, path: Path) -> ir.Table:
    table = connection.read_parquet(_literal(path))
    require(source, list(table.columns))
    return table


def _literal(path: Path) -> str:
    """A path in which the engine sees no wildcards."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))


def _say(error: Exception) -> str:
    """The part of DuckDB's message that names the trouble, without its advice on DuckDB."""
    text = str(error)
    broken = CSV_LINE.search(text)
    if broken:
        return f"line {broken['line']} is broken ({broken['why']}); fix it, or set delimiter and quote."
    if "not utf-8" in text:
        return "it is not UTF-8 text; save it as UTF-8."
    return text.split("\n\n", maxsplit=1)[0].split(": ", 1)[-1].replace("\n", " ").rstrip(". ") + "."
