"""What a bundle folder must hold before it can become a release; read without loading any model code.

Presence, formats, digests and stated versions are checked here. That the parts work together is for those who
load them: infra_validate does so before a release, the recommender whenever it starts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.digests import file_digest, files_digest
from registry.errors import BundleError
from registry.releases.manifest import FileRecord, Versions, identity
from registry.store.base import check_name

HEADER = "bundle.json"
RANKER = "ranker/"
REQUIRED = (
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
# Formats that carry data only. Anything else could run code when it is loaded.
SUFFIXES = {".json", ".npy", ".parquet", ".safetensors"}


@dataclass(frozen=True)
class Bundle:
    """A checked bundle folder."""

    folder: Path
    files: dict[str, FileRecord]
    versions: Versions

    @property
    def release(self) -> str:
        """The digest that a release of this bundle has."""
        return identity(self.files, self.versions)


def read_bundle(folder: Path | str) -> Bundle:
    """Check a bundle folder's layout and versions, and hash its files.

    Raises:
        BundleError: a file is missing, a link, or of a format that a release may not carry; or bundle.json
            and the codebook disagree.
    """
    root = Path(folder)
    if not root.is_dir():
        raise BundleError(f"There is no bundle folder {root}.")
    files = hash_folder(root)
    for required in REQUIRED:
        if required not in files:
            raise BundleError(f"The bundle {root} has no {required}; assemble it again with the train step.")
    for path in files:
        _check_format(root, path)
    versions = _read_versions(root / HEADER)
    _check_codebook(root, versions)
    _check_model(root, files, versions)
    _check_ranker(root, files)
    return Bundle(root, files, versions)


def release_digest(folder: Path | str) -> str:
    """The digest that names a release of this bundle folder. Raises BundleError."""
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


def _check_format(root: Path, path: str) -> None:
    if Path(path).suffix not in SUFFIXES:
        raise BundleError(
            f"{path} may not be in a release: only {', '.join(sorted(SUFFIXES))} files carry no code."
        )
    if path.endswith(".npy"):
        _check_array(root / path)


def _check_array(path: Path) -> None:
    import numpy as np

    try:
        np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BundleError(f"{path} is not a plain array without pickled objects: {error}.") from error


def _read_versions(path: Path) -> Versions:
    header = _read_object(path)
    # The header also holds settings of the model; they count through the file's own digest.
    stated = {key: value for key, value in header.items() if key in Versions.model_fields}
    return Versions.from_bytes(json.dumps(stated).encode(), str(path), BundleError)


def _check_model(root: Path, files: dict[str, FileRecord], versions: Versions) -> None:
    found = _part(files, "model/")
    if found != versions.model:
        raise BundleError(
            f"{root / 'model'} has digest {_short(found)}, but {HEADER} names model "
            f"{_short(versions.model)}: the bundle mixes two models, or a file is damaged."
        )


def _check_ranker(root: Path, files: dict[str, FileRecord]) -> None:
    """A ranker by action is optional; its files count in the release's digest as all others do."""
    stated = _read_object(root / HEADER).get("ranker")
    there = any(path.startswith(RANKER) for path in files)
    found = _part(files, RANKER) if there else None
    if found != stated:
        raise BundleError(
            f"{root / RANKER} has digest {_short(found)}, but {HEADER} names ranker {_short(stated)}: the "
            "bundle mixes two rankers, or a file is damaged."
        )


def _part(files: dict[str, FileRecord], folder: str) -> str:
    """Digest of the files below a folder."""
    return files_digest(
        {path.removeprefix(folder): one.sha256 for path, one in files.items() if path.startswith(folder)}
    )


def _check_codebook(root: Path, versions: Versions) -> None:
    path = root / "codebook" / "codebook.json"
    header = _read_object(path)
    if header.get("version") != versions.codebook:
        raise BundleError(
            f"{path} has version {_short(header.get('version'))}, but {HEADER} names codebook "
            f"{_short(versions.codebook)}: the bundle mixes two codebooks."
        )
    if header.get("encoder", versions.encoder) != versions.encoder:
        raise BundleError(f"{path} was made with another encoder than {HEADER} names: they must agree.")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise BundleError(f"{path} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise BundleError(f"{path} is not a JSON object.")
    return value


def _short(value: object) -> str:
    return str(value)[:12] if value is not None else "none"
