"""An object store in a local (or mounted) folder."""

from __future__ import annotations

import errno
import fcntl
import filecmp
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from common.digests import file_digest
from common.errors import DISK_FULL, disk_full_message
from registry.errors import ObjectExists, ObjectMissing, StoreError
from registry.store.base import Stored, check_name, check_prefix
from registry.store.parallel import WORKERS, in_parallel

TEMPORARY = ".tmp"  # below the root, so that a hard link to the final name stays on one file system
LOCK = ".lock"  # held by writers together while they mark or name an object, by a deletion alone
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}


class FolderStore:
    """Objects as read-only files.

    A file is written in full and synced under a temporary name, then hard-linked to its final name. Linking
    fails where the name is taken, so creation is exclusive, and a reader sees the whole file or none.
    """

    def __init__(self, root: Path | str, workers: int = WORKERS) -> None:
        self.root = Path(root)
        self._workers = workers

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

    def upload_many(self, files: Mapping[str, Path]) -> None:
        """Copy local files to new objects, each whole or not at all. Raises ObjectExists like `create`."""
        in_parallel(self._upload, files.items(), self._workers)

    def download_many(self, targets: Sequence[tuple[str, Path]]) -> None:
        """Copy objects into local files. Raises ObjectMissing."""
        in_parallel(self._download, targets, self._workers)

    def sha256(self, name: str) -> str:
        """SHA-256 (hex) of an object's bytes. Raises ObjectMissing."""
        with self._sentences(name):
            return file_digest(self._path(name))

    def touch(self, name: str) -> bool:
        """Mark an object as used now; False if there is none."""
        path = self._path(name)
        if not path.exists():
            return False
        with self._sentences(name), self._lock(fcntl.LOCK_SH):
            try:
                # Later than it was, whatever the clock says: a deletion compares the times.
                now = max(time.time_ns(), path.stat().st_mtime_ns + 1)
                os.utime(path, ns=(now, now))
            except FileNotFoundError:
                return False
        return True

    def scan(self, prefix: str) -> list[Stored]:
        """All objects below a prefix that ends in a slash with their states, sorted by name."""
        found = []
        for name in self.list(prefix):
            with suppress(FileNotFoundError):  # deleted meanwhile
                status = self._path(name).stat()
                used = datetime.fromtimestamp(status.st_mtime, UTC)
                found.append(Stored(name, status.st_size, used, _version(status)))
        return found

    def delete(self, seen: Stored) -> bool:
        """Delete an object that is still as it was seen; False where it was marked or written since."""
        path = self._path(seen.name)
        with self._sentences(seen.name), self._lock(fcntl.LOCK_EX):
            try:
                if _version(path.stat()) != seen.version:
                    return False
                path.unlink()
            except FileNotFoundError:
                return True
            with suppress(OSError):  # other objects lie there
                path.parent.rmdir()
            # Manifests go before blobs, after a power cut too.
            _sync_folder(path.parent if path.parent.exists() else path.parent.parent)
        return True

    def list(self, prefix: str) -> list[str]:
        """Sorted names of all objects below a prefix that ends in a slash."""
        top = self.root / check_prefix(prefix)
        with self._sentences(prefix):
            return sorted(
                (Path(folder) / file).relative_to(self.root).as_posix()
                for folder, _, files in os.walk(top, onerror=_unless_missing)
                for file in files
            )

    def exists(self, name: str) -> bool:
        """Whether there is an object of this name."""
        return self._path(name).is_file()

    def _path(self, name: str) -> Path:
        return self.root / check_name(name)

    def _upload(self, name: str, source: Path) -> None:
        path = self._path(name)
        # A file that is already there is compared, not copied again: a re-run costs reading only.
        while not self.touch(name):
            with source.open("rb") as original:
                if self._publish(path, lambda stream: shutil.copyfileobj(original, stream)):
                    return
        if not filecmp.cmp(source, path, shallow=False):
            raise self._taken(name)

    def _download(self, name: str, target: Path) -> None:
        with self._sentences(name):
            try:
                shutil.copyfile(self._path(name), target)
            except OSError as error:
                if error.errno in DISK_FULL:  # for the copy, not in the store
                    raise StoreError(disk_full_message(target, error), name) from error
                raise

    def _publish(self, path: Path, write: Callable[[BinaryIO], object]) -> bool:
        """Write a file under its final name; False where the name was taken before."""
        temporary = self.root / TEMPORARY / uuid.uuid4().hex
        with self._sentences(path.relative_to(self.root).as_posix()):
            self._make_folder(temporary.parent)
            try:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
                with os.fdopen(descriptor, "wb") as stream:
                    write(stream)
                    stream.flush()
                    os.fsync(stream.fileno())
                return self._link(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

    def _link(self, temporary: Path, path: Path) -> bool:
        with self._lock(fcntl.LOCK_SH):  # a deletion removes empty folders
            self._make_folder(path.parent)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            _sync_folder(path.parent)
        return True

    def _make_folder(self, folder: Path) -> None:
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            _sync_folder(made.parent)

    @contextmanager
    def _lock(self, how: int) -> Iterator[None]:
        """Hold the registry's lock, shared or alone; it goes with the process that holds it."""
        descriptor = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    def _taken(self, name: str) -> ObjectExists:
        return ObjectExists(
            f"{self.url}/{name} already exists with other content and is never overwritten.", name
        )

    @contextmanager
    def _sentences(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise ObjectMissing(f"There is no {name} in {self.url}.", name) from error
        except OSError as error:
            raise StoreError(self._sentence(name, error), name) from error

    def _sentence(self, name: str, error: OSError) -> str:
        if error.errno in _NO_LINKS:
            return (
                f"{self.url} is on a file system without hard links, which a registry needs; "
                "use a local disk, NFS, or gs:// for a bucket."
            )
        if error.errno in DISK_FULL:
            return disk_full_message(f"{self.url}/{name}", error)
        return f"{self.url}/{name} cannot be used: {error.strerror}."


def _version(status: os.stat_result) -> tuple[int, int]:
    return status.st_ino, status.st_mtime_ns


def _unless_missing(error: OSError) -> None:
    """Of a folder that cannot be listed, raise why; one that is not (or no longer) there is empty."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _sync_folder(folder: Path) -> None:
    """Make a change of a folder's names survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
