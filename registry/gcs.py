"""An object store in a Google Cloud Storage bucket, below an optional prefix."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import google_crc32c
import requests
from google.api_core import exceptions as api
from google.api_core.retry import Retry
from google.auth import exceptions as auth
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY

from car_model.digests import CHUNK_BYTES
from registry.errors import ObjectExists, ObjectMissing, StoreError
from registry.store import check_name, check_prefix

TIMEOUT_S = 60  # of one request; the retry has its own deadline
CHECKSUM = "crc32c"  # computed on both sides of every transfer


class GcsStore:
    """Objects in a bucket.

    Creation asks the server for generation 0, so that of several writers one wins. All requests are safe to
    retry and are retried with the library's back-off; a retried create that finds its own bytes has won.
    """

    def __init__(self, url: str, retry: Retry = DEFAULT_RETRY) -> None:
        bucket, _, prefix = url.removeprefix("gs://").partition("/")
        self._bucket_name, self._prefix = bucket, prefix.strip("/")
        self._retry = retry
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
            return self._blob(name).download_as_bytes(checksum=CHECKSUM, timeout=TIMEOUT_S, retry=self._retry)

    def create(self, name: str, data: bytes) -> None:
        """Write a new object. Raises ObjectExists if it holds other bytes."""
        with self._sentences(name):
            try:
                self._blob(name).upload_from_string(
                    data,
                    content_type=_content_type(name),
                    if_generation_match=0,
                    checksum=CHECKSUM,
                    timeout=TIMEOUT_S,
                    retry=self._retry,
                )
            except api.PreconditionFailed:
                if self.read(name) != data:
                    raise self._taken(name) from None

    def upload(self, name: str, source: Path) -> None:
        """Copy a local file to a new object. Raises ObjectExists like `create`."""
        with self._sentences(name):
            # Asked first, so that a re-run sends no bytes for a file that is already there.
            if self._holds(name, source):
                return
            try:
                self._blob(name).upload_from_filename(
                    str(source),
                    content_type=_content_type(name),
                    if_generation_match=0,
                    checksum=CHECKSUM,
                    timeout=TIMEOUT_S,
                    retry=self._retry,
                )
            except api.PreconditionFailed:
                if not self._holds(name, source):
                    raise

    def download(self, name: str, target: Path) -> None:
        """Copy an object into a local file. Raises ObjectMissing."""
        with self._sentences(name):
            self._blob(name).download_to_filename(
                str(target), checksum=CHECKSUM, timeout=TIMEOUT_S, retry=self._retry
            )

    def list(self, prefix: str) -> list[str]:
        """Sorted names of all objects below a prefix that ends in a slash."""
        full = self._full(check_prefix(prefix))
        with self._sentences(prefix):
            blobs = self._client.list_blobs(
                self._bucket_name,
                prefix=full,
                fields="items(name),nextPageToken",
                timeout=TIMEOUT_S,
                retry=self._retry,
            )
            return sorted(blob.name[len(full) - len(prefix) :] for blob in blobs)

    def exists(self, name: str) -> bool:
        """Whether there is an object of this name."""
        with self._sentences(name):
            return bool(self._blob(name).exists(timeout=TIMEOUT_S, retry=self._retry))

    @cached_property
    def _client(self) -> storage.Client:
        return storage.Client()  # anonymous where STORAGE_EMULATOR_HOST is set

    def _full(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _blob(self, name: str) -> storage.Blob:
        full = self._full(check_name(name))
        return self._client.bucket(self._bucket_name).blob(full)

    def _holds(self, name: str, source: Path) -> bool:
        """Whether the object exists with the file's bytes; ObjectExists if it has others."""
        full = self._full(check_name(name))
        bucket = self._client.bucket(self._bucket_name)
        blob = bucket.get_blob(full, timeout=TIMEOUT_S, retry=self._retry)
        if blob is None:
            return False
        if blob.size != source.stat().st_size or blob.crc32c != _crc32c(source):
            raise self._taken(name)
        return True

    def _taken(self, name: str) -> ObjectExists:
        return ObjectExists(f"{self.url}/{name} already exists with other content and is never overwritten.")

    @contextmanager
    def _sentences(self, name: str) -> Iterator[None]:
        try:
            yield
        except api.NotFound as error:
            if self._bucket_missing():
                raise StoreError(f"There is no bucket {self._bucket_name!r}; create it first.") from error
            raise ObjectMissing(f"There is no {name} in {self.url}.") from error
        except api.Forbidden as error:
            raise StoreError(
                f"These credentials may not use {self.url}/{name}: grant them the role Storage Object User."
            ) from error
        except (auth.DefaultCredentialsError, auth.RefreshError, api.Unauthorized) as error:
            raise StoreError(
                f"No valid Google Cloud credentials for {self.url}: run "
                "`gcloud auth application-default login`, set GOOGLE_APPLICATION_CREDENTIALS, or attach a "
                "service account."
            ) from error
        except DataCorruption as error:
            raise StoreError(f"{self.url}/{name} was damaged in storage or on the way.") from error
        except (api.GoogleAPIError, auth.GoogleAuthError, requests.RequestException, OSError) as error:
            raise StoreError(f"{self.url}/{name} cannot be reached: {_first_line(error)}") from error

    def _bucket_missing(self) -> bool:
        # Listing needs no more than the rights that reading objects needs; asking for the bucket does.
        try:
            listing = self._client.list_blobs(
                self._bucket_name, max_results=1, timeout=TIMEOUT_S, retry=self._retry
            )
            next(iter(listing), None)
        except api.NotFound:
            return True
        except api.GoogleAPIError:
            return False
        return False


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
