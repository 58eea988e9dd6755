"""Check a bundle folder before it becomes a release, without loading any model code.

Presence, formats, digests and stated versions are checked here. Infra-validation, before a release, and the
recommender, whenever it starts, check that the parts work together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from common.digests import file_digest, files_digest
from common.files import read_json_object
from registry.errors import BundleError
from registry.releases.manifest import FileRecord, Versions, release_identity
from registry.store.base import check_name

HEADER = "bundle.json"
RANKER = "ranker/"
REQUIRED_FILES = (
    HEADER,
    "codebook/codebook.json",
    "codebook/centroids.npy",
    "codebook/axes.npy",
    "codebook/mean.npy",
    "codebook/labels.json",
    "catalogue.parquet",
    "model/model.safetensors",
    "model/config.json",
    "popular.json",
)
# Formats that carry data only. Other formats could run code when they are loaded.
DATA_SUFFIXES = {".json", ".npy", ".parquet", ".safetensors"}


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
        BundleError: a file is missing, a link, or of a format that a release may not contain; or parts
            disagree with bundle.json.
    """
    root = Path(folder)
    if not root.is_dir():
        raise BundleError(f"There is no bundle folder {root}.")
    files = hash_folder(root)
    for path in REQUIRED_FILES:
        if path not in files:
            raise BundleError(f"The bundle {root} has no {path}; assemble it again with the train step.")
    for path in files:
        if Path(path).suffix not in DATA_SUFFIXES:
            suffixes = ", ".join(sorted(DATA_SUFFIXES))
            raise BundleError(f"{path} may not be in a release: only {suffixes} files carry no code.")
        if path.endswith(".npy"):
            _check_array(root / path)
    header = read_json_object(root / HEADER, BundleError)
    # The header also holds settings of the model; they count through the file's own digest.
    stated = {key: value for key, value in header.items() if key in Versions.model_fields}
    versions = Versions.from_bytes(json.dumps(stated).encode(), str(root / HEADER), BundleError)
    codebook_file = root / "codebook/codebook.json"
    codebook = read_json_object(codebook_file, BundleError)
    _check_version(str(codebook_file), "codebook", codebook.get("version"), versions.codebook)
    if codebook.get("encoder", versions.encoder) != versions.encoder:
        raise BundleError(f"{codebook_file} was made with another encoder than {HEADER} names.")
    _check_version(str(root / "model"), "model", _part_digest(files, "model/"), versions.model)
    # The ranker by action is optional.
    has_ranker = any(path.startswith(RANKER) for path in files)
    ranker = _part_digest(files, RANKER) if has_ranker else None
    _check_version(str(root / RANKER), "ranker", ranker, header.get("ranker"))
    return BundleFiles(root, files, versions)


def release_digest(folder: Path | str) -> str:
    """The digest that a release of this bundle folder has. Raises BundleError."""
    return read_bundle(folder).release


def hash_folder(root: Path) -> dict[str, FileRecord]:
    """Record every file below a folder by its relative POSIX path. Raises BundleError for links."""
    records = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BundleError(f"{path} is not a plain file; a release holds no links or devices.")
        if path.is_file():
            records[check_name(path.relative_to(root).as_posix())] = record(path)
    return records


def record(path: Path) -> FileRecord:
    """Digest and size of one file."""
    return FileRecord(sha256=file_digest(path), size=path.stat().st_size)


def _check_array(path: Path) -> None:
    import numpy as np

    try:
        np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BundleError(f"{path} is not a plain array without pickled objects: {error}.") from error


def _part_digest(files: dict[str, FileRecord], folder: str) -> str:
    """Digest of the files below a folder."""
    return files_digest(
        {
            path.removeprefix(folder): stored.sha256
            for path, stored in files.items()
            if path.startswith(folder)
        }
    )


def _check_version(path: str, part: str, actual: object, expected: object) -> None:
    if actual != expected:
        short = ["none" if version is None else str(version)[:12] for version in (actual, expected)]
        raise BundleError(
            f"{path} has version {short[0]}, but {HEADER} names {part} {short[1]}: the bundle mixes two "
            f"{part}s, or a file is damaged."
        )
