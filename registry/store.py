"""Object stores: the six operations a registry needs, on a folder or on Google Cloud Storage.

Objects are written once and never changed. Creating an object that exists with the same bytes succeeds, so
that a write can be retried after a lost answer or a killed process; other bytes under its name are refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from registry.errors import StoreError

MAX_NAME_BYTES = 1024  # the limit of Google Cloud Storage
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")


class ObjectStore(Protocol):
    """Named, immutable objects. Names are relative POSIX paths (`check_name`)."""

    @property
    def url(self) -> str:
        """Where the store is, for people and for `open_store`."""

    def read(self, name: str) -> bytes:
        """Bytes of one (small) object. Raises ObjectMissing."""

    def create(self, name: str, data: bytes) -> None:
        """Write a new (small) object, whole or not at all. Raises ObjectExists if it holds other bytes."""

    def upload(self, name: str, source: Path) -> None:
        """Write a new object from a local file, whole or not at all. Raises ObjectExists like `create`."""

    def download(self, name: str, target: Path) -> None:
        """Copy an object into a local file, whose folder exists. Raises ObjectMissing."""

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


def open_store(url: str | Path) -> ObjectStore:
    """Open the store behind `gs://bucket[/prefix]`, `file:///path` or a plain folder path.

    Nothing is created or contacted yet. STORAGE_EMULATOR_HOST is honoured for gs://.

    Raises:
        StoreError: for another scheme or a gs:// URL without a bucket.
    """
    text = str(url)
    if text.startswith("gs://"):
        from registry.gcs import GcsStore  # noqa: PLC0415 - a folder needs no cloud library at start

        return GcsStore(text)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    if not text or "://" in text:
        raise StoreError(f"The registry {str(url)!r} is neither a folder nor gs://bucket/prefix.")
    from registry.folder import FolderStore  # noqa: PLC0415

    return FolderStore(text)
