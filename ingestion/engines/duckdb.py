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

from ingestion.config import IngestError


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

    def load(self, path: Path) -> ir.Table:
        """See Engine."""
        return self.connection.read_parquet(re.sub(r"([*?\[])", r"[\1]", str(path)))  # it sees no wildcards


@contextmanager
def open_duckdb(scratch: Path) -> Iterator[DuckEngine]:
    """An engine that reads times without a zone as UTC and spills into `scratch`."""
    connection = ibis.duckdb.connect(temp_directory=str(scratch))
    try:
        connection.raw_sql("SET TimeZone = 'UTC'")
        connection.raw_sql("SET enable_progress_bar = false")
        connection.raw_sql("CREATE MACRO timestamp_micros(us) AS make_timestamp(us)::TIMESTAMPTZ")
        yield DuckEngine(connection)
    except duckdb.Error as error:
        reason = str(error).split("\n", 1)[0].split(": ", 1)[-1].rstrip(". ")
        raise IngestError(
            f"DuckDB could not compute the dataset ({reason}); check memory and the room in {scratch.parent}."
        ) from error
    finally:
        connection.disconnect()
