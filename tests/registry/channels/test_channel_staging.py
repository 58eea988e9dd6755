"""Staging before production."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from registry.channels.channel import head, history, promote, rollback, stage
from registry.errors import ChannelError, ReleaseError
from registry.store.base import ObjectStore
from registry.store.open import open_store
from tests.registry.bundles import make_release
from tests.registry.conftest import Run

ANN = {"who": "ann@shop", "why": "better on cold items"}
fork = multiprocessing.get_context("fork")


@pytest.fixture
def releases(store: ObjectStore, tmp_path: Path) -> list[str]:
    """Digests of three releases; the last one is not blessed."""
    return [make_release(store, tmp_path, seed, blessed=seed < 2).release for seed in range(3)]


def test_production_takes_only_staged_releases(store: ObjectStore, releases: list[str]) -> None:
    sentence = (
        f"Release {releases[0][:12]} was never in staging with the manifest that it has now, as production "
        "requires: look at it and promote it to staging first"
    )
    with pytest.raises(ReleaseError, match=sentence):
        promote(store, "production", releases[0], **ANN)
    promote(store, "canary", releases[0], **ANN)  # another channel is no staging
    with pytest.raises(ReleaseError, match=sentence):
        promote(store, "production", releases[0], **ANN)
    assert head(store, "production") is None
    for release in releases[:2]:
        promote(store, "staging", release, **ANN)
    # It need not be there still.
    assert promote(store, "production", releases[0], **ANN).action == "promote"


def test_force_bypasses_staging_with_a_recorded_reason(store: ObjectStore, releases: list[str]) -> None:
    for why in ("", " \n"):
        with pytest.raises(ChannelError, match="Forcing a release into production needs a reason"):
            promote(store, "production", releases[0], who="ann", why=why, force=True)
    entry = promote(store, "production", releases[0], **ANN, force=True)
    assert (entry.action, entry.why) == ("force", ANN["why"])
    # A staged one that the gate did not bless needs force again, in either channel.
    assert promote(store, "staging", releases[2], **ANN, force=True).action == "force"
    with pytest.raises(ReleaseError, match="did not bless"):
        promote(store, "production", releases[2], **ANN)
    # Nothing to bypass, nothing on record.
    stage(store, releases[1], **ANN)
    assert promote(store, "production", releases[1], **ANN, force=True).action == "promote"


def test_a_rollback_needs_no_staging(store: ObjectStore, releases: list[str]) -> None:
    for release in releases[:2]:
        promote(store, "production", release, **ANN, force=True)
    assert rollback(store, "production", **ANN).release == releases[0]


def test_staging_twice_changes_nothing(store: ObjectStore, releases: list[str]) -> None:
    first = stage(store, releases[0], **ANN)
    other = stage(store, releases[1], **ANN)
    assert stage(store, releases[0], who="bob", why="a rerun") == first
    assert history(store, "staging") == [first, other]
    with pytest.raises(ReleaseError, match="did not bless"):
        stage(store, releases[2], **ANN)


def test_a_release_staged_long_ago_may_be_promoted(tmp_path: Path) -> None:
    store = open_store(tmp_path / "registry")
    releases = [make_release(store, tmp_path, seed).release for seed in range(3)]
    stage(store, releases[0], **ANN)
    for number in range(40):
        promote(store, "staging", releases[1 + number % 2], **ANN)
    assert promote(store, "production", releases[0], **ANN).action == "promote"


@pytest.mark.integration
def test_concurrent_staging_succeeds_for_all(store: ObjectStore, url: str, tmp_path: Path) -> None:
    releases = [make_release(store, tmp_path, seed).release for seed in range(4)]
    racers = [
        fork.Process(target=stage, args=(open_store(url), release), kwargs=ANN) for release in releases * 2
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0] * len(racers)
    assert sorted(entry.release for entry in history(store, "staging")) == sorted(releases)


def test_history_shows_forced_promotions_with_their_reason(run: Run, releases: list[str]) -> None:
    code, out, error = run("promote", releases[0], "--why", "x")
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert "was never in staging" in error
    assert run("promote", releases[0], "--force")[0] == 2
    assert run("promote", releases[0], "--force", "--reason", " ")[0] == 1
    assert run("promote", releases[0], "--force", "--reason", "the shop is down")[0] == 0
    (row,) = run("history")[1].splitlines()[2:]
    assert "FORCE " in row
    assert "the shop is down" in row
    assert run("promote", releases[1], "--why", "to look at", "--channel", "staging")[0] == 0
    assert run("promote", releases[1], "--why", "looked at")[0] == 0
