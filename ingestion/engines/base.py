"""The interface of the engines, and the engine that a configuration names."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import ibis.expr.types as ir
import pyarrow as pa

from ingestion.config import DatasetConfig
from ingestion.engines.duckdb import open_duckdb
from ingestion.engines.spark import open_spark


class Engine(Protocol):
    """Loads Parquet files, runs expressions and stores their results."""

    def load(self, path: Path) -> ir.Table:
        """A Parquet file that `ingestion.reader` wrote."""

    def store(self, expression: ir.Table) -> tuple[ir.Table, int]:
        """Run an expression once; returns the stored result and its number of rows."""

    def fetch(self, expression: ir.Table) -> pa.Table:
        """Run an expression and bring its rows into this process, in its order."""


def open_engine(config: DatasetConfig, scratch: Path) -> AbstractContextManager[Engine]:
    """The engine that `config` names; `scratch` is a folder for what does not fit into memory."""
    return open_spark(config.spark, scratch) if config.engine == "spark" else open_duckdb(scratch)
