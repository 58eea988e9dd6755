"""The release in production, as steps see it."""

from __future__ import annotations

from pathlib import Path


def fetch_champion(registry: str, champion: str, output: str) -> Path | None:
    """Copy the champion's bundle to a folder beside a step's output.

    Args:
        registry: where releases are, a folder or gs://bucket/prefix.
        champion: digest of the release in production; "" if there is none.
        output: path of one of the step's outputs; the folder is that path with `.champion`.

    Returns:
        The folder, or None without a champion.

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
