"""Marks and the time of a folder, by the clock of its file system."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from registry.store.folder import FolderStore


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
