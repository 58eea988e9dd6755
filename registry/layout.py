"""Where things lie in a registry: object names, and nothing else."""

from __future__ import annotations

from registry.manifest import FileRecord

RELEASES = "releases/"
CHANNELS = "channels/"


def manifest_name(release: str) -> str:
    """Object name of a release's manifest."""
    return f"{RELEASES}{release}/manifest.json"


def file_name(release: str, path: str) -> str:
    """Object name of a file of a release's bundle."""
    return f"{RELEASES}{release}/files/{path}"


def evidence_name(release: str, name: str, stored: FileRecord) -> str:
    """Object name of an evidence file.

    It holds the file's own digest, because evidence (times, latency) differs between runs of equal content:
    what an interrupted run left behind never stands in the next run's way.
    """
    return f"{RELEASES}{release}/evidence/{stored.sha256[:16]}/{name}"


def channel_folder(channel: str) -> str:
    """Listing prefix of a channel's log."""
    return f"{CHANNELS}{channel}/"


def entry_name(channel: str, number: int) -> str:
    """Object name of a channel's entry."""
    return f"{channel_folder(channel)}{number:08d}.json"
