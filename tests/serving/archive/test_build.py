import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

import pytest
import yaml

from common.digests import file_digest, tree_files
from serving.archive.build import (
    HANDLER,
    ArchiveError,
    WorkerConfig,
    build_archive,
    model_version,
    packed_digest,
    read_archive,
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "a bundle, with comma"
    (folder / "codebook").mkdir(parents=True)
    (folder / "bundle.json").write_text("{}")
    (folder / "codebook" / "centroids.npy").write_bytes(os.urandom(2048))
    return folder


def test_equal_input_gives_equal_bytes(bundle: Path, tmp_path: Path) -> None:
    first = build_archive(bundle, tmp_path / "one", "ab" * 32)
    copy = shutil.copytree(bundle, tmp_path / "copy")
    for path in copy.rglob("*"):
        os.utime(path, (0, 1_000_000_000))
    second = build_archive(copy, tmp_path / "two", "ab" * 32)
    assert file_digest(first) == file_digest(second)
    second_release = build_archive(bundle, tmp_path / "three", "cd" * 32)
    assert file_digest(first) != file_digest(second_release)


def test_it_carries_the_bundle_tree_and_our_handler_only(bundle: Path, tmp_path: Path) -> None:
    archive = build_archive(bundle, tmp_path / "out", "ab" * 32, workers=WorkerConfig(batch_size=3))
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "opened")
    opened_dir = tmp_path / "opened"
    assert tree_files(opened_dir / "bundle") == tree_files(bundle)
    assert (opened_dir / "handler.py").read_bytes() == HANDLER.read_bytes()
    assert [path.name for path in opened_dir.rglob("*.py")] == ["handler.py"]
    header = {"release": "ab" * 32, "digest": packed_digest(bundle, "ab" * 32)}
    assert json.loads((opened_dir / "release.json").read_text()) == header
    assert yaml.safe_load((opened_dir / "model-config.yaml").read_text())["batchSize"] == 3
    manifest = json.loads((opened_dir / "MAR-INF" / "MANIFEST.json").read_text())
    assert "requirementsFile" not in manifest["model"]


def test_it_says_which_release_it_is(bundle: Path, tmp_path: Path) -> None:
    info = read_archive(build_archive(bundle, tmp_path / "out", "ab" * 32))
    assert (info.name, info.release) == ("car", "ab" * 32)
    assert info.version == model_version("ab" * 32, WorkerConfig())
    assert info.version.startswith("abababababab-")


def test_other_settings_are_another_version() -> None:
    assert model_version("ab" * 32, WorkerConfig()) != model_version("ab" * 32, WorkerConfig(batch_size=1))


@pytest.mark.parametrize("release", ["", "a/b", "..", "a b", "-x"])
def test_a_release_that_cannot_stand_in_a_url_is_refused(release: str) -> None:
    with pytest.raises(ArchiveError, match="cannot name a model version"):
        model_version(release, WorkerConfig())


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"not a bundle: it has no bundle\.json"):
        build_archive(tmp_path, tmp_path / "out", "ab" * 32)
    assert not (tmp_path / "out").exists()


def test_a_name_that_torchserve_refuses_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="torch-model-archiver could not package"):
        build_archive(bundle, tmp_path / "out", "ab" * 32, name="no spaces")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_of_the_same_name_in_the_temporary_folder_survives(bundle: Path, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="carprobe") as innocent:
        (Path(innocent) / "kept").touch()
        build_archive(bundle, tmp_path / "out", "ab" * 32, name=Path(innocent).name)
        assert (Path(innocent) / "kept").exists()


@pytest.mark.parametrize("content", [b"", b"not a zip"])
def test_other_files_are_not_archives(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.mar"
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="is not a CAR model archive"):
        read_archive(path)


def test_an_archive_of_another_maker_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.mar"
    with zipfile.ZipFile(path, "w") as sink:
        sink.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": "x", "modelVersion": "1"}}))
    with pytest.raises(ArchiveError, match="is not a CAR model archive"):
        read_archive(path)
