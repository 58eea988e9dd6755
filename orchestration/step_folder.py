"""Folders that survive runs, as steps see them: without one a run only takes longer."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path


def writable_folder(path: str, *parts: str) -> Path | None:
    """The folder `path`/`parts`; None if `path` is "" or can't be written, with one warning that says so."""
    if not path:
        return None
    folder = Path(path, *parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable."):
            return folder
    except OSError as error:
        logging.getLogger(__name__).warning(
            "%s can't be written by user %d (%s), so this step goes on without it. A new volume often "
            "belongs to root: give it to the steps' user, as the Job in deploy/cluster/cache.yaml does.",
            folder,
            os.getuid(),
            error.strerror,
        )
        return None
