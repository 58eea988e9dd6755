"""Verifying a registry: exactly the damaged objects are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.channels.channel import promote
from registry.errors import StoreError
from registry.maintenance.verify import verify
from registry.releases.layout import blob_name, entry_name, manifest_name
from registry.store.base import ObjectStore
from registry.store.open import open_store
from tests.registry.bundles import make_release
from tests.registry.conftest import Run
from tests.registry.damage import Change, flip_in_folder

ANN = {"who": "ann@shop", "why": "a reason"}


@pytest.fixture
def releases(store: ObjectStore, tmp_path: Path) -> list[str]:
    """Digests of two releases that share most files; the first was staged, then the second."""
    releases = [make_release(store, tmp_path, seed).release for seed in range(2)]
    for release in releases:
        promote(store, "staging", release, **ANN)
    return releases


def test_an_undamaged_registry_passes(run: Run, releases: list[str], store: ObjectStore) -> None:
    code, out, error = run("verify")
    assert (code, error) == (0, "")
    files = len(store.list("blobs/"))
    assert out.startswith(f"Checked 2 releases, {files} files (")
    assert out.endswith("and 1 channels: no damage.\n")
    assert run("verify", "--all") == (code, out, error)
    assert run("verify", releases[0][:8])[1].startswith("Checked 1 releases, ")
    assert json.loads(run("verify", "staging", "--json")[1])["damage"] == []
    assert run("verify", "staging", "--all")[0] == 2
    assert run("verify", "ffffffff")[0] == 1


def test_every_damaged_file_is_named_with_its_users(
    run: Run, url: str, releases: list[str], store: ObjectStore, flip: Change
) -> None:
    blobs = store.list("blobs/")
    for name in blobs:
        flip(url, name)
    code, out, _ = run("verify", "--all")
    assert code == 1
    for name in blobs:
        assert f"{url}/{name} is damaged: its digest is " in out
    assert f"popular.json of {releases[0][:12]}" in out
    assert f"popular.json of {releases[1][:12]}" in out
    assert f"{manifest_name(releases[0])} was promoted without force, but is not blessed" in out
    assert out.endswith(f": {len(blobs) + len(releases)} damaged.\n")
    assert len(verify(store, releases[0]).damage) < len(blobs)


def test_missing_and_truncated_files_are_distinguished(
    run: Run, url: str, releases: list[str], store: ObjectStore, remove: Change
) -> None:
    files = json.loads(run("show", releases[1], "--json")[1])["files"]
    model, header = (blob_name(files[path]["sha256"]) for path in ("model/model.safetensors", "bundle.json"))
    for name in (model, header):
        remove(url, name)
    store.create(header, b"{")
    code, out, _ = run("verify", releases[1], "--json")
    assert code == 1
    damage = {item["object"]: item["what"] for item in json.loads(out)["damage"]}
    assert damage.keys() == {model, header}
    assert f"is missing; it is model/model.safetensors of {releases[1][:12]}" in damage[model]
    assert "is damaged: it has 1 bytes instead of" in damage[header]


def test_damaged_manifests_and_logs_are_named(
    run: Run, url: str, releases: list[str], flip: Change, remove: Change
) -> None:
    flip(url, manifest_name(releases[0]))
    code, out, _ = run("verify")
    assert (code, out.count(manifest_name(releases[0]))) == (1, 1)
    flip(url, manifest_name(releases[0]))
    remove(url, manifest_name(releases[1]))
    assert f"{manifest_name(releases[1])} is missing, but staging uses this release" in run("verify")[1]
    remove(url, entry_name("staging", 1))
    code, out, _ = run("verify")
    assert code == 1
    assert "The log of staging in" in out
    assert "entry 1 is missing" in out


def test_a_manifest_replaced_after_its_promotion(
    run: Run, url: str, releases: list[str], store: ObjectStore, remove: Change
) -> None:
    name = manifest_name(releases[0])
    edited = store.read(name).replace(b'"run_id": null', b'"run_id": "another"')
    remove(url, name)
    store.create(name, edited)
    assert f"{name} was changed or written anew after it was promoted" in run("verify")[1]


def test_garbage_collected_releases_are_no_damage(
    run: Run, url: str, releases: list[str], remove: Change
) -> None:
    remove(url, manifest_name(releases[0]))
    assert run("verify")[0] == 0


def test_an_unreadable_store_is_an_error_not_damage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no registry")
    with pytest.raises(StoreError, match="cannot be used"):
        verify(open_store(tmp_path / "file"))


def test_verifying_changes_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path / "registry")
    release = make_release(store, tmp_path)
    flip_in_folder(store.url, blob_name(release.files["popular.json"].sha256))
    before = {path: path.stat() for path in (tmp_path / "registry").rglob("*")}
    assert len(verify(store).damage) == 1
    after = {path: path.stat() for path in (tmp_path / "registry").rglob("*")}
    assert {path: item.st_mtime_ns for path, item in before.items()} == {
        path: item.st_mtime_ns for path, item in after.items()
    }
