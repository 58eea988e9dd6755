"""A channel's append-only log: entries read with every link checked, and added by one writer at a time.

Entry n is the object `channels/<name>/<n>.json`, created only if it does not exist: of two writers one wins.
Every entry carries the digest of the one before it, so that a changed or lost entry shows.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Literal

from pydantic import Field

from registry.errors import ChannelError, ConflictError, ObjectExists, ObjectMissing
from registry.releases.layout import channel_folder, entry_name
from registry.releases.manifest import Digest, Document, Filled, Moment
from registry.store.base import ObjectStore
from registry.store.parallel import in_parallel

NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
Action = Literal["promote", "rollback", "force"]


class Entry(Document):
    """One move of a channel."""

    number: int = Field(ge=1)
    action: Action
    release: Digest
    manifest_sha256: Digest
    previous: Digest | None  # the release in use before
    who: Filled
    when: Moment
    why: Filled
    after: Digest | None  # digest of the entry before this one; null for the first
    nonce: Filled  # tells two writers apart who say the same at the same time


@dataclass(frozen=True)
class Move:
    """What somebody wants a channel to do next."""

    action: Action
    release: str
    manifest_sha256: str
    who: str
    why: str


@dataclass(frozen=True)
class Log:
    """A channel's entries as read: all of them, or the last ones (`entries[0].number` > 1)."""

    store: ObjectStore
    channel: str
    entries: tuple[Entry, ...]
    tip: str | None  # digest of the last entry's stored bytes

    @property
    def head(self) -> Entry | None:
        """The last entry; None for a channel that was never moved."""
        return self.entries[-1] if self.entries else None

    def expect(self, number: int | None) -> None:
        """Raise ConflictError unless the log ends at this entry (0: is empty; None: anything goes)."""
        found = self.head.number if self.head else 0
        if number is None or number == found:
            return
        if self.head is None or number > found:
            raise ConflictError(f"The channel {self.channel} has {found} entries, not the expected {number}.")
        raise ConflictError(_moved(self.channel, self.head, f"since entry {number}"))

    def append(self, move: Move) -> Entry:
        """Add an entry after the last one read.

        A rival who brought the same release in use in the same moment is no conflict: that entry is returned.

        Raises:
            ConflictError: somebody else added an entry first.
            ChannelError: `who` or `why` is empty.
        """
        entry = self._entry(move)
        try:
            self.store.create(entry_name(self.channel, entry.number), entry.to_bytes())
        except ObjectExists as error:
            winner, _ = _read_entry(self.store, self.channel, entry.number)
            if winner.release == move.release:
                return winner
            raise ConflictError(_moved(self.channel, winner, "in this moment")) from error
        return entry

    def _entry(self, move: Move) -> Entry:
        if not move.who.strip() or not move.why.strip():
            raise ChannelError(
                f"Moving the channel {self.channel} needs a name and a reason, for its history."
            )
        return Entry(
            number=self.head.number + 1 if self.head else 1,
            action=move.action,
            release=move.release,
            manifest_sha256=move.manifest_sha256,
            previous=self.head.release if self.head else None,
            who=move.who.strip(),
            when=datetime.now(UTC),
            why=move.why.strip(),
            after=self.tip,
            nonce=uuid.uuid4().hex,
        )


def read_log(store: ObjectStore, channel: str, last: int | None = None) -> Log:
    """Read a channel's log, or only its last entries.

    Raises:
        ChannelError: the name cannot be a channel's, an entry is missing, unreadable or was changed.
    """
    if not NAME.fullmatch(channel):
        raise ChannelError(f"{channel!r} cannot name a channel: use lower-case letters, digits and '-'.")
    names = store.list(channel_folder(channel))
    for number, name in enumerate(names, start=1):
        if name != entry_name(channel, number):
            raise _damaged(store, channel, f"entry {number} is missing (found {name})")
    first = 1 if last is None else max(1, len(names) - last + 1)
    read = in_parallel(_read_entry, [(store, channel, number) for number in range(first, len(names) + 1)])
    _check_links(store, channel, read)
    return Log(store, channel, tuple(entry for entry, _ in read), read[-1][1] if read else None)


def _check_links(store: ObjectStore, channel: str, read: list[tuple[Entry, str]]) -> None:
    if read and read[0][0].number == 1 and (read[0][0].after, read[0][0].previous) != (None, None):
        raise _damaged(store, channel, "entry 1 claims to follow another")
    for (before, digest), (entry, _) in pairwise(read):
        if (entry.after, entry.previous) != (digest, before.release):
            what = f"entry {entry.number} does not follow from entry {before.number}: one of them was changed"
            raise _damaged(store, channel, what)


def _read_entry(store: ObjectStore, channel: str, number: int) -> tuple[Entry, str]:
    name = entry_name(channel, number)
    try:
        data = store.read(name)
    except ObjectMissing as error:
        raise _damaged(store, channel, f"{name} vanished") from error
    entry = Entry.from_bytes(data, f"{store.url}/{name}", ChannelError)
    if entry.number != number:
        raise _damaged(store, channel, f"{name} says that it is entry {entry.number}")
    return entry, hashlib.sha256(data).hexdigest()


def _damaged(store: ObjectStore, channel: str, what: str) -> ChannelError:
    return ChannelError(f"The log of {channel} in {store.url} is damaged: {what}.")


def _moved(channel: str, entry: Entry, since: str) -> str:
    return (
        f"The channel {channel} moved {since}: {entry.who} put release {entry.release[:12]} in use with "
        f"entry {entry.number} ({entry.action}: {entry.why}). Gate against it and try again."
    )
