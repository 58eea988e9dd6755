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
from ingestion.text_files import (
    bad_json_line,
    delimiter_of,
    header_of,
    nested_error,
    no_records_error,
    require_columns,
)

CSV_LINE = re.compile(
    r"CSV Error on Line: (?P<line>\d+).*?"
    r"^(?P<reason>Expected Number of Columns: \d+ Found: \d+|Value with unterminated quote found)",
    re.DOTALL | re.MULTILINE,
)


class DuckEngine:
    """The Engine for one machine; stored tables end with the connection."""

    def __init__(self, connection: Backend) -> None:
        self.connection = connection
        self._stored = 0

    def store(self, expression: ir.Table) -> tuple[ir.Table, int]:
        """See Engine."""
        self._stored += 1
        table = self.connection.create_table(f"stored_{self._stored}", expression, temp=True)
        return table, table.count().to_pyarrow().as_py()

    def fetch(self, expression: ir.Table) -> pa.Table:
        """See Engine."""
        return expression.to_pyarrow()

    def read(self, source: Source, path: Path) -> tuple[ir.Table, int]:
        """See Engine."""
        kind = source.resolved_format()
        file = re.sub(r"([*?\[])", r"[\1]", str(path))  # DuckDB sees no wildcards
        try:
            if kind == "parquet":
                table = self.connection.read_parquet(file)
                require_columns(source, list(table.columns))
            elif kind == "jsonl":
                table = self._read_jsonl(source, path, file)
            else:  # no sniffing: it would take a short or long row for the header
                table = self.connection.read_csv(
                    file,
                    auto_detect=False,
                    header=True,
                    columns=dict.fromkeys(header_of(source, path), "VARCHAR"),
                    delim=delimiter_of(source),
                    quote=source.quote,
                    escape=source.quote,
                    strict_mode=True,
                )
            renamed = table.select({name: table[column] for name, column in source.columns.items()})
            # DuckDB documents that an empty window keeps the order of the file.
            return self.store(renamed.mutate(source_row=ibis.row_number()))
        except duckdb.Error as error:
            raise IngestError(f"{source.location} cannot be read as {kind}: {_reason(error)}") from error

    def _read_jsonl(self, source: Source, path: Path, file: str) -> ir.Table:
        """Scalars are read as the text they were written as, so that 1 and "1" are the same id."""
        try:
            schema = self.connection.read_json(file, format="newline_delimited", sample_size=-1).schema()
            if list(schema) == ["json"]:  # DuckDB's name for values that are no records
                raise no_records_error(source)
            require_columns(source, list(schema))
            types = {}
            for column in source.columns.values():
                kind = schema[column]
                if kind.is_struct() or kind.is_map() or (kind.is_array() and kind.value_type.is_nested()):
                    raise nested_error(source, column, kind)
                scalar = "BOOLEAN" if kind.is_boolean() else "VARCHAR"
                types[column] = "VARCHAR[]" if kind.is_array() else scalar
            return self.connection.read_json(file, format="newline_delimited", columns=types)
        except duckdb.Error as error:
            sentence = bad_json_line(source, path) or f"{source.location}: {_reason(error)}"
            raise IngestError(sentence) from error


@contextmanager
def open_duckdb(scratch: Path) -> Iterator[DuckEngine]:
    """An engine that reads times without a zone as UTC and spills into `scratch`."""
    connection = ibis.duckdb.connect(temp_directory=str(scratch))
    try:
        connection.raw_sql("SET TimeZone = 'UTC'")
        connection.raw_sql("SET enable_progress_bar = false")
        connection.raw_sql("CREATE MACRO timestamp_millis(ms) AS epoch_ms(ms)::TIMESTAMPTZ")
        yield DuckEngine(connection)
    finally:
        connection.disconnect()


def _reason(error: Exception) -> str:
    """The part of DuckDB's message that names the problem, without its advice on DuckDB."""
    text = str(error)
    if match := CSV_LINE.search(text):
        return f"line {match['line']} is broken ({match['reason']}); fix it, or set delimiter and quote."
    if "not utf-8" in text:
        return "it is not UTF-8 text; save it as UTF-8."
    return text.split("\n\n", maxsplit=1)[0].split(": ", 1)[-1].replace("\n", " ").rstrip(". ") + "."
