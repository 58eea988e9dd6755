"""Spark, for data beyond one machine: a session of its own kind, or a remote one through Spark Connect."""

from __future__ import annotations

import os
import shutil
import socket
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from ingestion.config import IngestError, Source, SparkSettings
from ingestion.engines.spark_files import explain, number_rows, read_file, said_by

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ANSWER_SECONDS = 5.0  # Spark itself tries an address for a minute and more
PORTS = {"spark": 7077, "sc": 15002}
RUNTIME = {  # what makes Spark read as DuckDB does, in this session only
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "true",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.legacy.parquet.nanosAsLong": "true",
}
INSTALL = "pip install '.[spark]' in a checkout, or make image EXTRAS=spark for containers"


class SparkEngine:
    """An Engine; results stay on the executors, and are gone with it."""

    def __init__(self, session: SparkSession) -> None:
        self.session = session
        self.connection = ibis.pyspark.connect(session)
        self._views: list[str] = []

    def store(self, expression: ir.Table) -> tuple[ir.Table, int]:
        """Run an expression once; gives the stored result and its number of rows."""
        frame = self.session.sql(self.connection.compile(expression))
        return self.keep(frame)

    def keep(self, frame: Any) -> tuple[ir.Table, int]:
        """Run a Spark data frame once; gives the stored result and its number of rows."""
        stored = frame.localCheckpoint()  # cuts the plan, which would grow with every round
        view = f"ingest_{uuid.uuid4().hex}"
        stored.createOrReplaceTempView(view)
        self._views.append(view)
        return self.connection.table(view), stored.count()

    def fetch(self, expression: ir.Table) -> pa.Table:
        """Run an expression and bring its rows into this process, in its order."""
        table = self.session.sql(self.connection.compile(expression)).toArrow()
        return table.cast(pa.schema(map(_in_utc, expression.schema().to_pyarrow())))

    def read(self, source: Source, path: Path) -> tuple[ir.Table, int]:
        """The mapped columns of a file, under our names, with `source_row`, and the number of rows."""
        try:
            frame = read_file(self.session, source, path)
            placed, _ = self.keep(frame)
            return self.store(number_rows(placed))
        except _failures() as error:
            raise explain(source, path, error) from error

    def close(self) -> None:
        """Forget what is stored."""
        for view in self._views:
            self.session.catalog.dropTempView(view)


@contextmanager
def open_spark(settings: SparkSettings, scratch: Path) -> Iterator[SparkEngine]:
    """An engine on the session that is there, else on one of its own, which ends with it.

    Raises:
        IngestError: pyspark or Java is missing, or the master does not answer.
    """
    try:
        from pyspark.sql import SparkSession  # noqa: PLC0415 - pyspark is optional
    except ImportError as error:
        raise IngestError(f"The engine spark needs pyspark, which is not installed: {INSTALL}.") from error
    there = SparkSession.getActiveSession()
    session = there or _start(SparkSession.builder, settings, scratch)
    try:
        if not settings.master.startswith("sc://"):
            session = session.newSession()  # its settings and views are nobody else's
        for name, value in RUNTIME.items():
            session.conf.set(name, value)
        with warnings.catch_warnings():  # of pandas, which nothing here goes through
            warnings.simplefilter("ignore", FutureWarning)
            engine = SparkEngine(session)
            try:
                yield engine
            except _failures() as error:
                raise IngestError(f"Spark on {settings.master} failed: {said_by(error)}") from error
            finally:
                engine.close()
    finally:
        if there is None:
            session.stop()


def _failures() -> tuple[type[Exception], ...]:
    """What pyspark raises: errors it knows, and those of the driver's Java that it does not."""
    from py4j.protocol import Py4JError  # noqa: PLC0415 - pyspark is optional
    from pyspark.errors import PySparkException  # noqa: PLC0415

    return PySparkException, Py4JError


def _in_utc(field: pa.Field) -> pa.Field:
    """Spark's times are UTC in this session, though their type does not say so."""
    return field.with_type(pa.timestamp("us", tz="UTC")) if pa.types.is_timestamp(field.type) else field


def _start(builder: Any, settings: SparkSettings, scratch: Path) -> SparkSession:
    master = settings.master
    _answers(master)
    if master.startswith("sc://"):
        builder = builder.remote(master)
    else:
        _require_java()
        for name, value in _defaults(master, scratch).items():
            builder = builder.config(name, value)
        builder = builder.master(master)
    for name, value in settings.settings.items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except Exception as error:  # Spark raises its own, Py4J's and gRPC's
        why = said_by(error).rstrip(".")
        raise IngestError(
            f"Spark does not start on {master}: {why}; check spark.master, and Java."
        ) from error
    if not master.startswith("sc://"):
        session.sparkContext.setLogLevel("OFF")  # a failure is told in one sentence
    return session


def _defaults(master: str, scratch: Path) -> dict[str, str]:
    defaults = {
        "spark.app.name": "ingestion",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.warehouse.dir": str(scratch),
        "spark.driver.maxResultSize": "0",  # the final tables come here whole
    }
    if master.startswith("local"):
        defaults |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    return defaults


def _answers(master: str) -> None:
    """Refuse an address where nobody listens."""
    scheme, _, rest = master.partition("://")
    if scheme not in PORTS:
        return
    addresses = [urlsplit(f"//{address}") for address in rest.split("/", 1)[0].split(";", 1)[0].split(",")]
    for address in addresses:
        with suppress(OSError, ValueError):
            place = (address.hostname or "", address.port or PORTS[scheme])
            with socket.create_connection(place, ANSWER_SECONDS):
                return
    raise IngestError(
        f"Spark does not answer at {master} within {ANSWER_SECONDS:.0f} s; check spark.master (--master)."
    )


def _require_java() -> None:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if java is None:
        raise IngestError(
            "The engine spark needs Java 17 or newer on this machine: install it and set JAVA_HOME, "
            "or use Spark Connect (sc://), which needs none here."
        )
