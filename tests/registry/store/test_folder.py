"""What a folder does to survive power cuts, killed writers and clocks that differ."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from registry.store.folder import FolderStore


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Syncs, links and deletions in their order, with the path that each is about."""
    events: list[tuple[str, str]] = []

    def watch(name: str) -> None:
        original = getattr(os, name)

        def call(target: Any, *rest: Any, **options: Any) -> Any:
            path = str(Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else target)
            if "/.tmp/" not in path or name != "unlink":
                events.append((name, path))
            return original(target, *rest, **options)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "link", "unlink"):
        watch(name)
    return events


@pytest.mark.parametrize("many", [False, True])
def test_bytes_and_names_are_on_disk_before_and_after_the_link(
    tmp_path: Path, calls: list[tuple[str, str]], many: bool
) -> None:
    store = FolderStore(tmp_path / "registry", workers=1)
    (tmp_path / "file").write_bytes(b"bytes")
    if many:
        store.upload_many({"blobs/ab/abc": tmp_path / "file"})
    else:
        store.create("blobs/ab/abc", b"bytes")
    root = str(store.root)
    links = [index for index, (name, _) in enumerate(calls) if name == "link"]
    assert len(links) == 1
    temporary = calls[links[0]][1]
    assert ("fsync", temporary) in calls[: links[0]]
    assert ("fsync", f"{root}/blobs/ab") in calls[links[0] :]
    for parent in (tmp_path, root, f"{root}/blobs"):  # in which a folder is new
        assert ("fsync", str(parent)) in calls[: links[0]]


def test_a_deletion_is_on_disk_before_the_next(tmp_path: Path, calls: list[tuple[str, str]]) -> None:
    store = FolderStore(tmp_path / "registry")
    for name in ("blobs/ab/1", "blobs/ab/2"):
        store.create(name, b"bytes")
    for state, folder in zip(store.scan("blobs/"), ("blobs/ab", "blobs"), strict=True):
        calls.clear()
        store.delete(state)
        assert calls[0][0] == "unlink" or calls[0][1].endswith(state.name)
        assert calls[-1] == ("fsync", f"{store.root}/{folder}")


def test_marks_and_the_time_are_of_the_file_system_s_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path / "registry")
    store.create("blobs/a", b"bytes")
    monkeypatch.setattr(time, "time", lambda: 4e9)  # this machine's clock is decades ahead
    monkeypatch.setattr(time, "time_ns", lambda: 4 * 10**18)
    (first,) = store.scan("blobs/")
    store.refresh_mark("blobs/a")
    (second,) = store.scan("blobs/")
    assert first.version != second.version
    assert second.last_used - store.now() < timedelta(minutes=1)
    assert abs(store.now() - first.last_used) < timedelta(minutes=10)
    assert list((store.root / ".tmp").iterdir()) == []


def test_a_clock_that_went_back_still_changes_the_mark(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "registry")
    store.create("blobs/a", b"bytes")
    os.utime(store.root / "blobs/a", (4e9, 4e9))
    (first,) = store.scan("blobs/")
    store.refresh_mark("blobs/a")
    assert not store.delete(first)
