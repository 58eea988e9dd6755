"""Callers without a key that hold connections and unfinished bodies: all is bounded and given back."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from common.digests import file_digest
from serving.torchserve import process
from serving.torchserve.config import LOOPBACK, MAX_REQUEST_BYTES, ServerConfig
from serving.torchserve.process import OWN_FILES
from serving.torchserve.rollover import roll_over
from serving.torchserve.server import TorchServe
from tests.serving.conftest import REQUESTS, Release
from tests.serving.deployment.following import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
CONNECTIONS = 30
HEAD = f"POST /predictions/car HTTP/1.1\r\nHost: x\r\nContent-Length: {MAX_REQUEST_BYTES}\r\n\r\n".encode()


@pytest.fixture(scope="module")
def small(state_dir: Path, first: Release) -> Iterator[TorchServe]:
    """A server whose bodies would not fit into its heap's size, which is Java's default for direct memory."""
    roll_over(
        first.archive,
        first.digest,
        state_dir,
        first.golden,
        ServerConfig(heap_mb=64, connections=CONNECTIONS),
        validated_sha256=file_digest(first.archive),
    )
    yield TorchServe.attach(state_dir)


def front_end(server: TorchServe) -> psutil.Process:
    leader = process.frontend_process(server.state)
    assert leader is not None
    return leader


@pytest.mark.parametrize(
    ("first_bytes", "body_bytes"),
    [(b"", 0), (HEAD[:-2], 0), (HEAD, MAX_REQUEST_BYTES - 1)],
    ids=["silent", "half a header", "half a body"],
)
def test_neighbours_without_a_key_take_no_more_than_their_share(
    small: TorchServe, first: Release, first_bytes: bytes, body_bytes: int
) -> None:
    java = front_end(small)
    files = CONNECTIONS + OWN_FILES
    assert java.rlimit(resource.RLIMIT_NOFILE) == (files, files)
    with ExitStack() as held:
        for _ in range(4 * CONNECTIONS):
            caller = held.enter_context(socket.create_connection((LOOPBACK, small.ports.inference)))
            caller.setblocking(False)  # what the server doesn't read stays unsent
            rest = memoryview(first_bytes + bytes(body_bytes))
            try:
                while rest:
                    rest = rest[caller.send(rest) :]
            except BlockingIOError:
                pass
        wait_until(lambda: java.num_fds() >= files - 1)
    wait_until(lambda: java.num_fds() < OWN_FILES)
    assert TorchServe.attach(small.state.root).predict(REQUESTS[0])["release"] == first.digest
    assert front_end(small).pid == java.pid
    log = (small.state.logs / "server.log").read_text()
    assert "OutOfMemoryError" not in log
    assert "OutOfDirectMemoryError" not in log
