"""Object stores: the operations a registry needs, on a folder or on Google Cloud Storage.

Objects are written once and never changed. Creating an object that exists with the same bytes succeeds, so
that a write can be retried after a lost answer or a killed process; other bytes under its name are refused.

Whoever finds an object there and relies on it marks it as used (`touch`; an upload does it). Deletion is
bound to the state that was seen (`scan`), so that an object marked in between stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from registry.errors import StoreError

MAX_NAME_BYTES = 1024  # the limit of Google Cloud Storage
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")


@dataclass(frozen=True)
class Stored:
    """An object as a listing saw it.

    Attributes:
        used: when it was written or last marked as used, in UTC.
        version: what changes when it is written anew or marked; of use to its store alone.
    """

    name: str
    size: int
    used: datetime
    version: tuple[int, int]


class ObjectStore(Protocol):
    """Named, immutable objects. Names are relative POSIX paths (`check_name`)."""

    @property
    def url(self) -> str:
        """Where the store is, for people and for `open_store`."""

    def read(self, name: str) -> bytes:
        """Bytes of one (small) object. Raises ObjectMissing."""

    def create(self, name: str, data: bytes) -> None:
        """Write a new (small) object, whole or not at all. Raises ObjectExists if it holds other bytes."""

    def upload_many(self, files: Mapping[str, Path]) -> None:
        """Write new objects (name -> local file), several at a time, each whole or not at all.

        An object that is there with the same bytes is marked as used instead. Raises ObjectExists like
        `create`; what was written by then stays.
        """

    def download_many(self, targets: Sequence[tuple[str, Path]]) -> None:
        """Copy objects into local files, whose folders exist, several at a time. Raises ObjectMissing."""

    def sha256(self, name: str) -> str:
        """SHA-256 (hex) of an object's bytes as they come back from the store. Raises ObjectMissing."""

    def touch(self, name: str) -> bool:
        """Mark an object as used now, so that no deletion begun before succeeds; False if there is none."""

    def scan(self, prefix: str) -> list[Stored]:
        """All objects below a prefix with their states, sorted by name."""

    def delete(self, seen: Stored) -> bool:
        """Delete an object that is still as it was seen; False where it was marked or written since."""

    def list(self, prefix: str) -> list[str]:
        """Sorted names of all objects below a folder-like prefix (`releases/`); empty if there is none."""

    def exists(self, name: str) -> bool:
        """Whether there is an object of this name."""


def check_name(name: str) -> str:
    """Return an object name unchanged if it is safe everywhere.

    Raises:
        StoreError: for a name that is empty, absolute, too long, has `.`, `..` or empty parts, backslashes,
            control characters, or a first part that starts with a dot (reserved for temporary files).
    """
    parts = name.split("/")
    bad_part = any(part in ("", ".", "..") for part in parts)
    if bad_part or parts[0].startswith(".") or _FORBIDDEN.search(name) or _too_long(name):
        raise StoreError(
            f"{name!r} cannot name an object: use a relative path without '..', backslashes, control "
            f"characters or a leading dot, of at most {MAX_NAME_BYTES} bytes."
        )
    return name


def _too_long(name: str) -> bool:
    try:
        return len(name.encode()) > MAX_NAME_BYTES
    except UnicodeEncodeError:  # a lone surrogate: a file name that is not UTF-8
        return True


def check_prefix(prefix: str) -> str:
    """Return a listing prefix unchanged if it is safe: a name that ends in a slash."""
    if not prefix.endswith("/"):
        raise StoreError(f"{prefix!r} cannot be listed: a prefix ends in '/'.")
    check_name(prefix[:-1])
    return prefix
