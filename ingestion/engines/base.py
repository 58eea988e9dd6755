"""What runs the expressions: one engine, chosen by the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import ibis.expr.types as ir
import pyarrow as pa

from ingestion.config import DatasetConfig, Source
from ingestion.engines.duckdb import open_duck
from ingestion.engines.spark import open_spark


class Engine(Protocol):
    """Reads files, runs expressions and keeps their results."""

    def read(self, source: Source, path: Path) -> tuple[ir.Table, int]:
        """The mapped columns of a file, under our names, with `source_row` (0.. in file order); the rows.

        Raises:
            IngestError: the file is broken, or lacks a mapped column.
        """

    def store(self, expression: ir.Table) -> tuple[ir.Table, int]:
        """Run an expression once; gives the stored result and its number of rows."""

    def fetch(self, expression: ir.Table) -> pa.Table:
        """Run an expression and bring its rows into this process, in its order."""


@contextmanager
def open_engine(config: DatasetConfig, scratch: Path) -> Iterator[Engine]:
    """The engine that `config` names; `scratch` is a folder for what does not fit into memory."""
    if config.engine == "spark":
        with open_spark(config.spark, scratch) as spark:
            yield spark
    else:
        with open_duck(scratch) as duck:
            yield duck
