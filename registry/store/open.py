"""Open the store at an address."""

from __future__ import annotations

from pathlib import Path

from registry.errors import StoreError
from registry.store.base import WORKERS, ObjectStore


def open_store(url: str | Path, workers: int = WORKERS) -> ObjectStore:
    """Open the store at `gs://bucket[/prefix]`, `file:///path` or a plain folder path.

    Nothing is created or contacted yet. For gs:// the variable STORAGE_EMULATOR_HOST is honoured.

    Raises StoreError for another scheme, or a gs:// URL without a bucket.
    """
    text = str(url)
    if text.startswith("gs://"):
        from registry.store.gcs import GcsStore

        return GcsStore(text, workers=workers)
    path = text.removeprefix("file://")
    if not path or "://" in path:
        raise StoreError(f"The registry {str(url)!r} is neither a folder nor gs://bucket/prefix.")
    from registry.store.folder import FolderStore

    return FolderStore(path, workers)
