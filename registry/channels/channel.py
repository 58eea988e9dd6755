"""Channels (`staging`, `production`): which release is in use, since when and why."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from registry.channels.log import NAME, Action, Entry, Move, read_log
from registry.errors import ChannelError, ConflictError, ReleaseError
from registry.releases.layout import CHANNELS, PRODUCTION, STAGING
from registry.releases.manifest import Gate, Manifest
from registry.releases.release import find_release, load_manifest, mark_release, read_manifest
from registry.store.base import ObjectStore

RECENT = 16  # entries


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

    Production takes only what was in staging before.

    Args:
        who: person or pipeline that moves the channel.
        why: the reason, for the audit trail.
        expected: number of the entry that the release was gated against (0: the channel was empty). If the
            channel has moved since, nothing happens and ConflictError says who moved it. None: any.
        force: promote a release that the gate did not bless or that was never staged; recorded as such.

    Raises:
        ReleaseError: the release is not in the registry, or not blessed or not staged and not forced.
        ConflictError: somebody else moved the channel first.
        ChannelError: the log is damaged, or `who` or `why` is empty.
    """
    if force and not why.strip():
        raise ChannelError(f"Forcing a release into {channel} needs a reason, for its history.")
    log = read_log(store, channel, last=2)
    mark_release(store, release)  # a collection that saw it unused lets it be
    manifest, sha256 = load_manifest(store, release)
    if log.head and log.head.release == release:
        return log.head
    log.expect(expected)
    objection = _objection(store, channel, manifest)
    if objection and not force:
        raise ReleaseError(objection)
    action: Action = "force" if objection else "promote"
    return log.append(Move(action, release, sha256, who, why))


def stage(store: ObjectStore, release: str, *, who: str, why: str) -> Entry:
    """Put a release into staging unless it was there before; return its entry.

    Others who move staging at the same time are no conflict: production asks only whether it was there.

    Raises:
        ReleaseError, ChannelError: as for `promote`.
    """
    while True:
        before = head(store, STAGING)
        if known := _staged(store, release):
            return known
        # Where somebody else was faster, that one got through: this ends.
        with suppress(ConflictError):
            expected = before.number if before else 0
            return promote(store, STAGING, release, who=who, why=why, expected=expected)


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


def _staged(store: ObjectStore, release: str) -> Entry | None:
    """The last entry that put a release into staging."""
    for last in (RECENT, None):  # it is nearly always among the last ones
        entries = read_log(store, STAGING, last=last).entries
        if found := next((entry for entry in reversed(entries) if entry.release == release), None):
            return found
    return None


def _objection(store: ObjectStore, channel: str, manifest: Manifest) -> str:
    """Why a channel should not take a release; "" where nothing speaks against it."""
    if not manifest.gate.blessed:
        return _not_blessed(manifest.release, manifest.gate)
    if channel == PRODUCTION and _staged(store, manifest.release) is None:
        return (
            f"Release {manifest.release[:12]} was never in {STAGING}, which {PRODUCTION} asks for: "
            "promote it there first, or force it with a reason."
        )
    return ""


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


def forced_promotions(
    store: ObjectStore, channel: str, entry: Entry, last: int = RECENT
) -> list[dict[str, Any]]:
    """Forced promotions, newest first: the one that put the release in use, and any among the last entries.

    Args:
        entry: the channel's last entry as the caller read it; entries after it are left out.
        last: how many entries up to it are looked at. For a release that a rollback put back, all are: it may
            have come by force long ago.

    Returns:
        Of each, plain JSON values: `number`, `release`, `who`, `when`, `why`, `in_use` (whether it brought
        the release that `entry` names), and `failing`: what the gate had against it (empty where it had
        nothing, so that the release was merely never staged, or where the manifest is gone).

    Raises:
        ChannelError: the log is damaged.
    """
    far = None if entry.action == "rollback" else last + 1  # one more: somebody may have moved it since
    until = [one for one in read_log(store, channel, far).entries[::-1] if one.number <= entry.number]
    came = (one for one in until if one.release == entry.release and one.action != "rollback")
    brought = next(came, None)
    return [
        {**_told(one), "in_use": one == brought, "failing": _failing(store, one)}
        for one in until
        if one.action == "force" and (one == brought or one.number > entry.number - last)
    ]


def _told(entry: Entry) -> dict[str, Any]:
    return entry.model_dump(mode="json", include={"number", "release", "who", "when", "why"})


def _failing(store: ObjectStore, entry: Entry) -> list[str]:
    try:
        return list(read_manifest(store, entry.release).gate.failing)
    except ReleaseError:  # collected since, or written anew: who and why are in the log all the same
        return []
