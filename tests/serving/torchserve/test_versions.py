"""Archives in the model store: whole ones only, under the version's name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from serving.errors import ServingError
from serving.torchserve.state_dir import StateDir
from serving.torchserve.versions import store_archive


def test_an_archive_is_stored_whole_and_stored_again_without_a_trace(tmp_path: Path) -> None:
    archive, state = tmp_path / "car.mar", StateDir(tmp_path / "state")
    archive.write_bytes(b"content")
    for _ in range(2):
        stored = store_archive(state, archive, "abc-def")
        assert (stored.name, stored.read_bytes()) == ("car-abc-def.mar", b"content")
        assert list(state.store.iterdir()) == [stored]


@pytest.mark.parametrize("later", [b"", b"content, and more", b"cOntent"])
def test_an_archive_that_changes_while_it_is_copied_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: bytes
) -> None:
    archive, state = tmp_path / "car.mar", StateDir(tmp_path / "state")
    archive.write_bytes(b"content")
    copy = shutil.copyfile

    def copy_before_it_changes(source: Path, target: Path) -> None:
        copy(source, target)
        archive.write_bytes(later)

    monkeypatch.setattr(shutil, "copyfile", copy_before_it_changes)
    with pytest.raises(ServingError, match=r"car\.mar changed while it was copied to .*; try again\."):
        store_archive(state, archive, "abc-def")
    assert list(state.store.iterdir()) == []
