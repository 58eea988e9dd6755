"""Collecting what nobody needs, while others write."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from registry.channels.channel import promote, rollback
from registry.errors import ChannelError, RegistryError, ReleaseError
from registry.maintenance.garbage_collection import find_garbage, garbage_collect
from registry.maintenance.verify import verify_all
from registry.releases.fetch import fetch_release
from registry.releases.layout import blob_name, manifest_name
from registry.releases.release import list_releases, read_manifest, write_release
from registry.releases.validations import add_validation
from registry.store.base import ObjectStore
from registry.store.folder import FolderStore
from registry.store.open import open_store
from tests.registry.bundles import make_bundle, make_evidence, make_release
from tests.registry.conftest import Run
from tests.registry.damage import Change

ANN = {"who": "ann@shop", "why": "a reason"}
NOW = timedelta(0)  # no grace: only marks and preconditions protect


def stage(store: ObjectStore, folder: Path, seeds: range) -> list[str]:
    """Digests of releases that were validated and in use in staging one after the other."""
    made = [make_release(store, folder, seed).release for seed in seeds]
    for release in made:
        add_validation(store, release, {"seed": len(made)}, "ann@shop")
        promote(store, "staging", release, **ANN)
    return made


def there(store: ObjectStore) -> set[str]:
    return {one.release for one in list_releases(store)}


def test_what_no_channel_used_lately_goes_with_its_files(store: ObjectStore, tmp_path: Path) -> None:
    made = stage(store, tmp_path, range(4))
    promote(store, "canary", made[0], **ANN)
    never_used = make_release(store, tmp_path, 4).release
    lost = read_manifest(store, made[1]).files["popular.json"]  # shared with those that stay
    gone = find_garbage(store, keep=2, grace=NOW)
    assert {one.name for one in gone.manifests} == {manifest_name(made[1]), manifest_name(never_used)}
    assert there(store) == {*made, never_used}

    done = garbage_collect(store, keep=2, grace=NOW)

    assert (done.manifests, done.blobs, done.n_remaining) == (gone.manifests, gone.blobs, 3)
    assert done.size == gone.size > 0
    assert there(store) == {made[0], made[2], made[3]}
    assert verify_all(store).damage == []
    named = {
        blob_name(one.sha256)
        for each in list_releases(store)
        for one in (*each.files.values(), *each.evidence.values())
    }
    assert set(store.list("blobs/")) == named
    assert blob_name(lost.sha256) in named
    again = garbage_collect(store, keep=2, grace=NOW)
    assert (again.manifests, again.blobs) == ((), ())


def test_what_is_young_stays(store: ObjectStore, tmp_path: Path) -> None:
    made = make_release(store, tmp_path).release
    store.create(blob_name("ab" * 32), b"of a release that is being written")
    assert garbage_collect(store, keep=1).manifests == ()
    assert there(store) == {made}
    assert store.exists(blob_name("ab" * 32))
    garbage_collect(store, keep=1, grace=NOW)
    assert (store.list("blobs/"), store.list("releases/")) == ([], [])


def test_a_child_outlives_its_parent_and_logs_keep_their_entries(store: ObjectStore, tmp_path: Path) -> None:
    parent = make_release(store, tmp_path, 1).release
    promote(store, "staging", parent, **ANN)
    child = make_release(store, tmp_path, 2, parent=parent).release
    promote(store, "staging", child, **ANN)
    garbage_collect(store, keep=1, grace=NOW)
    assert there(store) == {child}
    assert read_manifest(store, child).parent == parent
    fetch_release(store, child, tmp_path / "out")
    assert verify_all(store).damage == []
    with pytest.raises(ReleaseError, match="There is no release"):
        rollback(store, "staging", **ANN)
    # The same content may come back: it is written anew, at another time, and promoted anew.
    assert make_release(store, tmp_path, 1).release == parent
    fetch_release(store, parent, tmp_path / "parent")
    with pytest.raises(ReleaseError, match="was changed or written anew after it was promoted"):
        rollback(store, "staging", **ANN)
    assert verify_all(store).damage == []
    promote(store, "staging", parent, **ANN)


def test_damage_stops_a_collection_before_it_begins(
    store: ObjectStore, url: str, tmp_path: Path, flip: Change
) -> None:
    made = stage(store, tmp_path, range(3))
    before = store.list("blobs/")
    for name in (manifest_name(made[0]), manifest_name(made[2]), "channels/staging/00000003.json"):
        flip(url, name)
        with pytest.raises((ReleaseError, ChannelError)):
            garbage_collect(store, keep=1, grace=NOW)
        flip(url, name)
    assert (there(store), store.list("blobs/")) == (set(made), before)
    for keep, grace in ((0, NOW), (1, timedelta(hours=-1))):
        with pytest.raises(RegistryError, match="at least the last entry"):
            garbage_collect(store, keep=keep, grace=grace)


def test_the_command_shows_first_and_deletes_when_told(
    run: Run, store: ObjectStore, url: str, tmp_path: Path
) -> None:
    made = stage(store, tmp_path, range(2))
    options = ("gc", "--keep", "1", "--grace-hours", "0")
    assert (
        run("gc", "--keep", "1")[1]
        == "Dry run, nothing was deleted. With --delete: 0 releases and 0 files, 0 B; 2 releases stay.\n"
    )
    code, out, error = run(*options)
    assert (code, error) == (0, "")
    assert manifest_name(made[0]) in out
    assert "1 releases and " in out
    assert there(store) == set(made)
    would = json.loads(run(*options, "--json")[1])
    did = json.loads(run(*options, "--delete", "--json")[1])
    assert did == would | {"deleted": True}
    assert there(store) == {made[1]}
    assert not any(store.exists(name) for name in would["objects"])
    assert run("gc")[0] == 2
    assert run("gc", "--keep", "0")[0] == 2


class Interrupted:
    """A store before whose n-th use something else happens."""

    def __init__(self, store: ObjectStore, point: int, event: Callable[[], object]) -> None:
        self.store, self.left, self.event = store, point, event

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.store, name)
        return self._counted(found) if callable(found) else found

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                self.event()
            return method(*arguments)

        return call


def write_anew(store: ObjectStore, folder: Path) -> str:
    """Write a release that shares most files with the one that goes, and put it in use."""
    release = write_release(store, folder / "bundle-7", make_evidence(folder / "evidence-0")).release
    promote(store, "canary", release, **ANN)
    return release


def write_again(store: ObjectStore, folder: Path) -> str:
    """Write the release that goes once more, and put it in use."""
    release = write_release(store, folder / "bundle-0", make_evidence(folder / "evidence-0")).release
    promote(store, "canary", release, **ANN)
    return release


def use_again(store: ObjectStore, folder: Path) -> str | None:
    """Put the release that goes back in use, or hear that it is gone."""
    release = write_release(
        FolderStore(folder / "aside"), folder / "bundle-0", make_evidence(folder / "evidence-0")
    )
    try:
        promote(store, "canary", release.release, **ANN)
    except ReleaseError:
        return None
    return release.release


@pytest.mark.parametrize("event", [write_anew, write_again, use_again])
def test_whoever_uses_something_during_a_collection_keeps_it(
    strict_url: str, tmp_path: Path, event: Callable[[ObjectStore, Path], str | None]
) -> None:
    make_bundle(tmp_path / "bundle-7", 7)
    kept, remote = set(), strict_url.startswith("gs://")
    if not remote:
        stage(open_store(tmp_path / "template"), tmp_path, range(2))
    for point in range(1, 100, 3 if remote else 1):
        store = open_store(f"{strict_url}/{point}")
        if remote:
            stage(store, tmp_path, range(2))
        else:
            shutil.copytree(tmp_path / "template", store.url)
        used: list[str | None] = []
        busy = Interrupted(store, point, lambda: used.append(event(store, tmp_path)))  # noqa: B023
        garbage_collect(busy, keep=1, grace=NOW)  # type: ignore[arg-type]
        if busy.left > 0:  # the collection was over before
            break
        assert verify_all(store).damage == []
        if used[0]:
            fetch_release(store, used[0], tmp_path / f"out-{point}")
        kept.add(used[0] is not None)
    assert point > 8
    assert True in kept


def age(folder: Path) -> None:
    """Make every object look as if it had been there for days."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (path.stat().st_mtime - 2e5,) * 2)


class Watched(FolderStore):
    """A folder in which a collection runs whenever a writer has looked at or changed something."""

    def refresh_mark(self, name: str) -> bool:
        found = super().refresh_mark(name)
        garbage_collect(FolderStore(self.root), keep=1)
        return found

    def create(self, name: str, data: bytes) -> None:
        super().create(name, data)
        garbage_collect(FolderStore(self.root), keep=1)


def test_a_writer_survives_collections_at_each_of_its_steps(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "registry")
    stage(store, tmp_path, range(2))
    age(store.root)
    release = write_release(
        Watched(store.root, 1), make_bundle(tmp_path / "bundle-7", 7), make_evidence(tmp_path / "evidence-0")
    ).release
    promote(Watched(store.root, 1), "canary", release, **ANN)
    assert verify_all(store).damage == []
    fetch_release(store, release, tmp_path / "out")
    assert len(there(store)) == 2


def test_writing_a_release_again_makes_it_young(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "registry")
    release = make_release(store, tmp_path).release
    age(store.root)
    assert make_release(store, tmp_path).release == release  # a pipeline's rerun, about to promote it
    garbage_collect(store, keep=1)
    assert there(store) == {release}
    assert verify_all(store).damage == []


def test_a_collection_that_was_killed_is_completed(tmp_path: Path) -> None:
    """A reader never sees a release without its files, and a rerun leaves nothing behind."""

    class Stopped(Exception):  # noqa: N818
        pass

    def stop() -> None:
        raise Stopped

    stage(FolderStore(tmp_path / "template"), tmp_path, range(3))
    finished = FolderStore(tmp_path / "template")
    for point in range(1, 100):
        store = FolderStore(tmp_path / f"{point}")
        shutil.copytree(finished.root, store.root)
        busy = Interrupted(store, point, stop)
        try:
            garbage_collect(busy, keep=1, grace=NOW)  # type: ignore[arg-type]
        except Stopped:
            assert verify_all(store).damage == []
            garbage_collect(store, keep=1, grace=NOW)
        assert len(there(store)) == 1
        assert len(store.list("releases/")) == 2  # a manifest and its validation
        assert verify_all(store).damage == []
        assert len(store.list("blobs/")) == len(
            {
                one.sha256
                for each in list_releases(store)
                for one in (*each.files.values(), *each.evidence.values())
            }
        )
        if busy.left > 0:
            break
    assert point > 10
