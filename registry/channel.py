"""Channels (`staging`, `production`): which release is in use, since when and why."""

from __future__ import annotations

from collections.abc import Sequence

from registry.errors import ChannelError, ReleaseError
from registry.layout import CHANNELS
from registry.log import NAME, Action, Entry, Move, read_log
from registry.manifest import Gate
from registry.release import find_release, load_manifest, mark_release, read_manifest
from registry.store import ObjectStore


def head(store: ObjectStore, channel: str) -> Entry | None:
    """The channel's last entry, or None for a channel that was never moved. Raises ChannelError."""
    return read_log(store, channel, last=2).head


def history(store: ObjectStore, channel: str) -> list[Entry]:
    """All entries, oldest first, after checking that none is missing or was changed. Raises ChannelError."""
    return list(read_log(store, channel).entries)


def find(store: ObjectStore, text: str) -> str:
    """Full digest of the release that a channel uses, or that a digest's first characters stand for.

    Raises:
        ReleaseError: neither a channel that was ever moved nor the beginning of one release.
        ChannelError: the channel's log is damaged.
    """
    entry = head(store, text) if NAME.fullmatch(text) else None
    return entry.release if entry else find_release(store, text)


def list_channels(store: ObjectStore) -> list[str]:
    """Names of the channels that were ever moved."""
    return sorted({name.split("/")[1] for name in store.list(CHANNELS)})


def promote(
    store: ObjectStore,
    channel: str,
    release: str,
    *,
    who: str,
    why: str,
    expected: int | None = None,
    force: bool = False,
) -> Entry:
    """Put a release (full digest) in use; return the entry. Promoting the release in use changes nothing.

    Args:
        who: person or pipeline that moves the channel.
        why: the reason, for the audit trail.
        expected: number of the entry that the release was gated against (0: the channel was empty). If the
            channel has moved since, nothing happens and ConflictError says who moved it. None: any.
        force: promote a release that the gate did not bless; recorded as such.

    Raises:
        ReleaseError: the release is not in the registry, or is not blessed and not forced.
        ConflictError: somebody else moved the channel first.
        ChannelError: the log is damaged, or `who` or `why` is empty.
    """
    log = read_log(store, channel, last=2)
    mark_release(store, release)  # a collection that saw it unused lets it be
    manifest, sha256 = load_manifest(store, release)
    if log.head and log.head.release == release:
        return log.head
    log.expect(expected)
    if not manifest.gate.blessed and not force:
        raise ReleaseError(_not_blessed(release, manifest.gate))
    action: Action = "promote" if manifest.gate.blessed else "force"
    return log.append(Move(action, release, sha256, who, why))


def rollback(
    store: ObjectStore,
    channel: str,
    *,
    who: str,
    why: str,
    to: str | None = None,
    expected: int | None = None,
) -> Entry:
    """Put an earlier release back in use, as a new entry.

    Args:
        to: full digest of a release this channel had in use before. None: the one in use before the current
            one was promoted; releases that were themselves rolled back are passed over, so that two rollbacks
            go back two releases instead of returning to the bad one.
        who, why, expected: as for `promote`.

    Raises:
        ChannelError: there is nothing to go back to, or the channel never had `to`.
        ReleaseError: the release is no longer in the registry, or its manifest was changed since.
        ConflictError: somebody else moved the channel first.
    """
    log = read_log(store, channel)
    if log.head is None:
        raise ChannelError(f"The channel {channel} is empty: there is nothing to roll back.")
    if to == log.head.release:
        return log.head
    log.expect(expected)
    target = to or _release_before(channel, log.entries)
    known = next((entry for entry in reversed(log.entries) if entry.release == target), None)
    if known is None:
        raise ChannelError(f"The channel {channel} never had release {target[:12]}; promote it instead.")
    mark_release(store, target)
    read_manifest(store, target, known.manifest_sha256)
    return log.append(Move("rollback", target, known.manifest_sha256, who, why))


def _release_before(channel: str, entries: Sequence[Entry]) -> str:
    """The release below the current one, with every rollback taken as undoing what it went back over."""
    stack: list[str] = []
    for entry in entries:
        if entry.action == "rollback" and entry.release in stack:
            while stack[-1] != entry.release:
                stack.pop()
        else:
            stack.append(entry.release)
    if len(stack) < 2:
        raise ChannelError(f"The channel {channel} has no release before {stack[-1][:12]} to roll back to.")
    return stack[-2]


def _not_blessed(release: str, gate: Gate) -> str:
    reason = f", it was written by force ({gate.forced})" if gate.forced else ""
    return (
        f"The gate did not bless release {release[:12]}{reason}; failing: {'; '.join(gate.failing)}. "
        "Promote a blessed one, or force it with a reason."
    )
