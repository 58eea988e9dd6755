"""An object store in a Google Cloud Storage bucket, below an optional prefix."""

from __future__ import annotations

import base64
import mimetypes
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import google_crc32c
from google.api_core import exceptions as api
from google.api_core.retry import Retry
from google.auth import exceptions as auth
from google.cloud import storage
from google.cloud.storage import transfer_manager
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY

from common.digests import CHUNK_BYTES, file_digest
from common.errors import DISK_FULL, disk_full_message
from registry.errors import ObjectDamaged, ObjectExists, ObjectMissing, StoreError
from registry.store.base import Stored, check_name, check_prefix
from registry.store.parallel import WORKERS, in_parallel

TIMEOUT_S = 60.0  # of one request; the retry has its own deadline
CHECKSUM = "crc32c"  # computed on both sides of every transfer
USED = "last-used"  # metadata key; writing it gives the object a new state


class GcsStore:
    """Objects in a bucket.

    Creation asks the server for generation 0, so that of several writers one wins. All requests are safe to
    retry and are retried with the library's back-off; a retried create that finds its own bytes has won.
    """

    def __init__(
        self, url: str, retry: Retry = DEFAULT_RETRY, timeout: float = TIMEOUT_S, workers: int = WORKERS
    ) -> None:
        bucket, _, prefix = url.removeprefix("gs://").partition("/")
        self._bucket_name, self._prefix = bucket, prefix.strip("/")
        self._asking: dict[str, Any] = {"timeout": timeout, "retry": retry}  # of every request
        self._workers = workers
        if not bucket:
            raise StoreError(f"The registry {url!r} names no bucket; write gs://bucket/prefix.")
        if self._prefix:
            check_name(self._prefix)

    @property
    def url(self) -> str:
        """gs://bucket/prefix, without a trailing slash."""
        return f"gs://{self._bucket_name}/{self._prefix}".rstrip("/")

    def read(self, name: str) -> bytes:
        """Bytes of one object. Raises ObjectMissing."""
        with self._sentences(name):
            return self._blob(name).download_as_bytes(checksum=CHECKSUM, **self._asking)

    def create(self, name: str, data: bytes) -> None:
        """Write a new object. Raises ObjectExists if it holds other bytes."""
        with self._sentences(name):
            try:
                self._blob(name).upload_from_string(
                    data,
                    content_type=_content_type(name),
                    if_generation_match=0,
                    checksum=CHECKSUM,
                    **self._asking,
                )
            except api.PreconditionFailed:
                if self.read(name) != data:
                    raise self._taken(name) from None

    def upload_many(self, files: Mapping[str, Path]) -> None:
        """Copy local files to new objects. Raises ObjectExists like `create`."""
        # Asked first, so that no bytes are sent for an object that is already there.
        held = in_parallel(self._holds, files.items(), self._workers)
        new = [pair for pair, there in zip(files.items(), held, strict=True) if not there]
        results = transfer_manager.upload_many(
            [(str(source), self._blob(name)) for name, source in new],
            upload_kwargs={"if_generation_match": 0, "checksum": CHECKSUM, **self._asking},
            worker_type=transfer_manager.THREAD,
            max_workers=self._workers,
        )
        for (name, source), result in zip(new, results, strict=True):
            # A lost answer that was retried, or a rival with the same bytes.
            if isinstance(result, api.PreconditionFailed) and self._holds(name, source):
                continue
            self._raise(name, result)

    def download_many(self, targets: Sequence[tuple[str, Path]]) -> None:
        """Copy objects into local files. Raises ObjectMissing."""
        results = transfer_manager.download_many(
            [(self._blob(name), str(target)) for name, target in targets],
            download_kwargs={"checksum": CHECKSUM, **self._asking},
            worker_type=transfer_manager.THREAD,
            max_workers=self._workers,
        )
        for (name, target), result in zip(targets, results, strict=True):
            if isinstance(result, OSError) and result.errno in DISK_FULL:
                raise StoreError(disk_full_message(target, result), name) from result
            self._raise(name, result)

    def sha256(self, name: str) -> str:
        """SHA-256 (hex) of an object's bytes as they come back. Raises ObjectMissing."""
        with tempfile.TemporaryDirectory() as folder:
            self.download_many([(name, Path(folder) / "object")])
            return file_digest(Path(folder) / "object")

    def touch(self, name: str) -> bool:
        """Mark an object as used now; False if there is none."""
        return self._mark(name) is not None

    def scan(self, prefix: str) -> list[Stored]:
        """All objects below a prefix that ends in a slash with their states, sorted by name."""
        blobs = self._listed(prefix, "name,size,updated,metadata,generation,metageneration")
        skipped = len(self._full(prefix)) - len(prefix)
        return sorted((_stored(blob, blob.name[skipped:]) for blob in blobs), key=lambda one: one.name)

    def delete(self, seen: Stored) -> bool:
        """Delete an object that is still as it was seen; False where it was marked or written since."""
        generation, metageneration = seen.version
        with self._sentences(seen.name):
            try:
                self._blob(seen.name).delete(
                    if_generation_match=generation, if_metageneration_match=metageneration, **self._asking
                )
            except api.PreconditionFailed:
                return False
            except api.NotFound:  # also where the answer to the first try was lost
                return True
        return True

    def list(self, prefix: str) -> list[str]:
        """Sorted names of all objects below a prefix that ends in a slash."""
        skipped = len(self._full(check_prefix(prefix))) - len(prefix)
        return sorted(blob.name[skipped:] for blob in self._listed(prefix, "name"))

    def exists(self, name: str) -> bool:
        """Whether there is an object of this name."""
        with self._sentences(name):
            return bool(self._blob(name).exists(**self._asking))

    @cached_property
    def _client(self) -> storage.Client:
        return storage.Client()  # anonymous where STORAGE_EMULATOR_HOST is set

    def _full(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _blob(self, name: str) -> storage.Blob:
        full = self._full(check_name(name))
        return self._client.bucket(self._bucket_name).blob(full)

    def _listed(self, prefix: str, fields: str) -> Iterable[storage.Blob]:
        full = self._full(check_prefix(prefix))
        with self._sentences(prefix):
            blobs = self._client.list_blobs(
                self._bucket_name, prefix=full, fields=f"items({fields}),nextPageToken", **self._asking
            )
            yield from blobs

    def _mark(self, name: str) -> storage.Blob | None:
        """Note on an object that it is used now; its new state, or None if it is not there."""
        blob = self._blob(name)
        blob.metadata = {USED: datetime.now(UTC).isoformat()}
        with self._sentences(name):
            try:
                blob.patch(**self._asking)
            except api.NotFound:
                return None
        return blob

    def _holds(self, name: str, source: Path) -> bool:
        """Whether the object exists with the file's bytes, and is marked; ObjectExists if it has others."""
        blob = self._mark(name)
        if blob is None:
            return False
        if blob.size != source.stat().st_size or blob.crc32c != _crc32c(source):
            raise self._taken(name)
        return True

    def _raise(self, name: str, result: object) -> None:
        """Raise what the transfer manager hands back instead of raising it."""
        if isinstance(result, Exception):
            with self._sentences(name):
                raise result

    def _taken(self, name: str) -> ObjectExists:
        return ObjectExists(
            f"{self.url}/{name} already exists with other content and is never overwritten.", name
        )

    @contextmanager
    def _sentences(self, name: str) -> Iterator[None]:
        try:
            yield
        except api.NotFound as error:
            if self._bucket_missing():
                raise StoreError(f"There is no bucket {self._bucket_name!r}; create it first.") from error
            raise ObjectMissing(f"There is no {name} in {self.url}.", name) from error
        except DataCorruption as error:
            what = f"{self.url}/{name} was damaged in storage or on the way."
            raise ObjectDamaged(what, name) from error
        except (api.GoogleAPIError, auth.GoogleAuthError, OSError) as error:
            raise StoreError(self._sentence(name, error), name) from error

    def _sentence(self, name: str, error: Exception) -> str:
        place = f"{self.url}/{name}"
        if isinstance(error, api.Forbidden):
            return f"These credentials may not use {place}: grant them the role Storage Object User."
        if isinstance(error, auth.DefaultCredentialsError | auth.RefreshError | api.Unauthorized):
            return (
                f"No valid Google Cloud credentials for {self.url}: run "
                "`gcloud auth application-default login`, set GOOGLE_APPLICATION_CREDENTIALS, or attach a "
                "service account."
            )
        return f"{place} cannot be reached: {_first_line(error)}"

    def _bucket_missing(self) -> bool:
        # Listing needs no more than the rights that reading objects needs; asking for the bucket does.
        try:
            listing = self._client.list_blobs(self._bucket_name, max_results=1, **self._asking)
            next(iter(listing), None)
        except api.NotFound:
            return True
        except api.GoogleAPIError:
            return False
        return False


def _stored(blob: storage.Blob, name: str) -> Stored:
    mark = (blob.metadata or {}).get(USED)
    # The server's clock or the writer's: the later one keeps an object longer.
    used = max(blob.updated, datetime.fromisoformat(mark)) if mark else blob.updated
    return Stored(name, blob.size, used, (blob.generation, blob.metageneration))


def _content_type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def _crc32c(path: Path) -> str:
    """Base64 CRC32C of a file, as the server states it."""
    checksum = google_crc32c.Checksum()
    with path.open("rb") as stream:
        for _ in checksum.consume(stream, CHUNK_BYTES):
            pass
    return base64.b64encode(checksum.digest()).decode()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
