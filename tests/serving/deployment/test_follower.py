"""The follow loop alone: a target and a channel without a server, stepped by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.channels.channel import promote, stage
from registry.channels.log import Entry
from registry.releases.release import write_release
from registry.store.base import ObjectStore
from registry.store.open import open_store
from serving.deployment import follow
from serving.deployment.follow import Follower, Report
from serving.errors import ServingError
from tests.registry.bundles import make_bundle, make_evidence

ANN = {"who": "ann@shop", "why": "a reason"}


class FakeTarget:
    """A server that does what the test tells it to."""

    def __init__(self) -> None:
        self.release = ""
        self.attempts = 0
        self.error: Exception | None = None
        self.revived = False
        self.differs = False

    def keep_alive(self, report: Report) -> str | None:
        if self.revived:
            report("It is back.")
        self.revived = False
        return self.release

    def deploy(self, store: ObjectStore, channel: str, entry: Entry) -> str:
        self.attempts += 1
        if self.error:
            raise self.error
        self.release = entry.release
        return f"{channel} is served."

    def compare(self, entry: Entry) -> None:
        self.differs = self.release != entry.release


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(follow, "time", clock)
    return clock


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path / "registry")


def release_to_production(store: ObjectStore, folder: Path) -> str:
    bundle = make_bundle(folder / "bundle")
    release = write_release(store, bundle, make_evidence(folder / "evidence", bundle)).release
    stage(store, release, **ANN)
    promote(store, "production", release, **ANN)
    return release


def test_a_problem_is_reported_when_it_begins_and_ends(
    store: ObjectStore, tmp_path: Path, clock: Clock
) -> None:
    target, sentences = FakeTarget(), list[str]()
    follower = Follower(store, "production", target, seconds=1, report=sentences.append)
    for _ in range(3):
        follower.step()
    assert len(sentences) == 1
    assert "is empty: promote a release to it first. Trying again until it works." in sentences[0]
    release = release_to_production(store, tmp_path)
    for _ in range(3):
        follower.step()
    assert target.release == release
    assert target.attempts == 1
    assert sentences[1:] == [
        "production is served.",
        f"The server serves production of {store.url} again.",
    ]
    target.revived = True
    follower.step()
    assert sentences[-1] == "It is back."


def test_a_refused_release_is_tried_more_and_more_seldom(
    store: ObjectStore, tmp_path: Path, clock: Clock
) -> None:
    release_to_production(store, tmp_path)
    target, sentences = FakeTarget(), list[str]()
    target.error = ServingError("Worker 17 gave another answer.")
    follower = Follower(store, "production", target, seconds=10, report=sentences.append)
    attempts = []
    for clock.now in range(0, 300, 5):
        follower.step()
        if target.attempts > len(attempts):
            attempts.append(clock.now)
            target.error = ServingError(f"Worker {clock.now} gave another answer.")  # the same problem
    assert attempts == [0, 10, 30, 70, 130, 190, 250]  # pauses of 10, 20, 40, then 60 seconds
    assert sentences == ["Worker 17 gave another answer. Trying again until it works."]
    assert target.differs
    target.error, clock.now = None, 400
    follower.step()
    assert target.attempts == len(attempts) + 1
    assert sentences[1] == "production is served."
    assert not target.differs


def test_an_unexpected_error_does_not_end_the_follower(
    store: ObjectStore, tmp_path: Path, clock: Clock
) -> None:
    release_to_production(store, tmp_path)
    target, sentences = FakeTarget(), list[str]()
    target.error = ZeroDivisionError("division by zero")
    follower = Follower(store, "production", target, seconds=1, report=sentences.append)
    follower.step()
    assert sentences == ["division by zero Trying again until it works."]


def test_a_server_that_dies_after_the_look_is_left_to_the_next_step(
    store: ObjectStore, tmp_path: Path, clock: Clock
) -> None:
    """Else a deployment would bring it back and nobody would report that it was down."""
    release = release_to_production(store, tmp_path)

    class Dying(FakeTarget):
        """Dead whenever nobody looks after it."""

        def keep_alive(self, report: Report) -> str | None:
            self.release = release
            return super().keep_alive(report)

    target, sentences = Dying(), list[str]()
    follower = Follower(store, "production", target, seconds=1, report=sentences.append)
    for _ in range(3):
        follower.step()
        target.release = ""
    assert target.attempts == 1
    assert sentences == ["production is served."]
