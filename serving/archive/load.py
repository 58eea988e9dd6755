"""Load the recommender out of an unpacked archive, and only where every file is the one that was packed.

An archive is checked by its digest; what a server unpacks from it lies on a disk for as long as the server
runs, and is read again whenever a worker starts. A damaged file must end that worker, not change its answers.
"""

from __future__ import annotations

import json
from pathlib import Path

from car_model.recommender.recommender import Recommender
from common.errors import UserError
from serving.archive.build import BUNDLE, HEADER, packed_digest


class DamagedError(UserError, ValueError):
    """The unpacked files are not those that were packed; the message is one sentence."""


def load(folder: Path) -> Recommender:
    """Load a folder with a bundle and its release.json.

    Raises:
        DamagedError: a file was changed, added or lost since it was packed, or release.json is.
        BundleError and the like: the bundle does not load.
    """
    try:
        found = json.loads((folder / HEADER).read_text("utf-8"))
        release, digest = str(found["release"]), str(found["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{folder / HEADER} does not name a release and its digest: {error!r}.") from error
    if packed_digest(folder / BUNDLE, release) != digest:
        raise DamagedError(f"The files in {folder} are not those that were packed.")
    return Recommender.load(folder / BUNDLE, release)
