"""Bytes that are stored once, marks that keep them, and transfers of many at a time."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from registry.errors import ObjectExists, ObjectMissing
from registry.maintenance.verify import verify
from registry.releases.fetch import FetchedRelease, fetch_release
from registry.releases.layout import BLOBS, blob_name
from registry.releases.release import write_release
from registry.store.base import ObjectStore, in_parallel
from registry.store.open import open_store
from tests.registry.bundles import make_bundle, make_evidence, make_release, reseal_model
from tests.registry.damage import Change

DAILY = {"bundle.json", "model/model.safetensors"}  # what a new model changes


def test_a_daily_release_stores_only_what_changed(store: ObjectStore, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    evidence = make_evidence(tmp_path / "evidence", bundle)
    first = write_release(store, bundle, evidence)
    before = set(store.list(BLOBS))
    (bundle / "model/model.safetensors").write_bytes(b"another day's weights")
    evidence |= {"verdict.json": make_evidence(tmp_path / "judged", reseal_model(bundle))["verdict.json"]}
    evidence["evaluation.json"] = tmp_path / "judged/evaluation.json"
    second = write_release(store, bundle, evidence)

    changed = {path for path, record in second.files.items() if record != first.files[path]}
    assert changed == DAILY
    judged = {second.evidence[name] for name in ("verdict.json", "evaluation.json")}  # they name the bundle
    new = {second.files[path] for path in DAILY} | judged
    assert set(store.list(BLOBS)) - before == {blob_name(record.sha256) for record in new}
    fetch_release(store, first.release, tmp_path / "first")
    fetch_release(store, second.release, tmp_path / "second")
    assert store.list("releases/") == sorted(
        f"releases/{manifest.release}/manifest.json" for manifest in (first, second)
    )


def test_every_blob_is_named_by_its_content(store: ObjectStore, tmp_path: Path) -> None:
    release = make_release(store, tmp_path)
    blobs = store.list(BLOBS)
    assert blobs == [f"blobs/{store.sha256(name)[:2]}/{store.sha256(name)}" for name in blobs]
    assert {blob_name(record.sha256) for _, record in release.all_files()} == set(blobs)


def test_equal_files_of_one_bundle_are_one_blob(store: ObjectStore, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (bundle / "codebook/copy.json").write_bytes((bundle / "codebook/labels.json").read_bytes())
    release = write_release(store, bundle, make_evidence(tmp_path / "evidence", tmp_path / "bundle"))
    fetch_release(store, release.release, tmp_path / "out")
    assert (tmp_path / "out/codebook/copy.json").read_bytes() == (bundle / "codebook/copy.json").read_bytes()


def test_evidence_may_have_the_name_of_a_file_of_the_bundle(store: ObjectStore, tmp_path: Path) -> None:
    evidence = make_evidence(tmp_path / "evidence", make_bundle(tmp_path / "bundle"))
    release = write_release(store, tmp_path / "bundle", evidence | {"popular.json": evidence["report.html"]})
    fetch_release(store, release.release, tmp_path / "out")
    fetched = FetchedRelease(store, release).fetch_evidence("popular.json", tmp_path / "fetched")
    assert fetched.read_bytes() == evidence["report.html"].read_bytes()
    assert verify(store).damage == []


def test_releasing_again_restores_missing_files(
    store: ObjectStore, url: str, tmp_path: Path, remove: Change
) -> None:
    release = make_release(store, tmp_path)
    for path in ("model/model.safetensors", "codebook/axes.npy"):
        remove(url, blob_name(release.files[path].sha256))
    assert len(verify(store).damage) == 2
    assert make_release(store, tmp_path) == release
    assert verify(store).damage == []


def test_a_scan_returns_sizes_and_a_mark_refreshes_last_used(store: ObjectStore, tmp_path: Path) -> None:
    began = datetime.now(UTC) - timedelta(seconds=5)
    store.create("a/1", b"one")
    store.create("a/b/2", b"")
    first, second = store.scan("a/")
    assert [(first.name, first.size), (second.name, second.size)] == [("a/1", 3), ("a/b/2", 0)]
    assert began < first.last_used < datetime.now(UTC) + timedelta(seconds=5)
    assert store.refresh_mark("a/1")
    again, _ = store.scan("a/")
    assert again.last_used > first.last_used
    assert again.version != first.version
    assert store.read("a/1") == b"one"
    assert not store.refresh_mark("a/none")
    assert store.scan("none/") == []


def test_an_object_marked_or_written_since_the_scan_is_not_deleted(url: str, tmp_path: Path) -> None:
    store = open_store(url)
    (tmp_path / "file").write_bytes(b"bytes")
    store.create("a/1", b"bytes")
    for use in (lambda: store.refresh_mark("a/1"), lambda: store.upload_many({"a/1": tmp_path / "file"})):
        (seen,) = store.scan("a/")
        use()
        assert not store.delete(seen)
        assert store.read("a/1") == b"bytes"
    (seen,) = store.scan("a/")
    assert store.delete(seen)
    assert store.list("a/") == []
    assert store.delete(seen)  # deleted already: no error
    assert not store.refresh_mark("a/1")
    store.upload_many({"a/1": tmp_path / "file"})
    assert not store.delete(seen)  # of the same bytes, but another object
    assert store.exists("a/1")


@pytest.mark.parametrize("workers", [1, 8])
def test_many_files_are_transferred_with_any_number_of_workers(
    url: str, tmp_path: Path, workers: int
) -> None:
    store = open_store(url, workers)
    for number in range(20):
        (tmp_path / f"{number}").write_bytes(bytes([number]) * number)
    store.upload_many({f"x/{number}": tmp_path / f"{number}" for number in range(20)})
    store.upload_many({f"x/{number}": tmp_path / f"{number}" for number in range(20)})
    store.upload_many({})
    store.download_many([(f"x/{number}", tmp_path / f"copy-{number}") for number in range(20)])
    assert [(tmp_path / f"copy-{number}").read_bytes() for number in range(20)] == [
        bytes([number]) * number for number in range(20)
    ]


def test_a_conflicting_object_among_many_is_named(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")
    store.create("x/5", b"other")
    with pytest.raises(ObjectExists, match="x/5 already exists with other content") as conflict:
        store.upload_many({f"x/{number}": tmp_path / "file" for number in range(9)})
    assert conflict.value.name == "x/5"
    store.create("y/1", b"")
    with pytest.raises(ObjectMissing, match="There is no y/2") as missing:
        store.download_many([("y/1", tmp_path / "one"), ("y/2", tmp_path / "two")])
    assert missing.value.name == "y/2"


def test_after_a_failure_no_further_job_begins() -> None:
    begun: list[int] = []
    failed = threading.Event()

    def job(number: int) -> int:
        begun.append(number)
        if number == 0:
            failed.set()
            raise ValueError("the first")
        failed.wait(10)
        return number

    with pytest.raises(ValueError, match="the first"):
        in_parallel(job, [(number,) for number in range(1000)], workers=2)
    assert len(begun) <= 2
    assert in_parallel(job, [(2,), (1,)]) == [2, 1]
