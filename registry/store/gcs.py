"""An object store in a Google Cloud Storage bucket, below an optional prefix."""

from __future__ import annotations

import base64
import io
import mimetypes
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

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
from common.patience import network_patience
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

TIMEOUT_S = 60.0  # of one request; the retry has its own deadline
LEAST_PATIENCE_S = 120.0  # for which a request is repeated; a release is worth more than a source
CHECKSUM = "crc32c"  # computed on both sides of every transfer
MARK = "mark"  # metadata key; writing it changes the object's metageneration and the server's time of update
CLOCK = "clock"  # an object that is marked to ask the server for its time


class _Document(io.BytesIO):
    """A buffer that takes no more than a document may have."""

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > MAX_READ_BYTES:
            raise OverflowError
        return super().write(data)


class GcsStore(ObjectStore):
    """Objects in a bucket.

    Creation asks the server for generation 0, so that only one of several writers succeeds. All requests are
    safe to retry, with the library's back-off. A retried create that finds its own bytes has succeeded.
    """

    def __init__(
        self, url: str, retry: Retry | None = None, timeout: float = TIMEOUT_S, workers: int = WORKERS
    ) -> None:
        retry = retry or DEFAULT_RETRY.with_timeout(max(LEAST_PATIENCE_S, network_patience()))
        self._bucket, _, prefix = url.removeprefix("gs://").partition("/")
        self._prefix = prefix.strip("/")
        self._request_options: dict[str, Any] = {"timeout": timeout, "retry": retry}
        if not self._bucket:
            raise StoreError(f"The registry {url!r} names no bucket; write gs://bucket/prefix.")
        if self._prefix:
            check_name(self._prefix)
        super().__init__(f"gs://{self._bucket}/{self._prefix}".rstrip("/"), workers)

    def read(self, name: str) -> bytes:
        document = _Document()
        with self._store_errors(name):
            try:
                self._blob(name).download_to_file(document, checksum=CHECKSUM, **self._request_options)
            except OverflowError as error:
                raise self._too_large(name) from error
        return document.getvalue()

    def upload_many(self, files: Mapping[str, Path]) -> None:
        # Existing objects are marked first, so that no bytes are sent for them.
        marked = in_parallel(self._mark_if_equal, files.items(), self.workers)
        new = [item for item, exists in zip(files.items(), marked, strict=True) if not exists]
        results = transfer_manager.upload_many(
            [(str(source), self._blob(name)) for name, source in new],
            upload_kwargs={"if_generation_match": 0, "checksum": CHECKSUM, **self._request_options},
            worker_type=transfer_manager.THREAD,
            max_workers=self.workers,
        )
        for (name, source), result in zip(new, results, strict=True):
            # A retry after a lost answer, or another writer with the same bytes.
            if isinstance(result, api.PreconditionFailed) and self._mark_if_equal(name, source):
                continue
            if isinstance(result, Exception):  # the transfer manager returns errors instead of raising them
                with self._store_errors(name):
                    raise result

    def download_many(self, targets: Sequence[tuple[str, Path]]) -> None:
        results = transfer_manager.download_many(
            [(self._blob(name), str(target)) for name, target in targets],
            download_kwargs={"checksum": CHECKSUM, **self._request_options},
            worker_type=transfer_manager.THREAD,
            max_workers=self.workers,
        )
        for (name, target), result in zip(targets, results, strict=True):
            if isinstance(result, OSError) and result.errno in DISK_FULL:
                raise StoreError(disk_full_message(target, result), name) from result
            if isinstance(result, Exception):
                with self._store_errors(name):
                    raise result

    def sha256(self, name: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            self.download_many([(name, Path(folder) / "object")])
            return file_digest(Path(folder) / "object")

    def refresh_mark(self, name: str) -> bool:
        return self._mark(name) is not None

    def scan(self, prefix: str) -> list[ObjectState]:
        full = self._full_name(check_prefix(prefix))
        fields = "items(name,size,updated,generation,metageneration),nextPageToken"
        states = []
        with self._store_errors(prefix):
            for blob in self._client.list_blobs(
                self._bucket, prefix=full, fields=fields, **self._request_options
            ):
                name = blob.name[len(full) - len(prefix) :]
                version = (blob.generation, blob.metageneration)
                states.append(ObjectState(name, blob.size, blob.updated, version))
        return sorted(states, key=lambda state: state.name)

    def delete(self, state: ObjectState) -> bool:
        generation, metageneration = state.version
        with self._store_errors(state.name):
            try:
                self._blob(state.name).delete(
                    if_generation_match=generation,
                    if_metageneration_match=metageneration,
                    **self._request_options,
                )
            except api.PreconditionFailed:
                return False
            except api.NotFound:  # or the answer to the first try was lost
                return True
        return True

    def now(self) -> datetime:
        if not self.refresh_mark(CLOCK):
            self._create(CLOCK, b"")
        clock = self._mark(CLOCK)
        if clock is None or clock.updated is None:
            raise StoreError(f"{self.url}/{CLOCK} does not say what time it is on the server.", CLOCK)
        return clock.updated

    def exists(self, name: str) -> bool:
        with self._store_errors(name):
            return bool(self._blob(name).exists(**self._request_options))

    def _create(self, name: str, data: bytes) -> bool:
        content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        with self._store_errors(name):
            try:
                self._blob(name).upload_from_string(
                    data, content_type, if_generation_match=0, checksum=CHECKSUM, **self._request_options
                )
            except api.PreconditionFailed:
                return False
        return True

    @cached_property
    def _client(self) -> storage.Client:
        return storage.Client()  # anonymous if STORAGE_EMULATOR_HOST is set

    def _full_name(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _blob(self, name: str) -> storage.Blob:
        full = self._full_name(check_name(name))  # before the client asks for credentials
        return self._client.bucket(self._bucket).blob(full)

    def _mark(self, name: str) -> storage.Blob | None:
        """Mark an object as used now and return its new state; None if it is missing."""
        blob = self._blob(name)
        blob.metadata = {MARK: uuid4().hex}
        with self._store_errors(name):
            try:
                blob.patch(**self._request_options)
            except api.NotFound:
                return None
        return blob

    def _mark_if_equal(self, name: str, source: Path) -> bool:
        """Mark an object that has the file's bytes; False if it is missing, ObjectExists if it differs."""
        blob = self._mark(name)
        if blob is None:
            return False
        checksum = google_crc32c.Checksum()
        with source.open("rb") as stream:
            for _ in checksum.consume(stream, CHUNK_BYTES):
                pass
        crc32c = base64.b64encode(checksum.digest()).decode()  # as the server reports it
        if blob.size != source.stat().st_size or blob.crc32c != crc32c:
            raise self._name_conflict(name)
        return True

    def _store_error(self, name: str, error: Exception) -> StoreError | None:
        if isinstance(error, api.NotFound):
            # Listing needs only the rights that reading objects needs; getting the bucket itself needs more.
            objects = self._client.list_blobs(self._bucket, max_results=1, **self._request_options)
            try:
                next(iter(objects), None)
            except api.NotFound:
                return StoreError(f"There is no bucket {self._bucket!r}; create it first.")
            except api.GoogleAPIError:
                pass
            return ObjectMissing(f"There is no {name} in {self.url}.", name)
        address = f"{self.url}/{name}"
        if isinstance(error, DataCorruption):
            return ObjectDamaged(f"{address} was damaged in storage or on the way.", name)
        if isinstance(error, api.Forbidden):
            sentence = f"These credentials may not use {address}: grant them the role Storage Object User."
        elif isinstance(error, auth.DefaultCredentialsError | auth.RefreshError | api.Unauthorized):
            sentence = (
                f"No valid Google Cloud credentials for {self.url}: run "
                "`gcloud auth application-default login`, set GOOGLE_APPLICATION_CREDENTIALS, or attach a "
                "service account."
            )
        elif isinstance(error, api.GoogleAPIError | auth.GoogleAuthError | OSError):
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            sentence = f"{address} cannot be reached: {first_line[:200]}"
        else:
            return None
        return StoreError(sentence, name)
