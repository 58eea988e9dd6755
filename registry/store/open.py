"""Open the store that an address names."""

from __future__ import annotations

from pathlib import Path

from registry.errors import StoreError
from registry.store.base import ObjectStore
from registry.store.parallel import WORKERS


def open_store(url: str | Path, workers: int = WORKERS) -> ObjectStore:
    """Open the store behind `gs://bucket[/prefix]`, `file:///path` or a plain folder path.

    Nothing is created or contacted yet. STORAGE_EMULATOR_HOST is honoured for gs://. `workers` is the number
    of transfers at a time.

    Raises:
        StoreError: for another scheme or a gs:// URL without a bucket.
    """
    text = str(url)
    if text.startswith("gs://"):
        from registry.store.gcs import GcsStore

        return GcsStore(text, workers=workers)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    if not text or "://" in text:
        raise StoreError(f"The registry {str(url)!r} is neither a folder nor gs://bucket/prefix.")
    from registry.store.folder import FolderStore

    return FolderStore(text, workers)
