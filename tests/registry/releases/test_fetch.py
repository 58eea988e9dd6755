"""Evidence on training data, found through a lineage of releases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.errors import ReleaseError
from registry.releases.fetch import fetch_data_evidence
from registry.releases.layout import manifest_name
from registry.releases.release import write_release
from registry.store.base import ObjectStore
from tests.registry.bundles import make_bundle, make_evidence, write_json
from tests.registry.damage import Change


def release_trained_on(
    store: ObjectStore, folder: Path, seed: int, *, parent: str | None = None, data: str = "d", users: int = 0
) -> str:
    """A release trained on `data`, with a data profile if `users` is given."""
    bundle, evidence = (
        make_bundle(folder / f"bundle-{seed}", seed),
        make_evidence(folder / f"evidence-{seed}"),
    )
    header = json.loads((bundle / "bundle.json").read_text())
    write_json(bundle / "bundle.json", header | {"data": data * 64})
    if users:
        evidence["data_profile.json"] = folder / f"profile-{seed}.json"
        write_json(evidence["data_profile.json"], {"users": users})
    return write_release(store, bundle, evidence, parent=parent).release


def users_of(store: ObjectStore, release: str, folder: Path) -> int:
    path = fetch_data_evidence(store, release, "data_profile.json", folder / "found.json")
    return json.loads(path.read_text())["users"]


def test_a_release_with_evidence_of_its_own_is_used(store: ObjectStore, tmp_path: Path) -> None:
    first = release_trained_on(store, tmp_path, 0, users=5)
    second = release_trained_on(store, tmp_path, 1, parent=first, users=7)
    assert users_of(store, second, tmp_path) == 7


def test_evidence_of_an_ancestor_trained_on_the_same_data_is_used(store: ObjectStore, tmp_path: Path) -> None:
    first = release_trained_on(store, tmp_path, 0, users=5)
    second = release_trained_on(store, tmp_path, 1, parent=first)
    third = release_trained_on(store, tmp_path, 2, parent=second)
    assert users_of(store, third, tmp_path) == 5


def test_evidence_about_other_data_is_not_used(store: ObjectStore, tmp_path: Path) -> None:
    first = release_trained_on(store, tmp_path, 0, users=5)
    second = release_trained_on(store, tmp_path, 1, parent=first, data="e")
    with pytest.raises(ReleaseError, match=rf"Release {second[:12]} has no evidence 'data_profile.json'"):
        users_of(store, second, tmp_path)


def test_a_missing_ancestor_is_an_error(store: ObjectStore, url: str, tmp_path: Path, remove: Change) -> None:
    first = release_trained_on(store, tmp_path, 0, users=5)
    second = release_trained_on(store, tmp_path, 1, parent=first)
    remove(url, manifest_name(first))
    with pytest.raises(ReleaseError, match=rf"There is no release {first[:12]}"):
        users_of(store, second, tmp_path)
