"""Spark Connect: the driver runs in a server, and nothing of Spark's Java in this process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from serving.torchserve.config import Ports
from tests.ingestion.engines.test_spark import EXAMPLE, TABLES, assert_same_file, ran

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not shutil.which("java"), reason="Spark needs Java 17 or newer"),
]
SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Connect server on a free port of this machine, as pyspark brings it along."""
    spec = find_spec("pyspark")
    assert spec and spec.origin
    home, port = Path(spec.origin).parent, Ports.choose().inference
    listens = {"binding.address": "127.0.0.1", "binding.port": port}
    settings = {"spark.driver.host": "127.0.0.1", "spark.ui.enabled": "false"}
    settings |= {f"spark.connect.grpc.{name}": str(value) for name, value in listens.items()}
    command = [str(home / "bin" / "spark-submit"), "--class", SERVER, "--master", "local[2]"]
    for name, value in settings.items():
        command += ["--conf", f"{name}={value}"]
    folder = tmp_path_factory.mktemp("connect")
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "spark-internal"],
            cwd=folder,
            env=os.environ | {"SPARK_HOME": str(home)},
            stdout=log,
            stderr=log,
        )
    try:
        wait(server, port, folder / "server.log")
        yield f"sc://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=60)


def wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert server.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        else:
            return


def test_the_tables_are_those_of_duckdb(tmp_path: Path, master: str) -> None:
    ran("--output", str(tmp_path / "duck"), *EXAMPLE)
    ran("--output", str(tmp_path / "spark"), *EXAMPLE, "--engine", "spark", "--master", master)
    for name in TABLES:
        assert_same_file(tmp_path / "duck" / f"{name}.parquet", tmp_path / "spark" / f"{name}.parquet")


def test_a_broken_line_is_named(tmp_path: Path, master: str) -> None:
    folder = shutil.copytree(EXAMPLE[-1], tmp_path / "data")
    path = folder / "orders.csv"
    path.write_text(path.read_text() + "one field\n")
    output = str(tmp_path / "out")
    spark = ["--engine", "spark", "--master", master]
    message = ran("custom", "--data-dir", str(folder), "--output", output, *spark, status=1)
    assert "orders.csv cannot be read as csv: line 16 has 1 field, line 1 has 4; fix it" in message
