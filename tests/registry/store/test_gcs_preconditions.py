"""What deletions ask of Cloud Storage: a server that does what it documents, and the request itself."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from registry.errors import ObjectDamaged
from registry.store import gcs
from registry.store.gcs import GcsStore
from tests.registry.store.gcs_proxy import Answer, proxy


def test_a_marked_object_keeps_its_generation_and_is_not_deleted(bucket: str) -> None:
    store = GcsStore(f"gs://{bucket}/car")
    store.create("blobs/a", b"bytes")
    (seen,) = store.scan("blobs/")
    for _ in range(2):
        assert store.refresh_mark("blobs/a")
        assert not store.delete(seen)
    (marked,) = store.scan("blobs/")
    assert marked.version[0] == seen.version[0]  # only the metageneration says that somebody relies on it
    assert marked.version[1] == seen.version[1] + 2
    assert marked.last_used > seen.last_used
    assert store.delete(marked)
    store.create("blobs/a", b"bytes")
    assert not store.delete(marked)  # of the same bytes, but another object
    assert store.read("blobs/a") == b"bytes"


def test_a_deletion_asks_for_generation_and_metageneration(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[str] = []

    def watch(method: str, path: str, answer: Answer) -> Answer:
        requests.extend([path] if method == "DELETE" else [])
        return answer

    with proxy(os.environ["STORAGE_EMULATOR_HOST"], watch) as host:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)
        store = GcsStore(f"gs://{bucket}")
        store.create("blobs/a", b"bytes")
        store.refresh_mark("blobs/a")
        (seen,) = store.scan("blobs/")
        store.delete(seen)
    conditions = {
        "ifGenerationMatch": [str(seen.version[0])],
        "ifMetagenerationMatch": [str(seen.version[1])],
    }
    query = parse_qs(urlsplit(requests[0]).query)
    assert {name: query.get(name) for name in conditions} == conditions


def test_the_server_says_what_time_it_is(bucket: str) -> None:
    store = GcsStore(f"gs://{bucket}/car")
    first = store.now()
    store.create("blobs/a", b"bytes")
    assert first <= store.scan("blobs/")[0].last_used <= store.now()


def test_a_large_object_is_no_document(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gcs, "MAX_READ_BYTES", 100)
    store = GcsStore(f"gs://{bucket}/car")
    store.create("releases/a", b" " * 101)
    with pytest.raises(ObjectDamaged, match="releases/a is damaged: no document has more than"):
        store.read("releases/a")
    store.create("releases/b", b" " * 100)
    assert len(store.read("releases/b")) == 100
