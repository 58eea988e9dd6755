"""Load the recommender from an archive, and only if every file is the one that was packed.

A server unpacks its archive to a disk, where the files lie for as long as it runs, and reads them again
whenever a worker starts. A damaged file must end that worker instead of changing its answers.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

from car_model.recommender.recommender import Recommender
from common.files import read_json_object
from serving.archive.build import BUNDLE, HEADER, ArchiveError, packed_digest, read_archive


class DamagedArchiveError(ArchiveError):
    """The unpacked files are not those that were packed."""


def load_unpacked(folder: Path) -> Recommender:
    """Load a folder with a bundle and its release.json.

    Raises:
        DamagedArchiveError: a file was changed, added or lost since it was packed, or release.json was.
        BundleError and the like: the bundle does not load.
    """
    header = read_json_object(folder / HEADER, DamagedArchiveError)
    release, digest = header.get("release"), header.get("digest")
    if not isinstance(release, str) or not isinstance(digest, str):
        raise DamagedArchiveError(f"{folder / HEADER} does not name a release and its digest.")
    if packed_digest(folder / BUNDLE, release) != digest:
        raise DamagedArchiveError(f"The files in {folder} are not those that were packed.")
    return Recommender.load(folder / BUNDLE, release)


def load_archive(archive: Path) -> Recommender:
    """Load a model archive that is still packed. Raises ArchiveError if it is none, damaged or won't load."""
    read_archive(archive)
    with tempfile.TemporaryDirectory(prefix="car-asgi-") as folder:
        try:
            with zipfile.ZipFile(archive) as source:
                names = [name for name in source.namelist() if name.startswith((f"{BUNDLE}/", HEADER))]
                source.extractall(folder, names)
            return load_unpacked(Path(folder))
        except Exception as error:  # any part of the bundle may raise an error of its own
            raise ArchiveError(f"{archive} does not load: {type(error).__name__}: {error}") from error
