"""A production channel that moves under load, and a real TorchServe that follows it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from benchmarks.load.checked_clients import ExpectedAnswers, Load, SentRequest
from benchmarks.rollover import Rollover, is_stale
from common.digests import file_digest
from registry.channels.channel import promote, rollback
from registry.store.open import open_store
from serving.archive.build import read_archive
from serving.torchserve import process, versions
from serving.torchserve.rollover import DeployError, roll_over
from serving.torchserve.server import TorchServe
from serving.torchserve.state_dir import StateDir
from tests.serving.conftest import REQUESTS, Release
from tests.serving.deployment.following import ANN, following, released, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def test_the_channel_moves_under_load_and_nothing_is_lost(
    first: Release, second: Release, right: ExpectedAnswers, tmp_path: Path
) -> None:
    store, state_dir = open_store(tmp_path / "registry"), tmp_path / "serving"
    first_digest, second_digest = (
        released(store, first, tmp_path / "a"),
        released(store, second, tmp_path / "b"),
    )
    promote(store, "production", first_digest, **ANN)
    moves = []
    with following(store, state_dir, tmp_path) as follower:
        follower.serves(first_digest)
        with Load(state_dir, right) as load:
            for number, target in enumerate((second_digest, first_digest, second_digest, first_digest)):
                began = time.monotonic()
                if target == second_digest:
                    promote(store, "production", target, **ANN)
                else:
                    rollback(store, "production", to=target, **ANN)
                follower.serves(target, times=1 + (number + 1) // 2)
                moves.append(Rollover("", target, began, time.monotonic()))
                n_requests = len(load.requests)
                wait_until(lambda: len(load.requests) > n_requests + 20)  # noqa: B023 - called at once
    assert load.errors() == []
    assert {outcome.release for outcome in load.requests} == {first_digest, second_digest}
    assert [outcome for outcome in load.requests if is_stale(outcome, moves)] == []
    assert sum(outcome.sent > moves[0].started for outcome in load.requests) > 80


def test_what_counts_as_late() -> None:
    moves = [Rollover("promote", "new", 10.0, 20.0), Rollover("rollback", "old", 30.0, 40.0)]

    def is_late(sent: float, release: str, status: int = 200) -> bool:
        return is_stale(SentRequest(sent, 0.5, status, release, ""), moves)

    assert not is_late(5, "old")
    assert not is_late(15, "old")
    assert is_late(20.1, "old")
    assert not is_late(20.1, "new")
    assert not is_late(20.1, "", 503)  # a failure of its own
    assert not is_late(29.8, "old")  # answered after the next move
    assert is_late(40.1, "new")


def residue(state_dir: Path) -> dict[str, Any]:
    """All that a deployment may leave: versions, archives, what is unpacked, what a restart brings back."""
    server = TorchServe.attach(state_dir)
    return {
        "versions": list(server.client.versions()),
        "default": server.client.default_version(),
        "store": sorted(path.name for path in server.state.store.iterdir()),
        "scratch": sorted(str(path) for path in server.state.scratch.rglob("*")),
        "deployed": server.state.deployed.read_bytes(),
        "processes": [running.pid for running in process.find_processes(server.state)],
    }


def test_golden_requests_that_fail_under_load_leave_no_residue(
    first: Release, second: Release, right: ExpectedAnswers, tmp_path: Path
) -> None:
    store, state_dir = open_store(tmp_path / "registry"), tmp_path / "serving"
    first_digest = released(store, first, tmp_path / "a")
    second_digest = released(store, second, tmp_path / "b", golden=first.golden)
    promote(store, "production", first_digest, **ANN)
    with following(store, state_dir, tmp_path) as follower:
        follower.serves(first_digest)
        residue_before, server = residue(state_dir), TorchServe.attach(state_dir)
        with Load(state_dir, right) as load:
            promote(store, "production", second_digest, **ANN)
            refused = (
                f"Release {second_digest[:12]} was not deployed: 4 of 4 golden requests gave another answer"
            )
            follower.wait_for(refused)
            for times in (2, 1):  # it is tried again, and leaves again
                wait_until(lambda: len(server.client.versions()) == times)  # noqa: B023 - called at once
            rollback(store, "production", **ANN)
            follower.wait_for(f"serves already production, release {first_digest[:12]}")
        assert residue(state_dir) == residue_before
    assert load.errors() == []
    assert {outcome.release for outcome in load.requests} == {first_digest}
    assert follower.log.read_text().count(refused) == 1  # said once, though tried often


def roll(release: Release, state_dir: Path) -> None:
    validated = file_digest(release.archive)
    roll_over(release.archive, release.digest, state_dir, release.golden, validated_sha256=validated)


@pytest.fixture
def deployed(state_dir: Path, first: Release) -> TorchServe:
    """A server of the first release."""
    roll(first, state_dir)
    return TorchServe.attach(state_dir)


def test_what_a_worker_has_in_hand_is_answered_before_it_leaves(
    deployed: TorchServe, first: Release, second: Release
) -> None:
    """A slow answer: the worker is held for longer than any pause that a drain could take by guess."""
    (pid,) = deployed.client.versions()[str(deployed.client.default_version())].workers
    worker, releases = psutil.Process(pid), []

    def ask() -> None:
        releases.append(deployed.client.predict(REQUESTS[0])["release"])

    futures, rolling = (
        threading.Thread(target=ask),
        threading.Thread(target=roll, args=(second, deployed.state.root)),
    )
    worker.suspend()
    try:
        futures.start()
        rolling.start()
        version = read_archive(second.archive).version
        wait_until(lambda: deployed.client.default_version() == version)
        time.sleep(3 * versions.QUIET_SECONDS)
        assert releases == []
        assert len(deployed.client.versions()) == 2
    finally:
        worker.resume()
    for thread in (futures, rolling):
        thread.join()
    assert releases == [first.digest]
    assert list(deployed.client.versions()) == [version]


def test_a_version_that_never_rests_does_not_stay_for_ever(
    deployed: TorchServe, second: Release, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(versions, "DRAIN_SECONDS", 2)
    old = str(deployed.client.default_version())
    (pid,) = deployed.client.versions()[old].workers
    psutil.Process(pid).suspend()
    roll(second, deployed.state.root)
    assert list(deployed.client.versions()) == [read_archive(second.archive).version]
    assert f"{old} still works after 2 s and is removed." in caplog.text


def pids(server: TorchServe, version: str) -> list[int]:
    """Processes of a version's workers, once they have told their ids."""
    status = server.client.versions().get(version)
    return [pid for pid in status.workers if pid > 0] if status else []


def test_connections_are_answered_while_a_model_loads(
    deployed: TorchServe, second: Release, right: ExpectedAnswers
) -> None:
    """TorchServe answers in two threads; none of them may wait for the new version's worker."""
    loading = threading.Event()
    connections = [requests.Session() for _ in range(4)]
    state = deployed.state

    def post(connection: requests.Session) -> int:
        name, _, key = state.header.read_text().strip().partition(": ")
        body = next(iter(right))
        return connection.post(
            deployed.client.prediction_url, body, headers={name: key}, timeout=60
        ).status_code

    assert [post(connection) for connection in connections] == [
        200
    ] * 4  # every thread has its connections now
    rolling = threading.Thread(target=roll, args=(second, state.root))
    rolling.start()
    version = read_archive(second.archive).version
    try:
        wait_until(lambda: bool(pids(deployed, version)))
        worker = psutil.Process(pids(deployed, version)[0])
        worker.suspend()
        loading.set()
        try:
            assert deployed.client.versions()[version].ready_workers == 0
            assert [post(connection) for connection in connections] == [200] * 4
        finally:
            worker.resume()
    finally:
        rolling.join()
    assert loading.is_set()
    assert deployed.client.default_version() == version


def test_a_disk_without_room_refuses_the_new_version_and_keeps_the_old(
    deployed: TorchServe, first: Release, second: Release
) -> None:
    residue_before = residue(deployed.state.root)
    script = """
import resource, sys
from pathlib import Path
from serving.torchserve.rollover import DeployError, roll_over
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
archive, release, state, golden, digest = sys.argv[1:]
try:
    roll_over(Path(archive), release, state, Path(golden), validated_sha256=digest)
except DeployError as error:
    print(error)
"""
    arguments = [
        second.archive,
        second.digest,
        deployed.state.root,
        second.golden,
        file_digest(second.archive),
    ]
    command = [sys.executable, "-c", script, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith(f"Release {second.digest[:12]} was not deployed: ")
    assert "cannot be written: File too large. Make room" in result.stdout
    assert residue(deployed.state.root) == residue_before
    assert deployed.predict(REQUESTS[0])["release"] == first.digest


def test_a_switch_that_fails_is_taken_back(
    deployed: TorchServe, second: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.errors import RequestRefusedError
    from serving.torchserve.client import Client

    def refuse(client: Client, version: str) -> None:
        raise RequestRefusedError(500, "no")

    residue_before = residue(deployed.state.root)
    monkeypatch.setattr(Client, "set_default", refuse)
    with pytest.raises(DeployError, match="was not deployed: no"):
        roll(second, deployed.state.root)
    assert residue(deployed.state.root) == residue_before


def test_archives_half_copied_are_cleared_away(deployed: TorchServe, second: Release) -> None:
    state = StateDir(deployed.state.root)
    (state.store / f".car-left.mar{versions.PARTIAL}").write_bytes(b"half")
    roll(second, state.root)
    assert [path.name for path in state.store.iterdir()] == [
        versions.stored_name(read_archive(second.archive).version)
    ]
