"""A TorchServe that follows a channel: it serves what the channel uses, and is brought back where it died.

The server is looked after first and needs no registry: one that is silent gets the release back that was
deployed last, from its own disk. Then the channel is asked, and what has moved, or could not come back, is
deployed. What fails is said once, tried again, and said to be over.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from registry.channels.channel import head
from registry.channels.log import Entry
from registry.errors import RegistryError
from registry.store.base import ObjectStore
from serving.archive.build import ArchiveError
from serving.deployment.deploy_channel import deploy_channel
from serving.errors import ServingError
from serving.torchserve.rollover import Deployment, restart_if_dead, serves

EXPECTED = (RegistryError, ServingError, ArchiveError, OSError)
VARYING = re.compile(r"0x[0-9a-f]+|\d+")  # addresses, seconds, ports: the same trouble all the same
LONGEST_PAUSE = 60.0  # seconds between attempts to deploy what was refused: each one loads a model
Tell = Callable[[str], None]


class ErrorReporter:
    """Tells a trouble when it begins, changes and ends, and not at every look."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._known: str | None = None

    def goes_on(self, error: Exception) -> None:
        """Say what is wrong, unless it was said already."""
        kind = f"{type(error).__name__} {VARYING.sub('', str(error).partition(chr(10))[0])}"
        if kind != self._known:
            self._tell(f"{error} Trying again until it works.")
        self._known = kind

    def is_over(self, sentence: str) -> None:
        """Say that nothing is wrong any more, if anything was."""
        if self._known is not None:
            self._tell(sentence)
        self._known = None


@dataclass(frozen=True)
class Refusal:
    """A release that could not be deployed, and when to try again (monotonic)."""

    entry: int
    error: Exception
    pause: float
    until: float


class Follower:
    """One server and one channel.

    Args:
        serving: folder of the TorchServe, started where it is down.
        who: signs the validation of a release that has none yet.
        seconds: between two looks.
        tell: gets sentences for the log.
    """

    def __init__(
        self, store: ObjectStore, channel: str, serving: Path, *, who: str, seconds: float, tell: Tell
    ) -> None:
        self.store, self.channel, self.serving, self.who = store, channel, serving, who
        self.seconds, self.tell = seconds, tell
        self.down, self.behind = ErrorReporter(tell), ErrorReporter(tell)
        self.number = 0
        self.refusal: Refusal | None = None

    def look(self) -> None:
        """Bring back what is down, then go where the channel is; what fails is told and tried again."""
        try:
            if release := restart_if_dead(self.serving):
                self.tell(f"The server was down; release {release[:12]}, deployed last, answers again.")
            self.down.is_over("The server answers again.")
        except EXPECTED as error:
            self.down.goes_on(error)
        try:
            self._go_where_the_channel_is()
            self.behind.is_over(f"The server is again where {self.channel} in {self.store.url} is.")
        except EXPECTED as error:
            self.behind.goes_on(error)

    def _go_where_the_channel_is(self) -> None:
        entry = head(self.store, self.channel)
        if entry is None or entry.number != self.number or not serves(self.serving, entry.release):
            self._deploy(entry)
            self.number = entry.number if entry else 0

    def _deploy(self, entry: Entry | None) -> None:
        number = entry.number if entry else 0
        before = self.refusal if self.refusal and self.refusal.entry == number else None
        if before and time.monotonic() < before.until:
            raise before.error
        try:
            done = deploy_channel(self.store, self.channel, self.serving, self.who)
        except ServingError as error:
            pause = min(2 * before.pause, LONGEST_PAUSE) if before else self.seconds
            self.refusal = Refusal(number, error, pause, time.monotonic() + pause)
            raise
        self.refusal = None
        self.tell(said(done, self.channel))


def follow(store: ObjectStore, channel: str, serving: Path, *, who: str, seconds: float, tell: Tell) -> None:
    """Look every so many seconds, for ever; see `Follower`."""
    follower = Follower(store, channel, serving, who=who, seconds=seconds, tell=tell)
    while True:
        follower.look()
        time.sleep(seconds)


def said(done: Deployment, channel: str) -> str:
    """What a deployment did, in words."""
    what = "now serves" if done.changed else "serves already"
    return f"{done.url} {what} {channel}, release {done.release[:12]}: {done.golden.sentence()}."
