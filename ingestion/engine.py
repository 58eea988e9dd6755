"""The engine that runs the expressions: DuckDB in this process, spilling to disk what memory cannot hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend


class Engine:
    """Runs expressions and keeps their results; what it holds is gone with it."""

    def __init__(self, connection: Backend) -> None:
        self.connection = connection
        self._stored = 0

    def store(self, expression: ir.Table) -> tuple[ir.Table, int]:
        """Run an expression once; gives the stored result and its number of rows."""
        self._stored += 1
        table = self.connection.create_table(f"stored_{self._stored}", expression, temp=True)
        return table, table.count().to_pyarrow().as_py()


@contextmanager
def open_engine(scratch: Path) -> Iterator[Engine]:
    """An engine that reads times without a zone as UTC and spills into `scratch`."""
    connection = ibis.duckdb.connect(temp_directory=str(scratch))
    try:
        connection.raw_sql("SET TimeZone = 'UTC'")
        connection.raw_sql("SET enable_progress_bar = false")
        yield Engine(connection)
    finally:
        connection.disconnect()
