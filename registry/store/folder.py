"""An object store in a local (or mounted) folder."""

from __future__ import annotations

import errno
import fcntl
import filecmp
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from common.digests import file_digest
from common.errors import DISK_FULL, disk_full_message
from registry.errors import ObjectDamaged, ObjectMissing, StoreError
from registry.store.base import (
    MAX_READ_BYTES,
    WORKERS,
    ObjectState,
    ObjectStore,
    check_name,
    check_prefix,
    in_parallel,
)

TEMPORARY = ".tmp"  # below the root, so that a hard link to the final name stays on one file system
LOCK = ".lock"  # shared by writers while they mark or link an object, exclusive for a deletion
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}


class FolderStore(ObjectStore):
    """Objects as read-only files; their modification time, by the file system's clock, is the mark.

    A file is written in full and synced under a temporary name, then hard-linked to its final name. Linking
    fails if the name is taken, so creation is exclusive, and a reader sees the whole file or none.
    """

    def __init__(self, root: Path | str, workers: int = WORKERS) -> None:
        self.root = Path(root)
        super().__init__(str(self.root), workers)

    def read(self, name: str) -> bytes:
        path = self._path(name)
        with self._store_errors(name):
            if path.exists() and not path.is_file():
                raise ObjectDamaged(f"{path} is damaged: it is no file.", name)
            with path.open("rb") as stream:
                data = stream.read(MAX_READ_BYTES + 1)
        if len(data) > MAX_READ_BYTES:
            raise self._too_large(name)
        return data

    def upload_many(self, files: Mapping[str, Path]) -> None:
        def upload(name: str, source: Path) -> None:
            # An existing file is compared, not copied again: a rerun only reads.
            while not self.refresh_mark(name):
                with source.open("rb") as original:
                    if self._publish(name, lambda stream: shutil.copyfileobj(original, stream)):
                        return
            if not filecmp.cmp(source, self._path(name), shallow=False):
                raise self._name_conflict(name)

        in_parallel(upload, files.items(), self.workers)

    def download_many(self, targets: Sequence[tuple[str, Path]]) -> None:
        def download(name: str, target: Path) -> None:
            with self._store_errors(name):
                try:
                    shutil.copyfile(self._path(name), target)
                except OSError as error:
                    if error.errno in DISK_FULL:  # the target's disk, not the store's
                        raise StoreError(disk_full_message(target, error), name) from error
                    raise

        in_parallel(download, targets, self.workers)

    def sha256(self, name: str) -> str:
        with self._store_errors(name):
            return file_digest(self._path(name))

    def refresh_mark(self, name: str) -> bool:
        path = self._path(name)
        if not path.exists():
            return False
        with self._store_errors(name), self._lock(fcntl.LOCK_SH):
            try:
                before = path.stat().st_mtime_ns
                os.utime(path)  # by the file system's clock, which may be another machine's
                if path.stat().st_mtime_ns <= before:  # a deletion compares the times
                    os.utime(path, ns=(before + 1, before + 1))
            except FileNotFoundError:
                return False
        return True

    def scan(self, prefix: str) -> list[ObjectState]:
        return self._walk(check_prefix(prefix))

    def leftovers(self) -> list[ObjectState]:
        return self._walk(f"{TEMPORARY}/")

    def now(self) -> datetime:
        temporary = self.root / TEMPORARY / uuid.uuid4().hex
        with self._store_errors(TEMPORARY):
            _make_folder(temporary.parent)
            try:
                temporary.touch()
                return datetime.fromtimestamp(temporary.stat().st_mtime, UTC)
            finally:
                temporary.unlink(missing_ok=True)

    def _walk(self, prefix: str) -> list[ObjectState]:
        def raise_unless_missing(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                raise error

        states = []
        with self._store_errors(prefix):
            for folder, _, files in os.walk(self.root / prefix, onerror=raise_unless_missing):
                for file in files:
                    path = Path(folder) / file
                    with suppress(FileNotFoundError):  # deleted meanwhile
                        status = path.stat()
                        if not stat.S_ISREG(status.st_mode):
                            continue
                        name = path.relative_to(self.root).as_posix()
                        last_used = datetime.fromtimestamp(status.st_mtime, UTC)
                        states.append(ObjectState(name, status.st_size, last_used, _version(status)))
        return sorted(states, key=lambda state: state.name)

    def delete(self, state: ObjectState) -> bool:
        path = self.root / state.name  # as it was scanned
        with self._store_errors(state.name), self._lock(fcntl.LOCK_EX):
            try:
                if _version(path.stat()) != state.version:
                    return False
                path.unlink()
            except FileNotFoundError:
                return True
            with suppress(OSError):  # the folder holds other objects
                path.parent.rmdir()
            # Manifests are deleted before blobs; the order must survive a power cut.
            _sync_folder(path.parent if path.parent.exists() else path.parent.parent)
        return True

    def exists(self, name: str) -> bool:
        return self._path(name).is_file()

    def _create(self, name: str, data: bytes) -> bool:
        return self._publish(name, lambda stream: stream.write(data))

    def _path(self, name: str) -> Path:
        return self.root / check_name(name)

    def _publish(self, name: str, write: Callable[[BinaryIO], object]) -> bool:
        """Write a file under its final name; False if the name was taken."""
        path, temporary = self._path(name), self.root / TEMPORARY / uuid.uuid4().hex
        with self._store_errors(name):
            _make_folder(temporary.parent)
            try:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
                with os.fdopen(descriptor, "wb") as stream:
                    write(stream)
                    stream.flush()
                    os.fsync(stream.fileno())
                with self._lock(fcntl.LOCK_SH):  # a deletion removes empty folders
                    _make_folder(path.parent)
                    try:
                        os.link(temporary, path)
                    except FileExistsError:
                        return False
                    _sync_folder(path.parent)
            finally:
                temporary.unlink(missing_ok=True)
        return True

    @contextmanager
    def _lock(self, mode: int) -> Iterator[None]:
        """Hold the registry's lock (LOCK_SH or LOCK_EX); it ends with the process."""
        descriptor = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, mode)
            yield
        finally:
            os.close(descriptor)

    def _store_error(self, name: str, error: Exception) -> StoreError | None:
        if not isinstance(error, OSError):
            return None
        if isinstance(error, FileNotFoundError):
            return ObjectMissing(f"There is no {name} in {self.url}.", name)
        if error.errno in _NO_LINKS:
            sentence = (
                f"{self.url} is on a file system without hard links, which a registry needs; "
                "use a local disk, NFS, or gs:// for a bucket."
            )
        elif error.errno in DISK_FULL:
            sentence = disk_full_message(f"{self.url}/{name}", error)
        else:
            sentence = f"{self.url}/{name} cannot be used: {error.strerror}."
        return StoreError(sentence, name)


def _version(status: os.stat_result) -> tuple[int, int]:
    return status.st_ino, status.st_mtime_ns


def _make_folder(folder: Path) -> None:
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for new in missing:
        _sync_folder(new.parent)


def _sync_folder(folder: Path) -> None:
    """Make a change of a folder's names survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
