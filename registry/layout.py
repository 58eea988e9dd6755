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


def channel_folder(channel: str) -> str:
    """Listing prefix of a channel's log."""
    return f"{CHANNELS}{channel}/"


def entry_name(channel: str, number: int) -> str:
    """Object name of a channel's entry."""
    return f"{channel_folder(channel)}{number:08d}.json"
