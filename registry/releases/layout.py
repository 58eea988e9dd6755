"""Object names in a registry: where blobs, manifests, validations and channel entries are stored."""

from __future__ import annotations

import re

BLOBS = "blobs/"
RELEASES = "releases/"
CHANNELS = "channels/"

STAGING = "staging"
PRODUCTION = "production"  # takes only releases that were in staging before

CHANNEL_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
# Anything else below the three folders is a stray: a desktop's or an editor's file, never read or deleted.
_OBJECT = re.compile(
    r"blobs/([0-9a-f]{2})/\1[0-9a-f]{62}"
    r"|releases/[0-9a-f]{64}/(manifest|(validations|verdicts)/[0-9a-f]{64})\.json"
    rf"|channels/{CHANNEL_NAME.pattern}/[0-9]{{8,}}\.json"
)


def is_object(name: str) -> bool:
    """Whether a name is one that a registry gives to its objects."""
    return _OBJECT.fullmatch(name) is not None


def blob_name(sha256: str) -> str:
    """Object name of a file's bytes; all releases that hold the file share it."""
    return f"{BLOBS}{sha256[:2]}/{sha256}"


def manifest_name(release: str) -> str:
    """Object name of a release's manifest."""
    return f"{RELEASES}{release}/manifest.json"


def validations_folder(release: str) -> str:
    """Listing prefix of the validations that a release got after it was written."""
    return f"{RELEASES}{release}/validations/"


def validation_name(release: str, sha256: str) -> str:
    """Object name of a validation, by the digest of its bytes."""
    return f"{validations_folder(release)}{sha256}.json"


def verdicts_folder(release: str) -> str:
    """Listing prefix of the verdicts that a release got after it was written."""
    return f"{RELEASES}{release}/verdicts/"


def verdict_name(release: str, sha256: str) -> str:
    """Object name of a later verdict, by the digest of its bytes."""
    return f"{verdicts_folder(release)}{sha256}.json"


def manifest_of(name: str) -> str:
    """Name of the manifest that an object below RELEASES belongs to; for a manifest, its own name."""
    return manifest_name(name.split("/")[1])


def is_manifest(name: str) -> bool:
    """Whether an object below RELEASES is a manifest."""
    return is_object(name) and name == manifest_of(name)


def is_validation(name: str) -> bool:
    """Whether an object below RELEASES is a validation."""
    return is_object(name) and name.startswith(validations_folder(name.split("/")[1]))


def is_verdict(name: str) -> bool:
    """Whether an object below RELEASES is a later verdict."""
    return is_object(name) and name.startswith(verdicts_folder(name.split("/")[1]))


def is_later(name: str) -> bool:
    """Whether an object below RELEASES was added to a release after it was written."""
    return is_validation(name) or is_verdict(name)


def channel_folder(channel: str) -> str:
    """Listing prefix of a channel's log."""
    return f"{CHANNELS}{channel}/"


def entry_name(channel: str, number: int) -> str:
    """Object name of a channel's entry."""
    return f"{channel_folder(channel)}{number:08d}.json"
