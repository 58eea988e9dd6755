"""What is unpacked from an archive answers only where it is whole, to the last bit."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from common.digests import tree_files
from serving.archive.build import ArchiveError
from serving.archive.load import DamagedArchiveError, load_archive, load_unpacked
from tests.serving.conftest import REQUESTS, Release
from tests.serving.damage import flipped, offset_of

pytestmark = pytest.mark.integration  # the release is trained


@pytest.fixture
def opened(first: Release, tmp_path: Path) -> Path:
    with zipfile.ZipFile(first.archive) as archive:
        archive.extractall(tmp_path / "opened")
    return tmp_path / "opened"


def test_a_whole_one_answers(opened: Path, first: Release) -> None:
    assert load_unpacked(opened).recommend(REQUESTS[0])["release"] == first.digest


def test_a_flipped_bit_of_any_file_is_seen(opened: Path) -> None:
    names = [name for name in tree_files(opened) if name.startswith(("bundle/", "release.json"))]
    assert len(names) > 10
    for name in names:
        with flipped(opened / name), pytest.raises(DamagedArchiveError):
            load_unpacked(opened)
    load_unpacked(opened)


def test_a_file_more_or_less_is_seen(opened: Path) -> None:
    (opened / "bundle" / "more.json").write_text("{}")
    with pytest.raises(DamagedArchiveError, match="are not those that were packed"):
        load_unpacked(opened)
    (opened / "bundle" / "more.json").unlink()
    shutil.rmtree(opened / "bundle" / "codebook")
    with pytest.raises(DamagedArchiveError):
        load_unpacked(opened)


def test_a_damaged_archive_is_one_sentence(first: Release, tmp_path: Path) -> None:
    archive = Path(shutil.copy(first.archive, tmp_path))
    with (
        flipped(archive, offset_of(archive, "bundle/model/model.safetensors")),
        pytest.raises(ArchiveError, match=r"car\.mar does not load: BadZipFile: Bad CRC-32 for file"),
    ):
        load_archive(archive)
    whole = archive.read_bytes()
    for part in (whole[: len(whole) // 2], whole[100:-100], b""):
        archive.write_bytes(part)
        with pytest.raises(ArchiveError, match=r"car\.mar is not a CAR model archive"):
            load_archive(archive)
    archive.write_bytes(whole)
    load_archive(archive)
