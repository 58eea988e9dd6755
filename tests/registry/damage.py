"""Damage done to stored objects behind the registry's back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Change = Callable[[str, str], None]  # the registry's URL, an object's name


def flip_in_folder(url: str, name: str) -> None:
    """Flip one bit of an object's file."""
    path = Path(url) / name
    path.chmod(0o644)
    path.write_bytes(_flipped(path.read_bytes()))


def flip_in_bucket(url: str, name: str) -> None:
    """Flip one bit of an object, with checksums that fit."""
    blob = _blob(url, name)
    blob.upload_from_string(_flipped(blob.download_as_bytes()))


def remove_from_folder(url: str, name: str) -> None:
    """Remove an object's file."""
    (Path(url) / name).unlink()


def remove_from_bucket(url: str, name: str) -> None:
    """Remove an object."""
    _blob(url, name).delete()


def _blob(url: str, name: str) -> Any:
    from google.cloud import storage

    bucket, _, prefix = url.removeprefix("gs://").partition("/")
    return storage.Client().bucket(bucket).blob(f"{prefix}/{name}")


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
