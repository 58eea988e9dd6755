"""The ASGI shell through the same faults: a full queue, a killed process, an end, clients that go away."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest

from car_model.recommender.recommender import Recommender
from serving.answering.answer import respond
from serving.answering.openapi import PATH
from serving.asgi.app import QUEUE
from serving.asgi.connections import RETRY_AFTER
from serving.torchserve.config import Ports
from tests.serving.conftest import Release
from tests.serving.deployment.following import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
SLOW = json.dumps([{"history": [f"i{i}" for i in range(1, 40)], "k": 40}] * 16).encode()
QUICK = b'{"history": ["i1"], "k": 2}'


@dataclass(frozen=True)
class Shell:
    process: subprocess.Popen[bytes]
    port: int

    def send(self, body: bytes) -> tuple[int, bytes, str | None]:
        """Status, body and Retry-After; status 0 where there was no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request("POST", PATH, body)
            reply = connection.getresponse()
            return reply.status, reply.read(), reply.getheader("Retry-After")
        except TimeoutError:
            raise  # a hang is no answer
        except (OSError, http.client.HTTPException):
            return 0, b"", None
        finally:
            connection.close()

    def at_once(self, body: bytes, count: int) -> list[tuple[int, bytes, str | None]]:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(self.send, [body] * count))


@contextmanager
def shell(release: Release, port: int) -> Iterator[Shell]:
    line = [sys.executable, "-m", "serving", "asgi", "--archive", str(release.archive), "--port", str(port)]
    server = Shell(subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT), port)
    try:
        wait_until(lambda: server.process.poll() is not None or server.send(QUICK)[0] == 200)
        yield server
    finally:
        server.process.terminate()
        output, _ = server.process.communicate(timeout=60)
    assert output == b""


@pytest.fixture(scope="module")
def port() -> int:
    return Ports.choose().inference


@pytest.fixture
def server(first: Release, port: int) -> Iterator[Shell]:
    with shell(first, port) as started:
        yield started


@pytest.fixture(scope="module")
def expected(first: Release) -> dict[bytes, bytes]:
    recommender = Recommender.load(first.bundle, first.digest)
    return {body: respond(recommender, body)[1] for body in (SLOW, QUICK)}


def test_a_full_queue_says_when_to_ask_again_and_loses_nothing(
    server: Shell, expected: dict[bytes, bytes]
) -> None:
    n_requests = 3 * QUEUE
    replies = server.at_once(SLOW, n_requests)
    statuses = Counter(status for status, _, _ in replies)
    assert set(statuses) == {200, 503}
    assert statuses.total() == n_requests
    assert statuses[200] > QUEUE
    for status, body, retry_after in replies:
        if status == 503:
            assert retry_after == RETRY_AFTER
            assert json.loads(body) == {"error": "Too many requests wait already; ask again.", "status": 503}
        else:
            assert body == expected[SLOW]
    assert [server.send(QUICK)[:2] for _ in range(50)] == [(200, expected[QUICK])] * 50


def test_a_killed_process_hangs_nobody_and_starts_again_on_its_port(
    server: Shell, first: Release, expected: dict[bytes, bytes]
) -> None:
    with ThreadPoolExecutor(20) as pool:
        pending = [pool.submit(server.send, SLOW) for _ in range(20)]
        wait_until(lambda: any(future.done() for future in pending))
        server.process.kill()
        replies = [future.result() for future in pending]
    statuses = Counter(status for status, _, _ in replies)
    assert set(statuses) == {0, 200}
    assert {body for status, body, _ in replies if status} == {expected[SLOW]}
    server.process.wait()
    assert server.send(QUICK)[0] == 0
    with shell(first, server.port) as again:
        assert again.send(QUICK)[:2] == (200, expected[QUICK])


def test_what_is_under_way_at_the_end_is_answered(server: Shell, expected: dict[bytes, bytes]) -> None:
    with ThreadPoolExecutor(20) as pool:
        pending = [pool.submit(server.send, SLOW) for _ in range(20)]
        wait_until(lambda: any(future.done() for future in pending))  # all are connected by now
        server.process.send_signal(signal.SIGTERM)
        replies = [future.result()[:2] for future in pending]
    assert replies == [(200, expected[SLOW])] * 20
    assert server.process.wait(timeout=60) in (0, -signal.SIGTERM)


def test_clients_that_go_away_or_never_finish_keep_nobody_from_an_answer(
    server: Shell, expected: dict[bytes, bytes]
) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(SLOW)}\r\n\r\n".encode()
    stuck = []
    for i in range(2 * QUEUE):
        connection = socket.create_connection(("127.0.0.1", server.port))
        with suppress(ConnectionError):
            connection.sendall(head + (SLOW if i < 20 else SLOW[:100]))
        if i < 20:
            connection.close()  # gone before its answer
        else:
            stuck.append(connection)  # its body never comes
    time.sleep(0.2)
    assert [server.send(QUICK)[:2] for _ in range(20)] == [(200, expected[QUICK])] * 20
    for connection in stuck:
        connection.close()
