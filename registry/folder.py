"""An object store in a local (or mounted) folder."""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from registry.errors import ObjectExists, ObjectMissing, StoreError
from registry.store import check_name, check_prefix

TEMPORARY = ".tmp"  # below the root, so that a hard link to the final name stays on one file system
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}


class FolderStore:
    """Objects as read-only files.

    A file is written in full and synced under a temporary name, then hard-linked to its final name. Linking
    fails where the name is taken, so creation is exclusive, and a reader sees the whole file or none.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    @property
    def url(self) -> str:
        """The folder's path."""
        return str(self.root)

    def read(self, name: str) -> bytes:
        """Bytes of one object. Raises ObjectMissing."""
        with self._sentences(name):
            return self._path(name).read_bytes()

    def create(self, name: str, data: bytes) -> None:
        """Write a new object, whole or not at all. Raises ObjectExists if it holds other bytes."""
        path = self._path(name)
        if not self._publish(path, lambda stream: stream.write(data)) and self.read(name) != data:
            raise self._taken(name)

    def upload(self, name: str, source: Path) -> None:
        """Copy a local file to a new object, whole or not at all. Raises ObjectExists like `create`."""
        path = self._path(name)
        # A file that is already there is compared, not copied again: a re-run costs reading only.
        if not path.exists():
            with source.open("rb") as original:
                self._publish(path, lambda stream: shutil.copyfileobj(original, stream))
        if not filecmp.cmp(source, path, shallow=False):
            raise self._taken(name)

    def download(self, name: str, target: Path) -> None:
        """Copy an object into a local file. Raises ObjectMissing."""
        with self._sentences(name):
            shutil.copyfile(self._path(name), target)

    def list(self, prefix: str) -> list[str]:
        """Sorted names of all objects below a prefix that ends in a slash."""
        folder = self.root / check_prefix(prefix)
        return sorted(path.relative_to(self.root).as_posix() for path in folder.rglob("*") if path.is_file())

    def exists(self, name: str) -> bool:
        """Whether there is an object of this name."""
        return self._path(name).is_file()

    def _path(self, name: str) -> Path:
        return self.root / check_name(name)

    def _publish(self, path: Path, write: Callable[[BinaryIO], object]) -> bool:
        """Write a file under its final name; False where the name was taken before."""
        temporary = self.root / TEMPORARY / uuid.uuid4().hex
        with self._sentences(path.relative_to(self.root).as_posix()):
            for folder in (temporary.parent, path.parent):
                self._make_folder(folder)
            try:
                with os.fdopen(
                    os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444), "wb"
                ) as stream:
                    write(stream)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.link(temporary, path)
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(path.parent)
        return True

    def _make_folder(self, folder: Path) -> None:
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            _sync_folder(made.parent)

    def _taken(self, name: str) -> ObjectExists:
        return ObjectExists(f"{self.url}/{name} already exists with other content and is never overwritten.")

    @contextmanager
    def _sentences(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise ObjectMissing(f"There is no {name} in {self.url}.") from error
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise StoreError(
                    f"{self.url} is on a file system without hard links, which a registry needs; "
                    "use a local disk, NFS, or gs:// for a bucket."
                ) from error
            raise StoreError(f"{self.url}/{name} cannot be used: {error.strerror}.") from error


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
