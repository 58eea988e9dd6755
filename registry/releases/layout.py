"""Where things lie in a registry: object names, and nothing else."""

from __future__ import annotations

BLOBS = "blobs/"
RELEASES = "releases/"
CHANNELS = "channels/"

STAGING = "staging"
PRODUCTION = "production"  # takes only what was in staging


def blob_name(sha256: str) -> str:
    """Object name of a file's bytes, whichever releases they belong to."""
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


def owner(name: str) -> str:
    """Name of the manifest that an object among the releases belongs to; a manifest is its own."""
    return manifest_name(name.split("/")[1])


def is_validation(name: str) -> bool:
    """Whether an object among the releases is a validation."""
    return name.startswith(validations_folder(name.split("/")[1]))


def channel_folder(channel: str) -> str:
    """Listing prefix of a channel's log."""
    return f"{CHANNELS}{channel}/"


def entry_name(channel: str, number: int) -> str:
    """Object name of a channel's entry."""
    return f"{channel_folder(channel)}{number:08d}.json"
