"""What a store says is written survives a power cut: content first, then the name, then the folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.store.folder import FolderStore


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Kind, inode and size of what was synced or linked, in order; the calls themselves go through."""
    seen: list[tuple[str, int, int]] = []
    sync, link, mkdir = os.fsync, os.link, os.mkdir

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        seen.append(("sync", status.st_ino, status.st_size))
        sync(descriptor)

    def linked(source: Path, target: Path) -> None:
        seen.append(("link", Path(source).stat().st_ino, Path(source).stat().st_size))
        link(source, target)

    def make(folder: Path, mode: int = 0o777) -> None:
        mkdir(folder, mode)
        seen.append(("mkdir", Path(folder).stat().st_ino, 0))

    for name, function in (("fsync", fsync), ("link", linked), ("mkdir", make)):
        monkeypatch.setattr(os, name, function)
    return seen


def by_create(store: FolderStore, name: str, content: bytes, _: Path) -> None:
    store.create(name, content)


def by_upload(store: FolderStore, name: str, content: bytes, scratch: Path) -> None:
    scratch.write_bytes(content)
    store.upload_many({name: scratch})


@pytest.mark.parametrize("write", [by_create, by_upload])
def test_content_is_synced_before_its_name_and_the_folder_after(
    tmp_path: Path, calls: list[tuple[str, int, int]], write: Callable[..., None]
) -> None:
    root = tmp_path / "registry"
    store = FolderStore(root)
    write(store, "releases/a/manifest.json", b"content", tmp_path / "scratch")
    file = (root / "releases/a/manifest.json").stat()
    links = [i for i, (kind, inode, _) in enumerate(calls) if (kind, inode) == ("link", file.st_ino)]
    assert len(links) == 1
    before, after = calls[: links[0]], calls[links[0] :]
    assert ("sync", file.st_ino, len(b"content")) in before
    assert (root / "releases/a").stat().st_ino in {inode for kind, inode, _ in after if kind == "sync"}
    for new in (root / "releases", root / "releases/a"):  # a folder that is not synced in its parent is lost
        made = calls.index(("mkdir", new.stat().st_ino, 0))
        synced = [inode for kind, inode, _ in calls[made:] if kind == "sync"]
        assert new.parent.stat().st_ino in synced


def test_a_name_that_is_gone_stays_gone(tmp_path: Path, calls: list[tuple[str, int, int]]) -> None:
    store = FolderStore(tmp_path)
    store.create("a/x", b"1")
    store.create("a/y", b"2")
    calls.clear()
    assert store.delete(next(state for state in store.scan("a/") if state.name == "a/x"))
    assert not store.exists("a/x")
    assert ("sync", (tmp_path / "a").stat().st_ino) in [(kind, inode) for kind, inode, _ in calls]
