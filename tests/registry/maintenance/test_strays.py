"""Files of desktops, editors and file systems, and damage: named, and passed over."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from registry.channels.channel import head, history, list_channels, promote, stage
from registry.maintenance.garbage_collection import find_garbage, garbage_collect
from registry.maintenance.verify import verify
from registry.releases.fetch import fetch_release
from registry.releases.layout import blob_name, entry_name, manifest_name
from registry.releases.release import find_release, list_releases, read_manifest
from registry.releases.validations import add_validation, read_validations
from registry.store.base import ObjectStore
from tests.registry.bundles import make_release
from tests.registry.conftest import Run
from tests.registry.damage import Change

ANN = {"who": "ann@shop", "why": "a reason"}
NOW = timedelta(0)
FILES = [
    ".DS_Store", "Thumbs.db", "desktop.ini", ".keep", ".gitkeep", ".nfs000000000123abcd", "00000001.json~",
    "00000001.json.swp", ".00000002.json.swo", "#00000001.json#", "00000002 (1).json", "0000002.json",
    "00000002.JSON", "manifest.json.bak", "notes.txt", "._00000001.json", "Old/00000002.json", "a\x1b[31mb",
]  # fmt: skip
PLACES = [
    "channels/", "channels/staging/", "channels/Production/", "releases/", "releases/abc/", "blobs/",
    "blobs/ab/",
]  # fmt: skip


@pytest.fixture
def releases(store: ObjectStore, tmp_path: Path) -> list[str]:
    """Digests of three releases that were staged one after the other."""
    releases = [make_release(store, tmp_path, seed).release for seed in range(3)]
    for release in releases:
        stage(store, release, **ANN)
        add_validation(store, release, {}, "ann")
    return releases


@pytest.mark.parametrize("file", FILES)
def test_a_stray_file_harms_nothing_and_stays(
    store: ObjectStore, url: str, tmp_path: Path, releases: list[str], file: str
) -> None:
    places = [*PLACES, f"releases/{releases[0]}/", f"releases/{releases[0]}/validations/"]
    strays = [f"{place}{file}" for place in places]
    if url.startswith("gs://"):
        strays = [name for name in strays if "\x1b" not in name]
    for name in strays:
        if url.startswith("gs://"):
            store.create(name, b"stray")
        else:
            (tmp_path / "registry" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "registry" / name).write_bytes(b"stray")
    assert list_channels(store) == ["staging"]
    assert head(store, "staging") == history(store, "staging")[-1]
    assert len(list_releases(store)) == 3
    assert find_release(store, releases[0][:6]) == releases[0]
    assert len(read_validations(store, releases[0])) == 1
    assert promote(store, "staging", releases[0], **ANN).number == 4
    findings = verify(store)
    assert (findings.damage, sorted(findings.strays)) == ([], sorted(strays))
    collected = garbage_collect(store, keep=1, grace=NOW)
    assert {state.name for state in collected.manifests} == {manifest_name(item) for item in releases[1:]}
    assert sorted(verify(store).strays) == sorted(strays)


def test_a_folder_placeholder_of_a_cloud_console_harms_nothing(
    store: ObjectStore, url: str, releases: list[str]
) -> None:
    if not url.startswith("gs://"):
        pytest.skip("folders have no placeholders")
    from google.cloud import storage

    bucket, _, prefix = url.removeprefix("gs://").partition("/")
    for name in ("channels/", "channels/staging/", "releases/", "blobs/"):
        storage.Client().bucket(bucket).blob(f"{prefix}/{name}").upload_from_string(b"")
    assert len(history(store, "staging")) == 3
    assert verify(store).damage == []
    assert garbage_collect(store, keep=3, grace=NOW).objects == ()


def test_a_damaged_manifest_or_channel_does_not_stop_the_list(
    run: Run, url: str, store: ObjectStore, releases: list[str], flip: Change
) -> None:
    promote(store, "canary", releases[0], **ANN)
    flip(url, manifest_name(releases[1]))
    flip(url, entry_name("canary", 1))
    code, out, error = run("list")
    assert code == 0
    assert [release[:12] in out for release in releases] == [True, False, True]
    assert f"{manifest_name(releases[1])} is" in error
    assert "canary" in error
    code, out, error = run("list", "--json")
    assert (code, len(json.loads(out)), error.count("\n")) == (0, 2, 2)
    assert run("history", "--channel", "staging")[0] == 0
    assert "canary" in run("show", releases[2])[2]


def test_garbage_collection_goes_on_past_a_damaged_manifest(
    url: str, store: ObjectStore, tmp_path: Path, releases: list[str], flip: Change
) -> None:
    flip(url, manifest_name(releases[2]))  # in use: nobody can tell which blobs it needs
    garbage = find_garbage(store, keep=1, grace=NOW)
    assert [manifest_name(releases[2]) in problem for problem in garbage.problems] == [True]
    assert "No blob is deleted while it stays" in garbage.problems[0]
    before = store.list("blobs/")
    collected = garbage_collect(store, keep=1, grace=NOW)
    assert {state.name for state in collected.manifests} == {manifest_name(item) for item in releases[:2]}
    assert store.list("blobs/") == before
    assert len(store.list(f"releases/{releases[0]}/")) == 0  # its validation went with it
    flip(url, manifest_name(releases[2]))  # restored: all that it needs is there
    fetch_release(store, releases[2], tmp_path / "out")
    assert garbage_collect(store, keep=1, grace=NOW).problems == ()
    named = {blob_name(record.sha256) for _, record in read_manifest(store, releases[2]).all_files()}
    assert set(store.list("blobs/")) == named


def test_a_damaged_manifest_out_of_use_is_garbage_like_any_other(
    url: str, store: ObjectStore, releases: list[str], flip: Change
) -> None:
    flip(url, manifest_name(releases[0]))
    collected = garbage_collect(store, keep=1, grace=NOW)
    assert (len(collected.manifests), collected.problems) == (2, ())
    assert verify(store).damage == []
