"""Reading a release back: every file's digest checked, the folder whole or not there."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from registry.bundle import hash_folder, record
from registry.errors import ObjectMissing, ReleaseError
from registry.layout import evidence_name, file_name
from registry.manifest import FileRecord, Manifest
from registry.release import read_manifest
from registry.store import ObjectStore


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
        for path, expected in manifest.files.items():
            _download(store, file_name(release, path), expected, partial / path)
        try:
            partial.rename(folder)
        except OSError:  # another process brought its folder into place first
            return _reuse(manifest, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


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
        _download(store, evidence_name(manifest.release, name, expected), expected, partial)
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)
    return final


def _download(store: ObjectStore, name: str, expected: FileRecord, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        store.download(name, target)
    except ObjectMissing as error:
        raise ReleaseError(f"{store.url}/{name} is missing: the release is damaged.") from error
    found = record(target)
    if found != expected:
        raise ReleaseError(
            f"{store.url}/{name} is damaged: it has {found.size} bytes with digest {found.sha256[:12]}, "
            f"the manifest says {expected.size} bytes with digest {expected.sha256[:12]}."
        )


def _reuse(manifest: Manifest, folder: Path) -> Manifest:
    if folder.is_dir() and hash_folder(folder) == manifest.files:
        return manifest
    raise ReleaseError(
        f"{folder} exists and is not release {manifest.release[:12]}: remove it or choose another folder."
    )
