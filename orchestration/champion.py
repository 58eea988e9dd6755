"""The release in production, as steps see it."""

from __future__ import annotations

from pathlib import Path


def fetch_champion(registry: str, champion: str, output: str) -> Path | None:
    """Copy the bundle of the release `champion` to the folder `output`.champion; return it, None without one.

    Raises:
        RegistryError: the release is missing or damaged.
    """
    from registry.releases.fetch import fetch_release
    from registry.store.open import open_store

    if not champion:
        return None
    folder = Path(f"{output}.champion")
    fetch_release(open_store(registry), champion, folder)
    return folder
