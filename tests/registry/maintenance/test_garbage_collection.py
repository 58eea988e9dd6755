"""Garbage collection while others write."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest

from common.digests import file_digest
from registry.channels.channel import promote, rollback
from registry.errors import ChannelError, RegistryError, ReleaseError
from registry.maintenance.garbage_collection import find_garbage, garbage_collect
from registry.maintenance.verify import verify
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
    releases = [make_release(store, folder, seed).release for seed in seeds]
    for release in releases:
        add_validation(store, release, {"seed": len(releases)}, "ann@shop")
        promote(store, "staging", release, **ANN)
    return releases


def remaining(store: ObjectStore) -> set[str]:
    return {item.release for item in list_releases(store)}


def test_releases_out_of_use_are_deleted_with_their_files(store: ObjectStore, tmp_path: Path) -> None:
    releases = stage(store, tmp_path, range(4))
    promote(store, "canary", releases[0], **ANN)
    never_used = make_release(store, tmp_path, 4).release
    shared = read_manifest(store, releases[1]).files["popular.json"]  # shared with those that stay
    garbage = find_garbage(store, keep=2, grace=NOW)
    assert {item.name for item in garbage.manifests} == {
        manifest_name(releases[1]),
        manifest_name(never_used),
    }
    assert remaining(store) == {*releases, never_used}

    deleted = garbage_collect(store, keep=2, grace=NOW)

    assert (deleted.manifests, deleted.blobs, deleted.n_remaining) == (garbage.manifests, garbage.blobs, 3)
    assert deleted.size == garbage.size > 0
    assert remaining(store) == {releases[0], releases[2], releases[3]}
    assert verify(store).damage == []
    named = {
        blob_name(record.sha256) for manifest in list_releases(store) for _, record in manifest.all_files()
    }
    assert set(store.list("blobs/")) == named
    assert blob_name(shared.sha256) in named
    again = garbage_collect(store, keep=2, grace=NOW)
    assert (again.manifests, again.blobs) == ((), ())


def test_recent_objects_stay(store: ObjectStore, tmp_path: Path) -> None:
    release = make_release(store, tmp_path).release
    store.create(blob_name("ab" * 32), b"of a release that is being written")
    assert garbage_collect(store, keep=1).manifests == ()
    assert remaining(store) == {release}
    assert store.exists(blob_name("ab" * 32))
    garbage_collect(store, keep=1, grace=NOW)
    assert (store.list("blobs/"), store.list("releases/")) == ([], [])


def test_a_child_outlives_its_parent_and_logs_keep_their_entries(store: ObjectStore, tmp_path: Path) -> None:
    parent = make_release(store, tmp_path, 1).release
    promote(store, "staging", parent, **ANN)
    child = make_release(store, tmp_path, 2, parent=parent).release
    promote(store, "staging", child, **ANN)
    garbage_collect(store, keep=1, grace=NOW)
    assert remaining(store) == {child}
    assert read_manifest(store, child).parent == parent
    fetch_release(store, child, tmp_path / "out")
    assert verify(store).damage == []
    with pytest.raises(ReleaseError, match="There is no release"):
        rollback(store, "staging", **ANN)
    # The same content may come back: it is written anew, at another time, and promoted anew.
    assert make_release(store, tmp_path, 1).release == parent
    fetch_release(store, parent, tmp_path / "parent")
    with pytest.raises(ReleaseError, match="was changed or written anew after it was promoted"):
        rollback(store, "staging", **ANN)
    # Nobody can tell it from a manifest that was edited, until somebody has looked at it.
    assert "changed or written anew after it was promoted" in verify(store).damage[0].what
    promote(store, "staging", parent, **ANN)
    assert verify(store).damage == []


def test_a_damaged_log_stops_a_garbage_collection_before_it_begins(
    store: ObjectStore, url: str, tmp_path: Path, flip: Change
) -> None:
    releases = stage(store, tmp_path, range(3))
    before = store.list("blobs/")
    flip(url, "channels/staging/00000003.json")
    with pytest.raises(ChannelError):
        garbage_collect(store, keep=1, grace=NOW)
    assert (remaining(store), store.list("blobs/")) == (set(releases), before)
    for keep, grace in ((0, NOW), (1, timedelta(hours=-1))):
        with pytest.raises(RegistryError, match="at least the last entry"):
            garbage_collect(store, keep=keep, grace=grace)


def test_the_command_is_a_dry_run_without_delete(
    run: Run, store: ObjectStore, url: str, tmp_path: Path
) -> None:
    releases = stage(store, tmp_path, range(2))
    options = ("gc", "--keep", "1", "--grace-hours", "0")
    assert (
        run("gc", "--keep", "1")[1]
        == "Dry run, nothing was deleted. With --delete: 0 releases and 0 files, 0 B; 2 releases stay.\n"
    )
    code, out, error = run(*options)
    assert (code, error) == (0, "")
    assert manifest_name(releases[0]) in out
    assert "1 releases and " in out
    assert remaining(store) == set(releases)
    would = json.loads(run(*options, "--json")[1])
    did = json.loads(run(*options, "--delete", "--json")[1])
    assert did == would | {"deleted": True}
    assert remaining(store) == {releases[1]}
    assert not any(store.exists(name) for name in would["objects"])
    assert run("gc")[0] == 2
    assert run("gc", "--keep", "0")[0] == 2


class Interrupted:
    """A store before whose n-th use something else happens."""

    def __init__(self, store: ObjectStore, point: int, event: Callable[[], object]) -> None:
        self.store, self.left, self.event = store, point, event

    def __getattr__(self, name: str) -> Any:
        result = getattr(self.store, name)
        return self._counted(result) if callable(result) else result

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                self.event()
            return method(*arguments)

        return call


def write_anew(store: ObjectStore, folder: Path) -> str:
    """Write a release that shares most files with the one to be deleted, and put it in use."""
    release = write_release(
        store, folder / "bundle-7", make_evidence(folder / "evidence-0", folder / "bundle-7")
    ).release
    promote(store, "canary", release, **ANN)
    return release


def write_again(store: ObjectStore, folder: Path) -> str:
    """Write the release to be deleted once more, and put it in use."""
    release = write_release(
        store, folder / "bundle-0", make_evidence(folder / "evidence-0", folder / "bundle-0")
    ).release
    promote(store, "canary", release, **ANN)
    return release


def use_again(store: ObjectStore, folder: Path) -> str | None:
    """Put the release to be deleted back in use; None if it is deleted already."""
    release = write_release(
        FolderStore(folder / "aside"),
        folder / "bundle-0",
        make_evidence(folder / "evidence-0", folder / "bundle-0"),
    )
    try:
        promote(store, "canary", release.release, **ANN)
    except ReleaseError:
        return None
    return release.release


@pytest.mark.parametrize("event", [write_anew, write_again, use_again])
def test_objects_used_during_a_garbage_collection_stay(
    url: str, tmp_path: Path, event: Callable[[ObjectStore, Path], str | None]
) -> None:
    make_bundle(tmp_path / "bundle-7", 7)
    outcomes, remote = set(), url.startswith("gs://")
    if not remote:
        stage(open_store(tmp_path / "template"), tmp_path, range(2))
    for point in range(1, 100, 3 if remote else 1):
        store = open_store(f"{url}/{point}")
        if remote:
            stage(store, tmp_path, range(2))
        else:
            shutil.copytree(tmp_path / "template", store.url)
        used_releases: list[str | None] = []
        busy = Interrupted(store, point, lambda: used_releases.append(event(store, tmp_path)))  # noqa: B023
        garbage_collect(busy, keep=1, grace=NOW)  # type: ignore[arg-type]
        if busy.left > 0:  # the collection was over before
            break
        assert verify(store).damage == []
        if used_releases[0]:
            fetch_release(store, used_releases[0], tmp_path / f"out-{point}")
        outcomes.add(used_releases[0] is not None)
    assert point > 8
    assert True in outcomes


def age(folder: Path) -> None:
    """Make every object look as if it had been there for days."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (path.stat().st_mtime - 2e5,) * 2)


class CollectingStore(FolderStore):
    """A folder that is garbage collected after every step of a writer."""

    def refresh_mark(self, name: str) -> bool:
        result = super().refresh_mark(name)
        garbage_collect(FolderStore(self.root), keep=1)
        return result

    def create(self, name: str, data: bytes) -> None:
        super().create(name, data)
        garbage_collect(FolderStore(self.root), keep=1)


def test_a_writer_survives_a_garbage_collection_at_each_step(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "registry")
    stage(store, tmp_path, range(2))
    age(store.root)
    release = write_release(
        CollectingStore(store.root, 1),
        make_bundle(tmp_path / "bundle-7", 7),
        make_evidence(tmp_path / "evidence-0", tmp_path / "bundle-7"),
    ).release
    promote(CollectingStore(store.root, 1), "canary", release, **ANN)
    assert verify(store).damage == []
    fetch_release(store, release, tmp_path / "out")
    assert len(remaining(store)) == 2


def test_writing_a_release_again_refreshes_its_mark(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "registry")
    release = make_release(store, tmp_path).release
    age(store.root)
    assert make_release(store, tmp_path).release == release  # a pipeline's rerun, about to promote it
    garbage_collect(store, keep=1)
    assert remaining(store) == {release}
    assert verify(store).damage == []


def test_a_killed_garbage_collection_is_completed(tmp_path: Path) -> None:
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
            assert verify(store).damage == []
            garbage_collect(store, keep=1, grace=NOW)
        assert len(remaining(store)) == 1
        assert len(store.list("releases/")) == 2  # a manifest and its validation
        assert verify(store).damage == []
        assert len(store.list("blobs/")) == len(
            {record.sha256 for manifest in list_releases(store) for _, record in manifest.all_files()}
        )
        if busy.left > 0:
            break
    assert point > 10


def test_a_collector_s_clock_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose clock is days ahead once took blobs of a release that was being written."""
    store = FolderStore(tmp_path / "registry")
    release = make_release(store, tmp_path).release
    store.create(blob_name("ab" * 32), b"of a release that is being written")

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + timedelta(days=3)

    for module in ("garbage_collection", "verify"):
        monkeypatch.setattr(f"registry.maintenance.{module}.datetime", Ahead, raising=False)
    monkeypatch.setattr("time.time", lambda: datetime.now(UTC).timestamp() + 3e5)
    garbage = garbage_collect(store, keep=1)
    assert (garbage.objects, remaining(store)) == ((), {release})
    age(store.root)
    assert len(garbage_collect(store, keep=1).manifests) == 1


class Losing(FolderStore):
    """A store in which a collection with another idea of time takes a blob when all are there."""

    victim: str

    def upload_many(self, files: Mapping[str, Path]) -> None:
        super().upload_many(files)
        (self.root / self.victim).unlink()


@pytest.mark.parametrize("file", ["bundle-0/popular.json", "evidence-0/report.html"])
def test_a_writer_checks_its_blobs_before_it_seals(tmp_path: Path, file: str) -> None:
    make_release(FolderStore(tmp_path / "aside"), tmp_path)
    store = Losing(tmp_path / "registry")
    store.victim = blob_name(file_digest(tmp_path / file))
    with pytest.raises(
        ReleaseError, match=rf"{Path(file).name} of release .* is missing: there is no .*{store.victim}"
    ):
        make_release(store, tmp_path)
    assert list_releases(store) == []
    make_release(FolderStore(store.root), tmp_path)
    with pytest.raises(ReleaseError, match="is missing"):  # nor is a rerun told that all is well
        make_release(store, tmp_path)


def test_leftovers_of_killed_writers_are_collected_when_they_are_old(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "registry")
    release = make_release(store, tmp_path).release
    promote(store, "staging", release, **ANN)
    leftover = store.root / ".tmp" / "0123abcd"
    leftover.write_bytes(b"half a blob")
    assert garbage_collect(store, keep=1).objects == ()
    assert leftover.exists()
    age(store.root)
    assert [state.name for state in find_garbage(store, keep=1).objects] == [".tmp/0123abcd"]
    collected = garbage_collect(store, keep=1)
    assert [state.name for state in collected.leftovers] == [".tmp/0123abcd"]
    assert not leftover.exists()
    make_release(store, tmp_path, 1)  # the folder itself may be gone
    assert verify(store).damage == []


def test_an_empty_registry_has_no_garbage_and_stays_absent(tmp_path: Path) -> None:
    assert garbage_collect(FolderStore(tmp_path / "none"), keep=1).objects == ()
    assert not (tmp_path / "none").exists()
