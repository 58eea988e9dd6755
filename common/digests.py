"""Content digests: the one way this project names a version of anything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20


def canonical_json(value: Any) -> bytes:
    """Serialise to the one byte string that equal values share (sorted keys, no spaces, no NaN).

    Raises:
        ValueError: for NaN or infinity, which JSON cannot carry.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    ).encode()


def json_digest(value: Any) -> str:
    """SHA-256 (hex) of a JSON value, independent of key order."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_digest(path: Path | str) -> str:
    """SHA-256 (hex) of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def tree_files(folder: Path | str) -> dict[str, str]:
    """Map every file below a folder (POSIX path relative to it, sorted) to its digest."""
    root = Path(folder)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): file_digest(path) for path in files}


def files_digest(files: Mapping[str, str]) -> str:
    """Digest of a set of files given as path -> digest; what a folder is named by."""
    return json_digest(dict(files))


def tree_digest(folder: Path | str) -> str:
    """Digest of a folder's files: names and bytes, not times or modes."""
    return files_digest(tree_files(folder))
