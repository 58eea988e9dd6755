"""Spark, for data beyond one machine: a local or remote session, or Spark Connect."""

from __future__ import annotations

import os
import re
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

from ingestion.config import IngestError, SparkSettings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CONNECT_SECONDS = 5.0  # Spark itself tries an address for more than a minute
PORTS = {"spark": 7077, "sc": 15002}
SESSION_SETTINGS = {  # what makes Spark read as DuckDB does, in this session only
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "true",
    "spark.sql.ansi.enabled": "true",
}
INSTALL = "pip install '.[spark]' in a checkout, or make image EXTRAS=spark for containers"


class SparkEngine:
    """The Engine for clusters; results stay on the executors and end with the session."""

    def __init__(self, session: SparkSession) -> None:
        self.session = session
        self.connection = ibis.pyspark.connect(session)
        self.views: list[str] = []

    def store(self, expression: ir.Table) -> tuple[ir.Table, int]:
        """See Engine."""
        stored = self.session.sql(self.connection.compile(expression)).localCheckpoint()
        view = f"ingest_{uuid.uuid4().hex}"  # the checkpoint cuts the plan, which would grow with every round
        stored.createOrReplaceTempView(view)
        self.views.append(view)
        return self.connection.table(view), stored.count()

    def fetch(self, expression: ir.Table) -> pa.Table:
        """See Engine."""
        table = self.session.sql(self.connection.compile(expression)).toArrow()
        utc = pa.timestamp("us", tz="UTC")  # times are UTC in this session, though their type does not say so
        fields = expression.schema().to_pyarrow()
        return table.cast(
            pa.schema([item.with_type(utc) if pa.types.is_timestamp(item.type) else item for item in fields])
        )

    def load(self, path: Path) -> ir.Table:
        """See Engine."""
        view = f"ingest_{uuid.uuid4().hex}"
        uri = "file://" + re.sub(r"([*?\[\]{}\\])", r"\\\1", str(path.absolute()))  # no wildcards
        self.session.read.parquet(uri).createOrReplaceTempView(view)
        self.views.append(view)
        return self.connection.table(view)


@contextmanager
def open_spark(settings: SparkSettings, scratch: Path) -> Iterator[SparkEngine]:
    """An engine on the active session if there is one, else on a new session that is stopped at the end.

    Raises:
        IngestError: pyspark or Java is missing, or the master does not answer.
    """
    try:
        from pyspark.sql import SparkSession  # noqa: PLC0415 - pyspark is optional
    except ImportError as error:
        raise IngestError(f"The engine spark needs pyspark, which is not installed: {INSTALL}.") from error
    active = SparkSession.getActiveSession()
    session = active or _start(SparkSession.builder, settings, scratch)
    try:
        if not settings.master.startswith("sc://"):
            session = session.newSession()  # with settings and views of its own
        for name, value in SESSION_SETTINGS.items():
            session.conf.set(name, value)
        with warnings.catch_warnings():  # of pandas, which nothing here goes through
            warnings.simplefilter("ignore", FutureWarning)
            engine = SparkEngine(session)
            try:
                yield engine
            except _failures() as error:
                raise IngestError(f"Spark on {settings.master} failed: {failure_reason(error)}") from error
            finally:
                for view in engine.views:
                    session.catalog.dropTempView(view)
    finally:
        if active is None:
            session.stop()


def _failures() -> tuple[type[Exception], ...]:
    """What pyspark raises: errors it knows, and those of the driver's Java that it does not."""
    from py4j.protocol import Py4JError  # noqa: PLC0415 - pyspark is optional
    from pyspark.errors import PySparkException  # noqa: PLC0415

    return PySparkException, Py4JError


def _start(builder: Any, settings: SparkSettings, scratch: Path) -> SparkSession:
    master = settings.master
    _require_listener(master)
    if master.startswith("sc://"):
        builder = builder.remote(master)
        options = {}
    else:
        _require_java()
        builder = builder.master(master)
        options = {
            "spark.app.name": "ingestion",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.sql.warehouse.dir": str(scratch),
            "spark.driver.maxResultSize": "0",  # the final tables come here whole
        }
        if master.startswith("local"):
            options |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    for name, value in (options | settings.settings).items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except Exception as error:  # of Spark, Py4J or gRPC
        reason = failure_reason(error).rstrip(".")
        raise IngestError(
            f"Spark does not start on {master}: {reason}; check spark.master, and Java."
        ) from error
    if not master.startswith("sc://"):
        session.sparkContext.setLogLevel("OFF")  # a failure ends in one sentence
    return session


def _require_listener(master: str) -> None:
    """Refuse the address of a server if nothing listens there."""
    scheme, _, rest = master.partition("://")
    if scheme not in PORTS:
        return
    for address in rest.split("/", 1)[0].split(";", 1)[0].split(","):
        with suppress(OSError, ValueError):
            url = urlsplit(f"//{address}")
            host, port = url.hostname or "", url.port or PORTS[scheme]
            with socket.create_connection((host, port), CONNECT_SECONDS):
                return
    raise IngestError(
        f"Spark does not answer at {master} within {CONNECT_SECONDS:.0f} s; check spark.master (--master)."
    )


def _require_java() -> None:
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java", path=str(Path(home) / "bin") if home else None) is None:
        raise IngestError(
            "The engine spark needs Java 17 or newer on this machine: install it and set JAVA_HOME, "
            "or use Spark Connect (sc://), which needs none here."
        )


def failure_reason(error: Exception) -> str:
    """The line of Spark's message that names the problem, without the Java around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if re.match(r"(: |Caused by: )", line)]
    line = (causes or lines or [type(error).__name__])[-1]
    line = re.sub(r"^(: |Caused by: )?([\w$]+\.)+[\w$]+(Exception|Error): ", "", line)
    return line.split(" SQLSTATE")[0].rstrip(". ") + "."
