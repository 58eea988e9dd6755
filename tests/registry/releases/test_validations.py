"""Validations written after a release: stored, read, verified, and deleted with their release."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest

from registry.channels.channel import promote
from registry.errors import ReleaseError
from registry.maintenance.garbage_collection import garbage_collect
from registry.maintenance.verify import verify
from registry.releases.fetch import fetch_release
from registry.releases.layout import manifest_name
from registry.releases.release import list_releases, release_digests
from registry.releases.validations import add_validation, read_validations
from registry.store.base import ObjectStore
from tests.registry.bundles import make_release
from tests.registry.conftest import Run
from tests.registry.damage import Change

ANN = {"who": "ann@shop", "why": "a reason"}
NOW = timedelta(0)


def test_validations_change_nothing_of_their_release(store: ObjectStore, tmp_path: Path) -> None:
    release = make_release(store, tmp_path).release
    before = store.read(manifest_name(release))
    assert read_validations(store, release) == []
    for number in range(3):
        validation = add_validation(store, release, {"archive_sha256": f"{number}"}, "ann@shop")
        assert (validation.release, validation.who) == (release, "ann@shop")
    assert [item.report["archive_sha256"] for item in read_validations(store, release)] == ["2", "1", "0"]
    assert store.read(manifest_name(release)) == before
    assert release_digests(store) == [release]
    assert len(list_releases(store)) == 1
    assert fetch_release(store, release, tmp_path / "out").release == release
    assert verify(store).damage == []


def test_a_missing_release_cannot_be_validated(store: ObjectStore) -> None:
    with pytest.raises(ReleaseError, match="There is no release aaaaaaaaaaaa"):
        add_validation(store, "a" * 64, {}, "ann@shop")
    assert store.list("releases/") == []


@pytest.mark.parametrize(
    ("report", "who"), [({"p99": float("nan")}, "ann"), ({"a": {1, 2}}, "ann"), ({}, "")]
)
def test_reports_that_are_no_json_are_refused(
    store: ObjectStore, tmp_path: Path, report: dict[str, object], who: str
) -> None:
    release = make_release(store, tmp_path).release
    with pytest.raises(ReleaseError, match="cannot be stored"):
        add_validation(store, release, report, who)
    assert read_validations(store, release) == []


def test_a_damaged_validation_is_named(store: ObjectStore, url: str, tmp_path: Path, flip: Change) -> None:
    release = make_release(store, tmp_path).release
    add_validation(store, release, {"archive_sha256": "a" * 64}, "ann@shop")
    (name,) = [item for item in store.list("releases/") if "validations" in item]
    flip(url, name)
    with pytest.raises(ReleaseError, match=f"{name} is damaged"):
        read_validations(store, release)
    (damage,) = verify(store).damage
    assert damage.object == name
    assert f"{name} is damaged" in damage.what


def test_validations_are_deleted_with_their_release(store: ObjectStore, tmp_path: Path) -> None:
    releases = [make_release(store, tmp_path, seed).release for seed in range(2)]
    for release in releases:
        promote(store, "staging", release, **ANN)
        add_validation(store, release, {}, "ann@shop")
    assert garbage_collect(store, keep=2, grace=NOW).blobs == ()
    deleted = garbage_collect(store, keep=1, grace=NOW)
    assert len([item for item in deleted.blobs if "validations" in item.name]) == 1
    assert release_digests(store) == [releases[1]]
    assert not [name for name in store.list("releases/") if releases[0] in name]
    assert len(read_validations(store, releases[1])) == 1


def test_show_lists_validations(run: Run, store: ObjectStore, tmp_path: Path) -> None:
    release = make_release(store, tmp_path).release
    assert json.loads(run("show", release[:8], "--json")[1])["validations"] == []
    add_validation(store, release, {"archive_sha256": "a" * 64}, "ann@shop")
    (validation,) = json.loads(run("show", release[:8], "--json")[1])["validations"]
    assert validation["report"] == {"archive_sha256": "a" * 64}
    assert re.search(r"validated +\d{4}-\d\d-\d\d \d\d:\d\d UTC by ann@shop", run("show", release[:8])[1])
