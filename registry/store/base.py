"""Object stores: the operations that a registry needs, on a folder or on Google Cloud Storage.

Objects are written once and never changed. Creating an object that exists with the same bytes succeeds, so
that a write can be retried after a lost answer or a killed process. Other bytes under its name are refused.

Writers mark the existing objects that they rely on (`refresh_mark`; an upload does so too). A deletion
applies to the state that an earlier `scan` returned, so that an object marked in between stays.
"""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from registry.errors import ObjectDamaged, ObjectExists, StoreError

MAX_READ_BYTES = 16 << 20  # of a document: manifests, entries and verdicts have kilobytes
MAX_NAME_BYTES = 1024  # the limit of Google Cloud Storage
WORKERS = 8  # transfers at a time, of the 10 connections that the HTTP library pools
R = TypeVar("R")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")


@dataclass(frozen=True)
class ObjectState:
    """An object as a listing returned it."""

    name: str
    size: int  # bytes
    last_used: datetime  # when it was written or last marked as used, in UTC
    version: tuple[int, int]  # changes when it is written or marked; only its store can interpret it


class ObjectStore(ABC):
    """Named, immutable objects. Names are relative POSIX paths (`check_name`).

    Every method raises StoreError if the store cannot be reached, read or written. `url` is the store's
    address, for people and for `open_store`.
    """

    def __init__(self, url: str, workers: int) -> None:
        self.url = url
        self.workers = workers

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the bytes of one small object.

        Raises ObjectMissing, or ObjectDamaged for more than MAX_READ_BYTES, of which the rest is not read.
        """

    def create(self, name: str, data: bytes) -> None:
        """Write a new (small) object, whole or not at all. Raises ObjectExists if it holds other bytes."""
        if not self._create(name, data) and self.read(name) != data:
            raise self._name_conflict(name)

    @abstractmethod
    def upload_many(self, files: Mapping[str, Path]) -> None:
        """Write new objects (name -> local file), several at a time, each whole or not at all.

        An object that exists with the same bytes is marked as used instead. Raises ObjectExists like
        `create`; the objects written before that stay.
        """

    @abstractmethod
    def download_many(self, targets: Sequence[tuple[str, Path]]) -> None:
        """Copy objects to local files in existing folders, several at a time. Raises ObjectMissing."""

    @abstractmethod
    def sha256(self, name: str) -> str:
        """Read an object back from the store and return its SHA-256 (hex). Raises ObjectMissing."""

    @abstractmethod
    def refresh_mark(self, name: str) -> bool:
        """Mark an object as used now, so that no deletion planned before succeeds; False if it is missing."""

    @abstractmethod
    def scan(self, prefix: str) -> list[ObjectState]:
        """Return the states of all objects below a prefix that ends in a slash, sorted by name."""

    @abstractmethod
    def delete(self, state: ObjectState) -> bool:
        """Delete an object that is still in this state; False if it was marked or written since."""

    def list(self, prefix: str) -> list[str]:
        """Return the sorted names of all objects below a prefix (`releases/`); empty if there are none."""
        return [state.name for state in self.scan(prefix)]

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is an object of this name."""

    @abstractmethod
    def now(self) -> datetime:
        """The time by the clock that `last_used` is taken from, in UTC."""

    def leftovers(self) -> Sequence[ObjectState]:
        """Temporary files of writers that were killed, which may be deleted once they are old."""
        return []

    @abstractmethod
    def _create(self, name: str, data: bytes) -> bool:
        """Write a new object; False if the name was taken."""

    @abstractmethod
    def _store_error(self, name: str, error: Exception) -> StoreError | None:
        """The StoreError that stands for an error of the platform; None for a programming error."""

    @contextmanager
    def _store_errors(self, name: str) -> Iterator[None]:
        """Raise the platform's errors as StoreErrors about the object `name`."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            translated = self._store_error(name, error)
            if translated is None:
                raise
            raise translated from error

    def _too_large(self, name: str) -> ObjectDamaged:
        return ObjectDamaged(
            f"{self.url}/{name} is damaged: no document has more than {MAX_READ_BYTES} bytes.",
            name,
        )

    def _name_conflict(self, name: str) -> ObjectExists:
        return ObjectExists(
            f"{self.url}/{name} already exists with other content and is never overwritten.", name
        )


def check_name(name: str) -> str:
    """Return an object name unchanged if it is safe in every store.

    Raises:
        StoreError: the name is empty, absolute or too long, has `.`, `..` or empty parts, backslashes or
            control characters, or its first part starts with a dot (reserved for temporary files).
    """
    try:
        too_long = len(name.encode()) > MAX_NAME_BYTES
    except UnicodeEncodeError:  # a lone surrogate: a file name that is not UTF-8
        too_long = True
    parts = name.split("/")
    bad_part = any(part in ("", ".", "..") for part in parts)
    if too_long or bad_part or parts[0].startswith(".") or _FORBIDDEN.search(name):
        raise StoreError(
            f"{name!r} cannot name an object: use a relative path without '..', backslashes, control "
            f"characters or a leading dot, of at most {MAX_NAME_BYTES} bytes."
        )
    return name


def check_prefix(prefix: str) -> str:
    """Return a listing prefix unchanged if it is a safe name that ends in a slash. Raises StoreError."""
    if not prefix.endswith("/"):
        raise StoreError(f"{prefix!r} cannot be listed: a prefix ends in '/'.")
    check_name(prefix[:-1])
    return prefix


def in_parallel(work: Callable[..., R], jobs: Iterable[tuple[Any, ...]], workers: int = WORKERS) -> list[R]:
    """Run `work(*job)` for many small transfers at once, in threads; return the results in order.

    After a failure no further job starts, so that a store that is down costs one round of retries and not
    one per object. The failure is raised when the running jobs have ended.
    """
    failed = threading.Event()

    def guarded(job: tuple[Any, ...]) -> R | None:
        if failed.is_set():
            return None
        try:
            return work(*job)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(max(1, workers)) as pool:
        futures = [pool.submit(guarded, job) for job in jobs]
    return [cast(R, future.result()) for future in futures]  # raises the first failure
