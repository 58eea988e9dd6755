"""Follow a channel: serve whatever release it uses, on a TorchServe or in a pod.

One loop for both. The server is looked after first, which needs no registry: a TorchServe that has died gets
back the release that was deployed last, from its own disk. Then the channel's entry is read, and deployed if
the server does not serve it. What fails is reported once and tried again; a refused release waits longer each
time, because each attempt loads a model.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from registry.channels.log import Entry
from registry.store.base import ObjectStore
from serving.deployment.deploy_channel import deploy_entry, fetch_validated, require_entry
from serving.torchserve import process
from serving.torchserve.rollover import restart_if_dead
from serving.torchserve.state_dir import StateDir

if TYPE_CHECKING:
    from serving.asgi.server import Pod

VARYING = re.compile(r"0x[0-9a-f]+|\d+")  # addresses, seconds, ports: they do not make it another problem
MAX_PAUSE = 60.0  # seconds between attempts to deploy a refused release
Report = Callable[[str], None]


class FollowTarget(Protocol):
    """A server that can follow a channel."""

    def keep_alive(self, report: Report) -> str | None:
        """Bring the server back if it died, and report that; return the release that answers."""

    def deploy(self, store: ObjectStore, channel: str, entry: Entry) -> str:
        """Let the release of the channel's entry answer, and return a sentence.

        If that raises an error, whatever answered before still does.
        """

    def compare(self, entry: Entry) -> None:
        """Show in the server's metrics whether the channel's release answers, if it has any of its own."""


@dataclass(frozen=True)
class TorchServeTarget:
    """The TorchServe of this machine."""

    state_dir: Path
    """The server's folder."""
    who: str
    """Signs the validation of a release that has none yet."""

    def keep_alive(self, report: Report) -> str | None:
        release, restarted = restart_if_dead(self.state_dir)
        if restarted:
            report(f"The server was down; release {release[:12]}, deployed last, answers again.")
        return release or None

    def deploy(self, store: ObjectStore, channel: str, entry: Entry) -> str:
        return deploy_entry(store, channel, entry, self.state_dir, self.who).sentence(channel)

    def compare(self, entry: Entry) -> None:
        """TorchServe's metrics are its own: `car status` tells."""


@dataclass(frozen=True)
class PodTarget:
    """The ASGI server in this process."""

    pod: Pod

    def keep_alive(self, report: Report) -> str | None:
        """The kubelet restarts a dead pod."""
        return self.pod.release

    def deploy(self, store: ObjectStore, channel: str, entry: Entry) -> str:
        from serving.answering.golden import GoldenRequests
        from serving.archive.load import load_archive

        if self.pod.release != entry.release:
            with tempfile.TemporaryDirectory(prefix="car-pod-") as folder:
                archive, golden = fetch_validated(store, entry, Path(folder))
                self.pod.use(load_archive(archive), GoldenRequests.read(golden))
        return f"{channel} is release {entry.release[:12]} (entry {entry.number}) and answers here."

    def compare(self, entry: Entry) -> None:
        from serving.asgi.app import process_metrics

        process_metrics().channel_differs.set(self.pod.release != entry.release)


class ErrorReporter:
    """Reports a problem when it begins, changes and ends, and not each time that it is seen."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._current: str | None = None

    def problem(self, error: Exception) -> None:
        """Report an error, unless the last one was of the same kind."""
        kind = f"{type(error).__name__} {VARYING.sub('', str(error).partition(chr(10))[0])}"
        if kind != self._current:
            self._report(f"{error or repr(error)} Trying again until it works.")
        self._current = kind

    def resolved(self, sentence: str) -> None:
        """Report that the problem is over, if there was one."""
        if self._current is not None:
            self._report(sentence)
        self._current = None


@dataclass(frozen=True)
class Refusal:
    """An entry that could not be deployed, and when (in monotonic seconds) to try it again."""

    entry: int
    error: Exception
    pause: float
    """Seconds between this attempt and the next."""
    retry_at: float


class Follower:
    """One server that follows one channel, which it reads every so many seconds; `report` gets sentences."""

    def __init__(
        self, store: ObjectStore, channel: str, target: FollowTarget, *, seconds: float, report: Report
    ) -> None:
        self.store, self.channel, self.target = store, channel, target
        self.seconds, self.report = seconds, report
        self.health, self.progress = ErrorReporter(report), ErrorReporter(report)
        self.entry_number = 0  # of the entry that was deployed last
        self.refusal: Refusal | None = None

    def step(self) -> None:
        """Bring the server back if it is down, then deploy the channel's entry if it is not served yet.

        One look at the server decides both: a server that dies after it is brought back in the next step.
        Errors of any kind are reported, and the step is tried again: a follower must not end.
        """
        release = None
        try:
            release = self.target.keep_alive(self.report)
            self.health.resolved("The server answers again.")
        except Exception as error:
            self.health.problem(error)
        try:
            entry = require_entry(self.store, self.channel)
            try:
                if entry.number != self.entry_number or entry.release != release:
                    self._deploy(entry)
                    self.entry_number = entry.number
            finally:
                self.target.compare(entry)
            self.progress.resolved(f"The server serves {self.channel} of {self.store.url} again.")
        except Exception as error:
            self.progress.problem(error)

    def run(self) -> None:
        """Take a step every so many seconds, forever."""
        while True:
            self.step()
            time.sleep(self.seconds)

    def _deploy(self, entry: Entry) -> None:
        previous = self.refusal if self.refusal and self.refusal.entry == entry.number else None
        if previous and time.monotonic() < previous.retry_at:
            raise previous.error
        try:
            sentence = self.target.deploy(self.store, self.channel, entry)
        except Exception as error:
            pause = min(2 * previous.pause, MAX_PAUSE) if previous else self.seconds
            self.refusal = Refusal(entry.number, error, pause, time.monotonic() + pause)
            raise
        self.refusal = None
        self.report(sentence)


def supervise(state: StateDir, seconds: float, report: Report) -> None:
    """Bring the server of a folder back whenever it died, until nothing is deployed there any more.

    While a follower runs, that does the same, and this only waits for its end.
    """
    target, health = TorchServeTarget(state.root, who=""), ErrorReporter(report)
    while state.deployed.is_file():
        with state.watch(follower=False) as alone:
            try:
                if alone:
                    target.keep_alive(report)
                    health.resolved("The server answers again.")
            except Exception as error:
                health.problem(error)
        time.sleep(seconds)
    if not state.root.is_dir():
        process.stop_processes(state)  # somebody removed the folder, and nobody else would find them
