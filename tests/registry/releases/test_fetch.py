"""What is fetched is what the manifest says, or nothing is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.digests import tree_files
from registry.errors import ReleaseError
from registry.releases.fetch import FetchedRelease
from registry.releases.layout import blob_name
from registry.store.folder import FolderStore
from tests.registry.bundles import make_release
from tests.registry.damage import flip_in_folder


@pytest.fixture
def release(tmp_path: Path) -> FetchedRelease:
    store = FolderStore(tmp_path / "registry")
    return FetchedRelease.read(store, make_release(store, tmp_path).release)


def test_a_bundle_comes_whole_and_an_equal_folder_is_kept(release: FetchedRelease, tmp_path: Path) -> None:
    folder = release.fetch_bundle(tmp_path / "fetched")
    assert tree_files(folder).keys() == release.manifest.files.keys()
    assert release.fetch_bundle(folder) == folder
    (folder / "popular.json").write_text("{}")
    with pytest.raises(
        ReleaseError, match=r"exists and is not release .*: remove it or choose another folder"
    ):
        release.fetch_bundle(folder)


@pytest.mark.parametrize("path", ["model/model.safetensors", "popular.json", "bundle.json"])
def test_one_flipped_bit_of_a_blob_is_named_and_leaves_no_folder(
    release: FetchedRelease, tmp_path: Path, path: str
) -> None:
    flip_in_folder(release.store.url, blob_name(release.manifest.files[path].sha256))
    before = set(tmp_path.iterdir())
    with pytest.raises(ReleaseError, match=f"{path} of release {release.digest[:12]} is damaged: "):
        release.fetch_bundle(tmp_path / "fetched")
    assert set(tmp_path.iterdir()) == before


def test_damaged_evidence_is_named_and_what_was_there_stays(release: FetchedRelease, tmp_path: Path) -> None:
    name = "evaluation.json"
    target = release.fetch_evidence(name, tmp_path / "mine.json")
    content = target.read_bytes()
    flip_in_folder(release.store.url, blob_name(release.manifest.evidence[name].sha256))
    with pytest.raises(ReleaseError, match=f"{name} of release {release.digest[:12]} is damaged"):
        release.fetch_evidence(name, target)
    assert target.read_bytes() == content
    assert not list(tmp_path.glob(".mine.json*"))
