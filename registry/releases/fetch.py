"""Fetching a release: every file's digest is checked, and the folder is either complete or not there."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from registry.errors import ObjectMissing, ReleaseError
from registry.releases.bundle_files import hash_folder, record
from registry.releases.layout import blob_name
from registry.releases.manifest import FileRecord, Manifest
from registry.releases.release import read_manifest
from registry.store.base import ObjectStore, in_parallel


@dataclass(frozen=True)
class FetchedRelease:
    """A release whose manifest was read once. Its bundle and evidence are downloaded on request."""

    store: ObjectStore
    manifest: Manifest

    @classmethod
    def read(cls, store: ObjectStore, release: str, manifest_sha256: str | None = None) -> FetchedRelease:
        """Read the manifest of a release (full digest). Raises like `read_manifest`."""
        return cls(store, read_manifest(store, release, manifest_sha256))

    @property
    def digest(self) -> str:
        """The release's full digest."""
        return self.manifest.release

    def fetch_bundle(self, target: Path | str) -> Path:
        """Download the bundle into a folder, check every file, and return the folder.

        The folder appears only when it is complete. One that already holds this very release is kept.

        Raises ReleaseError if a file is missing or damaged (named), or the folder holds something else.
        """
        folder = Path(target)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            return self._require_same(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.partial"
        try:
            self.fetch_files({path: partial / path for path in self.manifest.files})
            try:
                partial.rename(folder)
            except OSError:  # another process put its folder there first
                return self._require_same(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return folder

    def fetch_files(self, targets: Mapping[str, Path]) -> None:
        """Download some of the bundle's files (path in the bundle -> local path) and check them."""
        for path in targets:
            if path not in self.manifest.files:
                raise ReleaseError(f"Release {self.digest[:12]} has no file {path}.")
        self._download({path: (self.manifest.files[path], target) for path, target in targets.items()})

    def fetch_evidence(self, name: str, target: Path | str) -> Path:
        """Download one evidence file, such as `golden.json`, check it and return its path.

        Raises ReleaseError: there is no such evidence, it is missing or damaged, or the target is a folder.
        """
        if name not in self.manifest.evidence:
            available = ", ".join(sorted(self.manifest.evidence)) or "none"
            raise ReleaseError(f"Release {self.digest[:12]} has no evidence {name!r}; it has {available}.")
        path = Path(target)
        if path.is_dir():
            raise ReleaseError(f"{path} is a folder: give the path of a file for {name}.")
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        try:
            self._download({name: (self.manifest.evidence[name], partial)})
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    def _download(self, targets: Mapping[str, tuple[FileRecord, Path]]) -> None:
        """Download files (name in the release -> record in the manifest, local path) and check them."""
        for _, target in targets.values():
            target.parent.mkdir(parents=True, exist_ok=True)
        blobs = {path: blob_name(expected.sha256) for path, (expected, _) in targets.items()}
        release, url = self.digest[:12], self.store.url
        try:
            self.store.download_many([(blobs[path], target) for path, (_, target) in targets.items()])
        except ObjectMissing as error:
            path = next(path for path, blob in blobs.items() if blob == error.name)
            raise ReleaseError(
                f"{path} of release {release} is missing: there is no {url}/{error.name}."
            ) from error
        downloaded = in_parallel(record, [(target,) for _, target in targets.values()])
        for (path, (expected, _)), actual in zip(targets.items(), downloaded, strict=True):
            if actual != expected:
                raise ReleaseError(
                    f"{path} of release {release} is damaged: {url}/{blobs[path]} has {actual.size} bytes "
                    f"with digest {actual.sha256[:12]}, the manifest says {expected.size} bytes with digest "
                    f"{expected.sha256[:12]}."
                )

    def _require_same(self, folder: Path) -> Path:
        if folder.is_dir() and hash_folder(folder) == self.manifest.files:
            return folder
        raise ReleaseError(
            f"{folder} exists and is not release {self.digest[:12]}: remove it or choose another folder."
        )


def fetch_release(
    store: ObjectStore, release: str, target: Path | str, manifest_sha256: str | None = None
) -> Manifest:
    """Download a release's bundle (`FetchedRelease.fetch_bundle`) and return its manifest."""
    fetched = FetchedRelease.read(store, release, manifest_sha256)
    fetched.fetch_bundle(target)
    return fetched.manifest
