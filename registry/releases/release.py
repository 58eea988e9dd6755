"""Releases: written once under their content's digest, the manifest last; found by it or its beginning."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from registry.errors import ObjectExists, ObjectMissing, ReleaseError
from registry.releases.bundle_files import read_bundle, record
from registry.releases.evidence import read_gate, read_metrics
from registry.releases.layout import RELEASES, blob_name, manifest_name
from registry.releases.manifest import FileRecord, Manifest
from registry.store.base import ObjectStore

MIN_PREFIX = 4


def write_release(
    store: ObjectStore,
    bundle: Path | str,
    evidence: Mapping[str, Path],
    *,
    parent: str | None = None,
    metrics: Mapping[str, float] | None = None,
    git_commit: str | None = None,
    run_id: str | None = None,
    force: str | None = None,
) -> Manifest:
    """Store a bundle and its evidence as a release; return its manifest.

    Files go first, each as the blob of its digest unless that is there already, and the manifest last, so
    that a release is there whole or not at all. Writing equal content again returns the manifest that is
    there, after putting back files that went missing; an interrupted write is completed.

    Args:
        store: see `registry.store.base.open_store`.
        bundle: the bundle folder.
        evidence: name -> file, stored beside the release and named in its manifest, but no part of its
            identity. `verdict.json` is needed; `evaluation.json` gives the metrics unless `metrics` does.
        parent: the release this one follows, which must be in the registry.
        force: the reason to write a release that the gate did not bless.

    Raises:
        BundleError: the bundle is incomplete or inconsistent.
        ReleaseError: the verdict is not blessed and not forced, or the parent is unknown.
        StoreError: the store cannot be written.
    """
    gate = read_gate(evidence, force)
    checked = read_bundle(bundle)
    files = [(stored, checked.folder / path) for path, stored in checked.files.items()]
    if store.touch(manifest_name(checked.release)):  # a collection that saw it unused lets it be
        _upload(store, checked.folder, files)
        return read_manifest(store, checked.release)
    if parent is not None:
        read_manifest(store, parent)
    manifest = _manifest(
        release=checked.release,
        files=checked.files,
        evidence={name: record(_plain_file(name, path)) for name, path in evidence.items()},
        versions=checked.versions,
        parent=parent,
        metrics=read_metrics(evidence) if metrics is None else dict(metrics),
        gate=gate,
        git_commit=git_commit or None,
        run_id=run_id or None,
        created=datetime.now(UTC),
    )
    files += [(stored, Path(evidence[name])) for name, stored in manifest.evidence.items()]
    _upload(store, checked.folder, files)
    return _seal(store, manifest)


def read_manifest(store: ObjectStore, release: str, sha256: str | None = None) -> Manifest:
    """The manifest of a release, given its full digest.

    Args:
        sha256: what a channel's entry says of the manifest; checked if given.

    Raises:
        ReleaseError: the release is missing, its manifest is damaged, or not the one that was promoted.
    """
    manifest, found = load_manifest(store, release)
    if sha256 is not None and found != sha256:
        raise ReleaseError(
            f"{store.url}/{manifest_name(release)} was changed or written anew after it was promoted: its "
            f"digest is {found[:12]}, the channel recorded {sha256[:12]}; look at it and promote it again."
        )
    return manifest


def load_manifest(store: ObjectStore, release: str) -> tuple[Manifest, str]:
    """A release's manifest and the SHA-256 of its stored bytes. Raises ReleaseError like `read_manifest`."""
    name = manifest_name(release)
    try:
        data = store.read(name)
    except ObjectMissing as error:
        raise ReleaseError(f"There is no release {release[:12]} in {store.url}.") from error
    manifest = Manifest.from_bytes(data, f"{store.url}/{name}", ReleaseError)
    if manifest.release != release:
        raise ReleaseError(f"{store.url}/{name} is the manifest of another release, {manifest.release[:12]}.")
    return manifest, hashlib.sha256(data).hexdigest()


def mark_release(store: ObjectStore, release: str) -> None:
    """Keep a release that is about to be used from being collected now. Raises ReleaseError if it is gone."""
    if not store.touch(manifest_name(release)):
        raise ReleaseError(f"There is no release {release[:12]} in {store.url}.")


def release_digests(store: ObjectStore) -> list[str]:
    """Full digests of all complete releases, sorted."""
    found = [(name.split("/")[1], name) for name in store.list(RELEASES)]
    return [digest for digest, name in found if name == manifest_name(digest)]


def list_releases(store: ObjectStore) -> list[Manifest]:
    """Manifests of all complete releases, newest first."""
    manifests = [read_manifest(store, digest) for digest in release_digests(store)]
    return sorted(manifests, key=lambda one: (one.created, one.release), reverse=True)


def find_release(store: ObjectStore, prefix: str) -> str:
    """The one full digest that a prefix of at least four characters stands for.

    Raises:
        ReleaseError: the prefix is too short, fits no complete release, or fits several.
    """
    if len(prefix) < MIN_PREFIX:
        raise ReleaseError(f"{prefix!r} is too short for a release: give at least {MIN_PREFIX} characters.")
    matching = [digest for digest in release_digests(store) if digest.startswith(prefix.lower())]
    if not matching:
        raise ReleaseError(f"There is no release {prefix} in {store.url}.")
    if len(matching) > 1:
        fitting = ", ".join(one[:16] for one in matching)
        raise ReleaseError(f"{prefix} fits {len(matching)} releases ({fitting}): give more characters.")
    return matching[0]


def _manifest(**fields: Any) -> Manifest:
    try:
        return Manifest(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ReleaseError(f"The release's {place} cannot be recorded: {first['msg']}.") from error


def _upload(store: ObjectStore, bundle: Path, files: Sequence[tuple[FileRecord, Path]]) -> None:
    """Store files (what each was when it was looked at, where it is) unless their blobs are there."""
    try:
        store.upload_many({blob_name(stored.sha256): path for stored, path in files})
    except ObjectExists as error:
        raise ReleaseError(f"{error} It is damaged: delete that object and run again.") from error
    if any(not path.is_file() or record(path) != stored for stored, path in files):
        _discard(store, [stored for stored, _ in files])
        raise ReleaseError(f"{bundle} or its evidence changed while it was being released: run again.")


def _discard(store: ObjectStore, records: Iterable[FileRecord]) -> None:
    """Delete blobs that are not what their names say, lest the next run finds them in its way."""
    for folder in {blob_name(stored.sha256).rpartition("/")[0] for stored in records}:
        for seen in store.scan(f"{folder}/"):
            if store.sha256(seen.name) != seen.name.rpartition("/")[2]:
                store.delete(seen)


def _seal(store: ObjectStore, manifest: Manifest) -> Manifest:
    try:
        store.create(manifest_name(manifest.release), manifest.to_bytes())
    except ObjectExists:  # an equal run was faster; its manifest is the release's
        return read_manifest(store, manifest.release)
    return manifest


def _plain_file(name: str, path: Path) -> Path:
    if not Path(path).is_file():
        raise ReleaseError(f"The evidence {name} is not a file: {path}.")
    return Path(path)
