"""The files of a bundle as a release records them: hashed, and safe to load.

Whether a bundle is complete and its parts belong together is for `car_model.bundle.check_bundle`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from common.digests import file_digest
from registry.errors import ReleaseError
from registry.releases.manifest import DATA_SUFFIXES, FileRecord, Versions, release_identity
from registry.store.base import check_name


@dataclass(frozen=True)
class BundleFiles:
    """A checked bundle folder: its files by relative path, and the versions in its bundle.json."""

    folder: Path
    files: dict[str, FileRecord]
    versions: Versions

    @property
    def release(self) -> str:
        """The digest that a release of this bundle has."""
        return release_identity(self.files, self.versions)


def read_bundle(folder: Path | str) -> BundleFiles:
    """Check a bundle folder's files and versions, and hash its files.

    Raises:
        ReleaseError: a file is a link, or of a format that could run code.
        UserError: the bundle is incomplete, or its parts do not belong together (`check_bundle`).
    """
    import numpy as np

    from car_model.bundle import HEADER, check_bundle

    root = Path(folder)
    if not root.is_dir():
        raise ReleaseError(f"There is no bundle folder {root}.")
    files = hash_folder(root)
    for path in files:
        if Path(path).suffix not in DATA_SUFFIXES:
            suffixes = ", ".join(DATA_SUFFIXES)
            raise ReleaseError(f"{path} may not be in a release: only {suffixes} files carry no code.")
        if path.endswith(".npy"):
            try:
                np.load(root / path, mmap_mode="r", allow_pickle=False)
            except (ValueError, OSError, EOFError) as error:
                raise ReleaseError(
                    f"{path} is not a plain array without pickled objects: {error}."
                ) from error
    header, _, _ = check_bundle(root)
    # The header also holds settings of the model; they count through the file's own digest.
    versions = header.model_dump(include=set(Versions.model_fields))
    data = json.dumps(versions).encode()
    return BundleFiles(root, files, Versions.from_bytes(data, str(root / HEADER), ReleaseError))


def release_digest(folder: Path | str) -> str:
    """The digest that a release of this bundle folder has. Raises like `read_bundle`."""
    return read_bundle(folder).release


def hash_folder(root: Path) -> dict[str, FileRecord]:
    """Record every file below a folder by its relative POSIX path. Raises ReleaseError for links."""
    records = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ReleaseError(f"{path} is not a plain file; a release holds no links or devices.")
        if path.is_file():
            records[check_name(path.relative_to(root).as_posix())] = record(path)
    return records


def record(path: Path) -> FileRecord:
    """Digest and size of one file."""
    return FileRecord(sha256=file_digest(path), size=path.stat().st_size)
