"""What every object store promises, on every store."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from registry.errors import ObjectExists, ObjectMissing, StoreError
from registry.store.base import ObjectStore, check_name
from registry.store.folder import FolderStore
from registry.store.open import open_store


def test_bytes_and_files_come_back(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"\x00weights\xff")
    store.create("a/one.json", b"{}")
    store.upload_many({"a/b/two.bin": tmp_path / "source"})
    store.create("ab/empty", b"")

    assert store.read("a/one.json") == b"{}"
    assert store.read("ab/empty") == b""
    store.download_many([("a/b/two.bin", tmp_path / "target")])
    assert (tmp_path / "target").read_bytes() == b"\x00weights\xff"
    assert store.list("a/") == ["a/b/two.bin", "a/one.json"]
    assert (store.list("a/b/"), store.list("nothing/")) == (["a/b/two.bin"], [])
    assert (store.exists("a/one.json"), store.exists("a"), store.exists("a/on")) == (True, False, False)


def test_objects_are_never_overwritten(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "same").write_bytes(b"first")
    (tmp_path / "other").write_bytes(b"fifth")
    store.create("log/1", b"first")

    store.create("log/1", b"first")
    store.upload_many({"log/1": tmp_path / "same"})
    with pytest.raises(ObjectExists, match="log/1 already exists with other content"):
        store.create("log/1", b"second")
    with pytest.raises(ObjectExists, match="log/1 already exists with other content"):
        store.upload_many({"log/1": tmp_path / "other"})
    assert store.read("log/1") == b"first"


def test_what_is_not_there_is_named(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match=f"There is no a/b in {store.url}"):
        store.read("a/b")
    with pytest.raises(ObjectMissing, match=f"There is no a/b in {store.url}"):
        store.download_many([("a/b", tmp_path / "target")])
    assert not store.exists("a/b")
    assert not (tmp_path / "target").exists()


def test_odd_but_honest_names_work(store: ObjectStore) -> None:
    for name in ("a b/c d.json", "ü/ß.json", "a/#?&%41=.json", "a/.hidden", "a/b..c"):
        store.create(name, name.encode())
        assert store.read(name) == name.encode()
        assert name in store.list(name.split("/")[0] + "/")


BAD_NAMES = [
    "",
    "/etc/passwd",
    "a//b",
    "a/",
    "../a",
    "a/../b",
    "a/./b",
    ".tmp/x",
    "a\\b",
    "a\nb",
    "a\x00b",
    "a" * 1025,
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_could_escape_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "source").write_bytes(b"x")
    for store in (FolderStore(tmp_path / "registry"), open_store("gs://never-contacted/x")):
        for use in (
            store.read,
            store.exists,
            store.refresh_mark,
            store.sha256,
            lambda n, s=store: s.create(n, b"x"),
        ):
            with pytest.raises(StoreError, match="cannot name an object"):
                use(name)
        with pytest.raises(StoreError, match="cannot name an object"):
            store.upload_many({name: tmp_path / "source"})
        with pytest.raises(StoreError, match="cannot name an object"):
            store.download_many([(name, tmp_path / "target")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize("prefix", ["a", "", "/", "../", "a//"])
def test_prefixes_that_could_escape_are_refused(tmp_path: Path, prefix: str) -> None:
    for store in (FolderStore(tmp_path), open_store("gs://never-contacted/x")):
        with pytest.raises(StoreError, match="cannot"):
            store.list(prefix)


def test_the_url_picks_the_store(tmp_path: Path) -> None:
    assert isinstance(open_store(tmp_path), FolderStore)
    assert open_store(f"file://{tmp_path}").url == str(tmp_path)
    assert open_store("gs://bucket/a/b/").url == "gs://bucket/a/b"
    assert open_store("gs://bucket").url == "gs://bucket"
    for bad in ("s3://bucket", "", "file://"):
        with pytest.raises(StoreError, match="neither a folder nor gs://"):
            open_store(bad)
    with pytest.raises(StoreError, match="names no bucket"):
        open_store("gs:///prefix")
    with pytest.raises(StoreError, match="cannot name"):
        open_store("gs://bucket/../other")


def test_a_lone_surrogate_is_no_name() -> None:
    with pytest.raises(StoreError, match="cannot name an object"):
        check_name("a/\udcff")


def test_a_folder_holds_read_only_objects_and_no_leftovers(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.create("a/b", b"x")
    with pytest.raises(ObjectExists):
        store.create("a/b", b"y")
    assert not (tmp_path / "a/b").stat().st_mode & 0o222
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = FolderStore(tmp_path)
    (tmp_path / "source").write_bytes(b"x")
    monkeypatch.setattr(os, "fsync", full)
    for write in (lambda: store.create("a/b", b"x"), lambda: store.upload_many({"a/b": tmp_path / "source"})):
        with pytest.raises(StoreError, match=r"no room for .*a/b \(No space left on device\): free some"):
            write()
        assert not store.exists("a/b")
    assert not [path for path in (tmp_path / ".tmp").glob("*") if path.is_file()]


def test_a_file_system_without_hard_links_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StoreError, match="without hard links"):
        FolderStore(tmp_path).create("a/b", b"x")


def test_a_registry_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    store = FolderStore(tmp_path / "file")
    with pytest.raises(StoreError, match="cannot be used: Not a directory"):
        store.create("a/b", b"x")
    with pytest.raises(StoreError, match="cannot be used: Not a directory"):
        store.read("a/b")
    assert (tmp_path / "file").read_text() == "mine"
