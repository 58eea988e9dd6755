"""Reading a release back: every file's digest checked, the folder whole or not there."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from registry.errors import ObjectMissing, ReleaseError
from registry.releases.bundle_files import hash_folder, record
from registry.releases.layout import blob_name
from registry.releases.manifest import FileRecord, Manifest
from registry.releases.release import read_manifest
from registry.store.base import ObjectStore
from registry.store.parallel import in_parallel


def fetch_release(
    store: ObjectStore, release: str, target: Path | str, manifest_sha256: str | None = None
) -> Manifest:
    """Copy a release's bundle into a folder, checking every file; return its manifest.

    The folder appears under its name only when it is complete. A folder that already holds this very release
    is kept.

    Args:
        release: the full digest (`find_release` expands a short one).
        manifest_sha256: what a channel's entry says of the manifest; checked if given.

    Raises:
        ReleaseError: the release is missing, or a file of it is missing or damaged (named), or the
            folder holds something else.
    """
    manifest = read_manifest(store, release, manifest_sha256)
    folder = Path(target)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        return _reuse(manifest, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.partial"
    try:
        fetch_files(store, manifest, {path: partial / path for path in manifest.files})
        try:
            partial.rename(folder)
        except OSError:  # another process brought its folder into place first
            return _reuse(manifest, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def fetch_files(store: ObjectStore, manifest: Manifest, targets: Mapping[str, Path]) -> None:
    """Copy files of a release's bundle (path in the release -> where it goes), checking each.

    Raises:
        ReleaseError: the release has no such file, or it is missing or damaged.
    """
    for path in targets:
        if path not in manifest.files:
            raise ReleaseError(f"Release {manifest.release[:12]} has no file {path}.")
    _download(store, manifest, {path: (manifest.files[path], target) for path, target in targets.items()})


def fetch_evidence(store: ObjectStore, manifest: Manifest, name: str, target: Path | str) -> Path:
    """Copy one evidence file (`golden.json`, the model archive) to a path, checking it; return the path.

    Raises:
        ReleaseError: the release has no such evidence, it is missing or damaged, or the target is a folder.
    """
    if name not in manifest.evidence:
        known = ", ".join(sorted(manifest.evidence)) or "none"
        raise ReleaseError(f"Release {manifest.release[:12]} has no evidence {name!r}; it has {known}.")
    expected = manifest.evidence[name]
    final = Path(target)
    if final.is_dir():
        raise ReleaseError(f"{final} is a folder: give the path that the file {name} shall have.")
    partial = final.with_name(f".{final.name}.{uuid.uuid4().hex}.partial")
    try:
        _download(store, manifest, {name: (expected, partial)})
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)
    return final


def _download(store: ObjectStore, manifest: Manifest, targets: Mapping[str, tuple[FileRecord, Path]]) -> None:
    """Fetch and check files: path in the release -> what it must be, where it goes. Raises ReleaseError."""
    for _, target in targets.values():
        target.parent.mkdir(parents=True, exist_ok=True)
    blobs = {path: blob_name(expected.sha256) for path, (expected, _) in targets.items()}
    try:
        store.download_many([(blobs[path], target) for path, (_, target) in targets.items()])
    except ObjectMissing as error:
        path = next(path for path, blob in blobs.items() if blob == error.name)
        raise ReleaseError(
            f"{path} of release {manifest.release[:12]} is missing: there is no {store.url}/{error.name}."
        ) from error
    found = in_parallel(record, [(target,) for _, target in targets.values()])
    for (path, (expected, _)), one in zip(targets.items(), found, strict=True):
        if one != expected:
            raise ReleaseError(
                f"{path} of release {manifest.release[:12]} is damaged: {store.url}/{blobs[path]} has "
                f"{one.size} bytes with digest {one.sha256[:12]}, the manifest says {expected.size} bytes "
                f"with digest {expected.sha256[:12]}."
            )


def _reuse(manifest: Manifest, folder: Path) -> Manifest:
    if folder.is_dir() and hash_folder(folder) == manifest.files:
        return manifest
    raise ReleaseError(
        f"{folder} exists and is not release {manifest.release[:12]}: remove it or choose another folder."
    )


def fetch_data_evidence(store: ObjectStore, release: str, name: str, target: Path | str) -> Path:
    """Copy evidence on a release's training data (`data_profile.json`) to a path; return the path.

    A release that brought new items without training holds none: what its nearest ancestor trained on the
    same data holds is as true of it.

    Raises:
        ReleaseError: no release of the lineage has such evidence for this data, one of them is gone, or the
            evidence is missing or damaged.
    """
    manifest = own = read_manifest(store, release)
    while name not in manifest.evidence and manifest.parent:
        manifest = read_manifest(store, manifest.parent)
        if manifest.versions.data != own.versions.data:
            break
    same = manifest.versions.data == own.versions.data and name in manifest.evidence
    return fetch_evidence(
        store, manifest if same else own, name, target
    )  # else the error names what was asked
