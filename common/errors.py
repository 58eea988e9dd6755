"""The base of every error that a person can act on."""

from __future__ import annotations

import errno
from pathlib import Path

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class UserError(Exception):
    """An expected failure. `str(error)` is one sentence that names what is wrong and what to do."""


def disk_full_message(path: Path | str, error: OSError) -> str:
    """The sentence for a full disk or quota (`error.errno` is in DISK_FULL)."""
    return f"There is no room for {path} ({error.strerror}): free some and run again."
