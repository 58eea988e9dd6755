"""gs:// sources: identify an object, and download it into a folder that is named by its content."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY

from common.files import atomic_path
from common.patience import network_patience
from ingestion.config import IngestError

RETRY = DEFAULT_RETRY.with_timeout(network_patience())


def is_gcs(location: str) -> bool:
    """Whether a location is an object in Google Cloud Storage (or in what STORAGE_EMULATOR_HOST names)."""
    return location.startswith("gs://")


def identity(location: str) -> str:
    """Identify an object's content without downloading it: by MD5, or CRC32C and generation if it has none.

    Raises:
        IngestError: the object, or the right to read it, is missing.
    """
    with _sentences(location):
        return _identity(_blob(location))


def download(location: str, folder: Path) -> Path:
    """Download an object into `folder`, unless this content is there already; checksums are verified.

    Raises:
        IngestError: the object, or the right to read it, is missing, or the download is damaged.
    """
    with _sentences(location):
        blob = _blob(location)
        target = folder / _identity(blob).replace("/", "_").replace(":", "-") / Path(blob.name).name
        if not target.is_file():
            with atomic_path(target) as temporary:
                blob.download_to_filename(
                    str(temporary), checksum="crc32c", if_generation_match=blob.generation, retry=RETRY
                )
        return target


def _blob(location: str) -> storage.Blob:
    bucket, _, name = location.removeprefix("gs://").partition("/")
    if not bucket or not name:
        raise IngestError(f"{location} names no object; write gs://bucket/path/to/file.")
    emulated = {"project": "emulator", "credentials": AnonymousCredentials()}
    client = storage.Client(**(emulated if os.environ.get("STORAGE_EMULATOR_HOST") else {}))
    blob = client.bucket(bucket).get_blob(name, retry=RETRY)
    if blob is None:
        raise IngestError(f"{location} does not exist; check the bucket and the path.")
    return blob


def _identity(blob: storage.Blob) -> str:
    return f"md5:{blob.md5_hash}" if blob.md5_hash else f"crc32c:{blob.crc32c}:{blob.generation}"


@contextmanager
def _sentences(location: str) -> Iterator[None]:
    """Turn the errors of Google's libraries into sentences."""
    try:
        yield
    except auth.DefaultCredentialsError as error:
        raise IngestError(
            f"{location} needs Google credentials: run 'gcloud auth application-default login', "
            "or set GOOGLE_APPLICATION_CREDENTIALS."
        ) from error
    except (api.Forbidden, api.Unauthorized) as error:
        raise IngestError(f"{location} may not be read with these credentials: {error.message}") from error
    except DataCorruption as error:
        raise IngestError(f"{location} arrived damaged (checksum differs); run again.") from error
    except (api.GoogleAPIError, auth.GoogleAuthError, requests.RequestException) as error:
        raise IngestError(f"{location} cannot be fetched: {error}") from error
