"""Channels (`staging`, `production`): which release is in use, since when and why."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from contextlib import suppress

from car_model.evidence.verdict import ForcedPromotion
from registry.channels.log import Action, Entry, check_note, read_log
from registry.errors import ChannelError, ConflictError, ReleaseError
from registry.releases.gate import read_gate
from registry.releases.layout import CHANNEL_NAME, CHANNELS, PRODUCTION, STAGING, is_object
from registry.releases.manifest import Manifest
from registry.releases.release import find_release, load_manifest, mark_in_use, read_manifest
from registry.store.base import ObjectStore

RECENT = 16  # entries
NEAR = 0.6  # similarity of names from which one is meant for the other


def head(store: ObjectStore, channel: str) -> Entry | None:
    """The channel's last entry, or None for an empty channel. Raises ChannelError."""
    return read_log(store, channel, last=2).head


def history(store: ObjectStore, channel: str) -> list[Entry]:
    """All entries, oldest first. Raises ChannelError if one is missing or was changed."""
    return list(read_log(store, channel).entries)


def find(store: ObjectStore, text: str) -> str:
    """Full digest of the release that a channel uses, or whose digest starts with `text`.

    Raises:
        ReleaseError: there is neither such a channel nor exactly one such release.
        ChannelError: the channel's log is damaged.
    """
    entry = head(store, text) if CHANNEL_NAME.fullmatch(text) else None
    return entry.release if entry else find_release(store, text)


def list_channels(store: ObjectStore) -> list[str]:
    """Names of all channels, sorted."""
    return sorted({name.split("/")[1] for name in store.list(CHANNELS) if is_object(name)})


def require_channel(store: ObjectStore, channel: str, *, new: bool = False) -> None:
    """Raise a ChannelError unless the channel is there, or is meant to be `new`.

    Production and staging are there in every registry, if only empty. Near names are in the message.
    """
    if not CHANNEL_NAME.fullmatch(channel):
        raise ChannelError(f"{channel!r} cannot name a channel: use lower-case letters, digits and '-'.")
    if not new and channel not in (names := sorted({PRODUCTION, STAGING, *list_channels(store)})):
        near = difflib.get_close_matches(channel, names, cutoff=NEAR)
        choice = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(names)}."
        raise ChannelError(
            f"There is no channel {channel!r} in {store.url}. {choice} A new one is made with --new-channel."
        )


def channels_by_release(store: ObjectStore, problems: list[str]) -> dict[str, list[str]]:
    """Names of the channels that use a release, by the release's full digest.

    Damaged channels are left out, with a sentence each in `problems`.
    """
    channels: dict[str, list[str]] = {}
    for name in list_channels(store):
        try:
            entry = head(store, name)
        except ChannelError as error:
            problems.append(str(error))
            continue
        if entry:
            channels.setdefault(entry.release, []).append(name)
    return channels


def promote(
    store: ObjectStore,
    channel: str,
    release: str,
    *,
    who: str,
    why: str,
    expected: int | None = None,
    force: bool = False,
    prepare: Callable[[], object] | None = None,
) -> Entry:
    """Put a release (full digest) in use and return the entry; nothing changes if it is in use already.

    The stored verdict must bless this very bundle, and have compared it with a champion if the channel has
    one (staging is for looking, and takes any blessed release). Production takes only releases that were in
    staging before, with the manifest that they have now.

    Args:
        who, why: the person or pipeline that moves the channel, and the reason, for the audit trail.
        expected: number of the entry that the release was gated against (0: the channel was empty). If the
            channel was moved since, nothing happens and ConflictError names who moved it. None: any.
        force: promote although one of these rules forbids it; recorded as such.
        prepare: called once the rules allow the move, before it happens; an error that it raises prevents it.

    Raises:
        ReleaseError: the release is not in the registry, or not blessed or not staged and not forced.
        ConflictError: somebody else moved the channel first.
        ChannelError: the log is damaged, or `who` or `why` is empty.
    """
    if force and not why.strip():
        raise ChannelError(f"Forcing a release into {channel} needs a reason, for its history.")
    log = read_log(store, channel, last=2)
    mark_in_use(store, release)  # so that a concurrent garbage collection keeps it
    manifest, sha256 = load_manifest(store, release)
    current = log.head.release if log.head else None
    if log.head and current == release and log.head.manifest_sha256 == sha256:
        return log.head
    log.expect(expected)
    gate, objection = read_gate(store, manifest), ""
    if not gate.blessed:
        reason = f", it was written by force ({manifest.forced})" if manifest.forced else ""
        objection = (
            f"The gate did not bless release {release[:12]}{reason}; failing: {'; '.join(gate.failing)}. "
            "Promote a blessed one, or force it with a reason."
        )
    elif channel != STAGING and current and not gate.compared and not _follows(store, manifest, current):
        objection = (
            f"Release {release[:12]} was blessed as a first release, and never compared with {current[:12]}, "
            f"which {channel} uses: let the pipeline compare them, roll back to it if {channel} had it, or "
            "force it with a reason."
        )
    elif channel == PRODUCTION and _staging_entry(store, release, sha256) is None:
        objection = (
            f"Release {release[:12]} was never in {STAGING} with the manifest that it has now, as "
            f"{PRODUCTION} requires: look at it and promote it to {STAGING} first, or force it with a reason."
        )
    if objection and not force:
        raise ReleaseError(objection)
    if prepare:
        check_note(channel, who, why)
        prepare()
    action: Action = "force" if objection else "promote"
    return log.append(action, release, sha256, who=who, why=why)


def stage(store: ObjectStore, release: str, *, who: str, why: str) -> Entry:
    """Put a release into staging unless it was there before, with the same manifest; return its entry.

    Others who move staging at the same time are no conflict: production asks only whether it was there.

    Raises:
        ReleaseError, ChannelError: as for `promote`.
    """
    while True:
        last = head(store, STAGING)
        if entry := _staging_entry(store, release, load_manifest(store, release)[1]):
            return entry
        # The loop ends: in every conflict another writer succeeded.
        with suppress(ConflictError):
            expected = last.number if last else 0
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

    Works like undo: once returns to the previous release, twice to the one before.

    Args:
        who, why, expected: as for `promote`.
        to: full digest of a release that this channel used before; None: undo the last promotion that is not
            undone yet.

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
    target = to
    if target is None:
        stack: list[str] = []  # promoted releases that are not undone
        for entry in log.entries:
            if entry.action == "rollback" and entry.release in stack:
                while stack[-1] != entry.release:
                    stack.pop()
            elif stack[-1:] != [entry.release]:  # promoted again after its manifest changed
                stack.append(entry.release)
        if len(stack) < 2:
            raise ChannelError(
                f"The channel {channel} has no release before {stack[-1][:12]} to roll back to."
            )
        target = stack[-2]
    promotion = next((entry for entry in reversed(log.entries) if entry.release == target), None)
    if promotion is None:
        raise ChannelError(f"The channel {channel} never had release {target[:12]}; promote it instead.")
    mark_in_use(store, target)
    read_manifest(store, target, promotion.manifest_sha256)
    return log.append("rollback", target, promotion.manifest_sha256, who=who, why=why)


def forced_promotions(
    store: ObjectStore, channel: str, entry: Entry, last: int = RECENT
) -> list[ForcedPromotion]:
    """Forced promotions, newest first: the one of the release in use, and any among the last entries.

    Args:
        entry: the channel's last entry as the caller read it; later entries are left out.
        last: how many entries up to it are looked at. If `entry` is a rollback the whole log is, because the
            release may have been forced long ago.

    Raises ChannelError if the log is damaged.
    """
    n_entries = None if entry.action == "rollback" else last + 1  # one more: the channel may have moved since
    entries = [item for item in read_log(store, channel, n_entries).entries if item.number <= entry.number]
    entries.reverse()
    origin = next((e for e in entries if e.release == entry.release and e.action != "rollback"), None)
    promotions = []
    for item in entries:
        if item.action != "force" or (item != origin and item.number <= entry.number - last):
            continue
        try:
            failing = read_gate(store, read_manifest(store, item.release)).failing
        except ReleaseError:  # deleted or written anew since; the log still says who and why
            failing = ()
        fields = item.model_dump(include={"number", "release", "who", "why"})
        in_use = item == origin
        promotions.append(ForcedPromotion(**fields, when=item.when, in_use=in_use, failing=failing))
    return promotions


def _follows(store: ObjectStore, manifest: Manifest, ancestor: str) -> bool:
    """Whether a release was made from another, step by step."""
    seen: set[str] = set()  # an edited manifest may name its own child
    parent = manifest.parent
    while parent and parent != ancestor and parent not in seen:
        seen.add(parent)
        try:
            parent = read_manifest(store, parent).parent
        except ReleaseError:  # collected since
            return False
    return parent == ancestor


def _staging_entry(store: ObjectStore, release: str, manifest_sha256: str) -> Entry | None:
    """The last entry that put a release into staging with this manifest."""
    for last in (RECENT, None):  # it is nearly always among the last entries
        for entry in reversed(read_log(store, STAGING, last=last).entries):
            if (entry.release, entry.manifest_sha256) == (release, manifest_sha256):
                return entry
    return None
