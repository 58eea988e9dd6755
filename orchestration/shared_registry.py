"""The registry of a run: a place that all of its steps can read and write."""

from __future__ import annotations

from common.patience import in_step_pod
from registry.errors import StoreError
from registry.store.base import ObjectStore
from registry.store.open import open_store


def check_remote(url: str) -> None:
    """Refuse a registry that pods can't share. Raises StoreError; nothing is contacted."""
    if not open_store(url).url.startswith("gs://"):
        raise StoreError(
            f"The registry {url!r} is a folder, and on a cluster every step has its own disk, which ends "
            "with the step: name a bucket, such as gs://bucket/prefix."
        )


def open_proven_store(url: str) -> ObjectStore:
    """Open a run's registry and prove that it can be read and written.

    Raises:
        StoreError: it can't be, or it is a folder and this is a step's pod.
    """
    if in_step_pod():
        check_remote(url)
    store = open_store(url)
    store.now()  # writes an object and reads what the store says about it
    store.list("channels/")
    return store
