"""A channel's append-only log: every read checks that entries are linked; only one of two writers succeeds.

Entry n is the object `channels/<name>/<n>.json`, created only if it does not exist. Every entry holds the
digest of the entry before it, so that a changed or missing entry is noticed.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Literal

from pydantic import Field

from common.errors import shorten
from registry.errors import ChannelError, ConflictError, ObjectDamaged, ObjectExists, ObjectMissing
from registry.releases.layout import CHANNEL_NAME, channel_folder, entry_name, is_object
from registry.releases.manifest import Digest, Document, NonEmpty, UtcTime
from registry.store.base import ObjectStore, in_parallel

MAX_TEXT = 2000  # characters of a name or a reason
Action = Literal["promote", "rollback", "force"]


class Entry(Document):
    """One move of a channel to a release."""

    number: int = Field(ge=1)
    """Number of the entry, from 1."""
    action: Action
    """How the channel moved."""
    release: Digest
    """The release in use from this entry on."""
    manifest_sha256: Digest
    """Digest of the release's manifest."""
    previous: Digest | None
    """The release in use before."""
    who: NonEmpty
    """Who moved the channel."""
    when: UtcTime
    """When it moved, in UTC."""
    why: NonEmpty
    """The reason."""
    after: Digest | None
    """SHA-256 of the entry before this one; null for the first."""
    nonce: NonEmpty
    """Distinguishes two writers who write the same at the same time."""


@dataclass(frozen=True)
class Log:
    """A channel's entries as read: all of them, or the last ones (`entries[0].number` > 1)."""

    store: ObjectStore
    channel: str
    entries: tuple[Entry, ...]
    tip: str | None  # SHA-256 of the last entry's stored bytes; None for an empty channel

    @property
    def head(self) -> Entry | None:
        """The last entry; None for an empty channel."""
        return self.entries[-1] if self.entries else None

    def expect(self, number: int | None) -> None:
        """Raise ConflictError unless the last entry has this number (0: empty channel; None: any)."""
        last = self.head.number if self.head else 0
        if number is None or number == last:
            return
        if self.head is None or number > last:
            raise ConflictError(f"The channel {self.channel} has {last} entries, not the expected {number}.")
        raise ConflictError(_moved(self.channel, self.head, f"since entry {number}"))

    def append(self, action: Action, release: str, manifest_sha256: str, *, who: str, why: str) -> Entry:
        """Add an entry after the last one that was read.

        If another writer put the same release in use at the same time, that entry is returned.

        Raises:
            ConflictError: another writer put another release in use first.
            ChannelError: `who` or `why` is empty, too long, or would write to a terminal what nobody sees.
        """
        who, why = check_note(self.channel, who, why)
        entry = Entry(
            number=self.head.number + 1 if self.head else 1,
            action=action,
            release=release,
            manifest_sha256=manifest_sha256,
            previous=self.head.release if self.head else None,
            who=who,
            when=datetime.now(UTC),
            why=why,
            after=self.tip,
            nonce=uuid.uuid4().hex,
        )
        try:
            self.store.create(entry_name(self.channel, entry.number), entry.to_bytes())
        except ObjectExists as error:
            winner, _ = _read_entry(self.store, self.channel, entry.number)
            if (winner.release, winner.manifest_sha256) == (release, manifest_sha256):
                return winner
            raise ConflictError(_moved(self.channel, winner, "in this moment")) from error
        return entry


def check_note(channel: str, who: str, why: str) -> tuple[str, str]:
    """Name and reason as an entry holds them. Raises ChannelError like `Log.append`."""
    who, why = " ".join(who.split()), " ".join(why.split())
    if not who or not why:
        raise ChannelError(f"Moving the channel {channel} needs a name and a reason, for its history.")
    for text in (who, why):
        if len(text) > MAX_TEXT or not text.replace("\u200d", "").isprintable():  # U+200D joins emoji
            raise ChannelError(
                f"{shorten(text)} cannot stand in the history of {channel}: write at most "
                f"{MAX_TEXT} characters, all of them printable."
            )
    return who, why


def read_log(store: ObjectStore, channel: str, last: int | None = None) -> Log:
    """Read a channel's log, or only its `last` entries.

    Files that are no entries (`.DS_Store`, `x.json~`) are passed over.

    Raises ChannelError if this cannot name a channel, or an entry is missing, unreadable or was changed.
    """
    if not CHANNEL_NAME.fullmatch(channel):
        raise ChannelError(f"{channel!r} cannot name a channel: use lower-case letters, digits and '-'.")
    names = [name for name in store.list(channel_folder(channel)) if is_object(name)]
    for number, name in enumerate(names, start=1):
        if name != entry_name(channel, number):
            raise _damaged(store, channel, f"entry {number} is missing (found {name})")
    first = 1 if last is None else max(1, len(names) - last + 1)
    loaded = in_parallel(_read_entry, [(store, channel, number) for number in range(first, len(names) + 1)])
    if loaded and first == 1 and (loaded[0][0].after, loaded[0][0].previous) != (None, None):
        raise _damaged(store, channel, "entry 1 claims to follow another")
    for (before, digest), (entry, _) in pairwise(loaded):
        if (entry.after, entry.previous) != (digest, before.release):
            problem = f"entry {entry.number} does not follow from entry {before.number}"
            raise _damaged(store, channel, f"{problem}: one of them was changed")
    return Log(store, channel, tuple(entry for entry, _ in loaded), loaded[-1][1] if loaded else None)


def _read_entry(store: ObjectStore, channel: str, number: int) -> tuple[Entry, str]:
    """An entry and the SHA-256 of its stored bytes."""
    name = entry_name(channel, number)
    try:
        data = store.read(name)
    except ObjectMissing as error:
        raise _damaged(store, channel, f"{name} vanished") from error
    except ObjectDamaged as error:
        raise ChannelError(str(error)) from error
    entry = Entry.from_bytes(data, f"{store.url}/{name}", ChannelError)
    if entry.number != number:
        raise _damaged(store, channel, f"{name} says that it is entry {entry.number}")
    return entry, hashlib.sha256(data).hexdigest()


def _damaged(store: ObjectStore, channel: str, problem: str) -> ChannelError:
    return ChannelError(f"The log of {channel} in {store.url} is damaged: {problem}.")


def _moved(channel: str, entry: Entry, since: str) -> str:
    return (
        f"The channel {channel} moved {since}: {entry.who} put release {entry.release[:12]} in use with "
        f"entry {entry.number} ({entry.action}: {entry.why}). Gate against it and try again."
    )
