"""What an archive's digest covers, and what is copied into a model store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from serving.archive.build import BUNDLE, HEADER, packed_digest
from serving.archive.load import DamagedArchiveError, load_unpacked
from serving.errors import ServingError
from serving.torchserve import versions
from serving.torchserve.state_dir import StateDir


def test_a_bundle_under_another_release_s_name_is_not_loaded(tmp_path: Path) -> None:
    bundle = tmp_path / BUNDLE
    bundle.mkdir()
    (bundle / "bundle.json").write_text("{}")
    names = ["a" * 64, "b" * 64]
    assert packed_digest(bundle, names[0]) != packed_digest(bundle, names[1])
    header = {"release": names[1], "digest": packed_digest(bundle, names[0])}
    (tmp_path / HEADER).write_text(json.dumps(header))
    with pytest.raises(DamagedArchiveError, match="are not those that were packed"):
        load_unpacked(tmp_path)


def test_an_archive_that_changes_while_it_is_copied_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateDir(tmp_path / "state")
    state.create()
    archive = tmp_path / "car.mar"
    archive.write_bytes(b"an archive")
    stored = versions.store_archive(state, archive, "1")
    assert stored.read_bytes() == b"an archive"

    def torn(source: Path, target: Path) -> None:
        copy(source, target)
        archive.write_bytes(b"another archive")

    copy = shutil.copyfile
    monkeypatch.setattr(shutil, "copyfile", torn)
    with pytest.raises(ServingError, match="changed while it was copied"):
        versions.store_archive(state, archive, "2")
    assert list(state.store.iterdir()) == [stored]
