"""Killed workers, killed servers, full queues: what clients see, and that all comes back by itself."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from benchmarks.load.checked_clients import ExpectedAnswers, Load
from common.digests import file_digest
from serving.answering.answer import FAILED
from serving.archive.build import WorkerConfig
from serving.errors import RequestRefusedError, ServingError
from serving.torchserve import client as client_module
from serving.torchserve import process
from serving.torchserve.client import WORKER_DIED
from serving.torchserve.config import ServerConfig
from serving.torchserve.rollover import roll_over
from serving.torchserve.server import TorchServe
from tests.serving.conftest import REQUESTS, Release
from tests.serving.deployment.following import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
QUEUE = 10
SENT = 60


def roll(release: Release, state_dir: Path, config: ServerConfig | None = None) -> TorchServe:
    validated = file_digest(release.archive)
    roll_over(release.archive, release.digest, state_dir, release.golden, config, validated_sha256=validated)
    return TorchServe.attach(state_dir)


@pytest.fixture
def deployed(state_dir: Path, first: Release) -> TorchServe:
    """A server of the first release, whatever the test before has left."""
    return roll(first, state_dir)


def workers(server: TorchServe) -> list[psutil.Process]:
    leader = process.frontend_process(server.state)
    return [item for item in process.find_processes(server.state) if item != leader]


def kill_worker(server: TorchServe) -> None:
    """Kill the worker, and wait until another has taken its place."""
    (victim,) = workers(server)
    victim.kill()
    wait_until(lambda: [worker for worker in workers(server) if worker != victim] != [])
    version = str(server.client.default_version())
    wait_until(lambda: server.client.versions()[version].ready_workers == 1)


def kill(server: TorchServe, *, everything: bool = False) -> None:
    """Kill the server's process, perhaps with its workers, and first the supervisor that `start` begins."""
    process.stop_supervisor(server.state)
    for item in (
        process.find_processes(server.state) if everything else [process.frontend_process(server.state)]
    ):
        assert item is not None
        item.kill()
    wait_until(lambda: process.frontend_process(server.state) is None)


KILLS = 3


def test_a_killed_worker_costs_what_it_had_in_hand_and_nothing_else(
    deployed: TorchServe, right: ExpectedAnswers, first: Release
) -> None:
    with Load(deployed.state.root, right, clients=16) as load:
        for _ in range(KILLS):
            count = len(load.requests)
            kill_worker(deployed)
            wait_until(lambda: sum(not outcome.failed for outcome in load.requests[count:]) > 40)  # noqa: B023
    assert not [outcome for outcome in load.requests if outcome.mixed]
    assert {outcome.release for outcome in load.requests if not outcome.failed} == {first.digest}
    failures = [outcome for outcome in load.requests if outcome.failed]
    assert {outcome.status for outcome in failures} <= {500, 507}, load.errors()
    assert all(f'"message": "{WORKER_DIED}"' in outcome.error.replace("\\n", "") for outcome in failures)
    assert len(failures) <= KILLS * WorkerConfig().batch_size


def test_our_client_asks_again_where_a_worker_died(deployed: TorchServe, first: Release) -> None:
    """With as many clients as a batch holds, a kill takes requests with it for sure, one of many times."""
    stop_event = threading.Event()
    releases: list[str] = []

    def ask() -> None:
        server = TorchServe.attach(deployed.state.root)
        while not stop_event.is_set():
            releases.append(server.predict(REQUESTS[0])["release"])

    with ThreadPoolExecutor(8) as pool:
        askers = [pool.submit(ask) for _ in range(8)]
        try:
            for _ in range(KILLS):
                count = len(releases)
                kill_worker(deployed)
                wait_until(lambda: len(releases) > count + 40)  # noqa: B023 - called at once
        finally:
            stop_event.set()
        for future in askers:
            future.result()
    assert set(releases) == {first.digest}


def test_a_reply_that_says_the_worker_died_is_asked_again_and_a_defect_is_not(
    deployed: TorchServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same without chance: the replies that were seen, one by one."""
    real = deployed.client.send(json.dumps(REQUESTS[0]).encode())
    died = {"code": 507, "type": "InternalServerException", "message": WORKER_DIED}
    replies = [reply(507, died), reply(500, died), real, reply(500, {"error": FAILED, "status": 500}), real]
    monkeypatch.setattr(deployed.client, "send", lambda *_: replies.pop(0))
    assert deployed.predict(REQUESTS[0]) == real.json()
    assert len(replies) == 2
    with pytest.raises(RequestRefusedError, match="failed on this request") as refused:
        deployed.predict(REQUESTS[0])
    assert (refused.value.status, len(replies)) == (500, 1)


def reply(status: int, words: dict[str, Any]) -> requests.Response:
    response = requests.Response()
    response.status_code, response._content = status, json.dumps(words).encode()
    return response


def command(server: TorchServe, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "serving", *arguments, "--serving", str(server.state.root)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("everything", [False, True], ids=["server", "server and workers"])
def test_start_brings_back_what_was_deployed(
    deployed: TorchServe, first: Release, *, everything: bool
) -> None:
    kill(deployed, everything=everything)
    with pytest.raises(ServingError, match="does not listen"):
        deployed.predict(REQUESTS[0])
    assert "No TorchServe runs in" in command(deployed, "status").stderr
    started = command(deployed, "start")
    assert started.returncode == 0, started.stderr
    restarted_server = TorchServe.attach(deployed.state.root)
    assert restarted_server.ports == deployed.ports
    assert restarted_server.predict(REQUESTS[0])["release"] == first.digest
    assert len(process.find_processes(restarted_server.state)) == 2  # no worker of the dead server is left


def send_alone(server: TorchServe, body: bytes) -> requests.Response:
    """Send over a connection of its own."""
    return TorchServe.attach(server.state.root).client.send(body)


@pytest.fixture
def small_queue(tmp_path: Path, first: Release) -> Iterator[TorchServe]:
    yield roll(first, tmp_path, ServerConfig(job_queue=QUEUE))
    TorchServe.stop(tmp_path)


def test_a_full_queue_refuses_at_once_and_loses_nothing(
    small_queue: TorchServe, first: Release, right: ExpectedAnswers
) -> None:
    """Every request gets exactly one reply: refused at once, or answered once the worker goes on."""
    body = next(iter(right))
    (worker,) = workers(small_queue)
    small_queue.client.refresh_header()
    with ThreadPoolExecutor(SENT) as pool:
        worker.suspend()
        try:
            pending = [pool.submit(send_alone, small_queue, body) for _ in range(SENT)]
            accepted = QUEUE + WorkerConfig().batch_size  # in the queue, and in the worker's hands
            wait_until(lambda: sum(future.done() for future in pending) >= SENT - accepted)
            refused = [future.result() for future in pending if future.done()]
        finally:
            worker.resume()
        replies = [future.result() for future in pending]
    assert {reply.status_code for reply in refused} == {503}
    assert {reply.json()["type"] for reply in refused} == {"ServiceUnavailableException"}
    statuses = Counter(reply.status_code for reply in replies)
    assert set(statuses) == {200, 503}
    assert QUEUE <= statuses[200] <= accepted
    assert statuses.total() == SENT
    assert {reply.content for reply in replies if reply.ok} == {right[body][first.digest]}
    again = [small_queue.client.send(body).status_code for _ in range(SENT)]
    assert again == [200] * SENT
    (status,) = small_queue.client.versions().values()
    assert (status.pending, status.ready_workers) == (0, 1)


def test_our_client_waits_for_room_and_says_when_there_is_none(
    small_queue: TorchServe, first: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "BUSY_SECONDS", 2)
    (worker,) = workers(small_queue)
    with ThreadPoolExecutor(SENT) as pool:
        worker.suspend()
        try:
            pending = [pool.submit(send_alone, small_queue, b'{"history": []}') for _ in range(SENT)]
            wait_until(lambda: any(future.done() for future in pending))
            with pytest.raises(
                RequestRefusedError, match="no room in its queue, or no worker, for 2 s"
            ) as no:
                small_queue.predict(REQUESTS[0])
            assert no.value.status == 503
            monkeypatch.setattr(client_module, "BUSY_SECONDS", 60)
            patient = pool.submit(small_queue.predict, REQUESTS[0])
        finally:
            worker.resume()
        assert patient.result()["release"] == first.digest
