"""Two real servers, TorchServe and the ASGI shell, and thousands of hostile bodies: equal bytes, no 5xx."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import local

import pytest
import requests
import torch
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from car_model.recommender.recommender import Recommender
from common.limits import MAX_BODY_BYTES
from serving.answering.answer import respond
from serving.answering.golden import GoldenRequests
from serving.answering.openapi import document
from serving.archive.build import WorkerConfig
from serving.torchserve import process
from serving.torchserve.config import Ports
from serving.torchserve.infra_validation import BAD_REQUESTS
from serving.torchserve.server import TorchServe
from serving.torchserve.versions import replay_on_server
from tests.serving.answering.conformity import conforms
from tests.serving.conftest import REQUESTS, Release
from tests.serving.hostile import bodies, good, seeded

pytestmark = pytest.mark.integration

HOSTILE = 5_000
CLIENTS = 16  # twice a batch of TorchServe's, so that batches are full
TYPES = [
    None,
    "application/json",
    "text/plain",
    "application/octet-stream",
    "application/json; charset=utf-16",
]
FORMS = [
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "multipart/form-data; boundary=x",
    "/",
    "x" * 900,
]

Reply = tuple[int, bytes, str]


class Shell:
    """A server's prediction URL with a connection a thread."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self.url = url
        self.headers = headers
        self.mine = local()

    def send(self, body: bytes, kind: str | None = "application/json") -> Reply:
        if not hasattr(self.mine, "session"):
            self.mine.session = requests.Session()
            self.mine.session.trust_env = False
        headers = self.headers | ({"Content-Type": kind} if kind else {})
        reply = self.mine.session.post(self.url, data=body, headers=headers, timeout=60)
        return reply.status_code, reply.content, reply.headers.get("Content-Type", "")


@pytest.fixture(scope="module")
def torchserve(server: TorchServe) -> Shell:
    server.client.refresh_header()
    return Shell(server.client.prediction_url, dict([server.state.header.read_text().strip().split(": ", 1)]))


@pytest.fixture(scope="module")
def asgi(first: Release) -> Iterator[Shell]:
    """`python -m serving asgi` in a process of its own, told to stop at the end as an operator would."""
    port = Ports.choose().inference
    command = [sys.executable, "-m", "serving", "asgi", "--archive", str(first.archive), "--port", str(port)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"

    @retry(
        stop=stop_after_delay(90),
        wait=wait_fixed(0.2),
        retry=retry_if_exception_type(requests.ConnectionError),
    )
    def wait() -> None:
        assert child.poll() is None, child.stdout and child.stdout.read()
        assert requests.get(f"{url}/ping", timeout=10).json() == {
            "status": "Healthy",
            "release": first.digest,
        }

    try:
        wait()
        yield Shell(f"{url}/predictions/car", {})
    finally:
        child.send_signal(signal.SIGTERM)
        output, _ = child.communicate(timeout=30)
    assert output == b""  # no warning, no traceback
    assert child.returncode in (0, -signal.SIGTERM)


@pytest.fixture(scope="module")
def recommender(first: Release) -> Recommender:
    torch.set_num_threads(1)
    return Recommender.load(first.bundle, first.digest)


def in_parallel(send: Callable[[bytes], Reply], traffic: list[bytes]) -> list[Reply]:
    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(send, traffic))


def mixed(seed: int) -> list[bytes]:
    rng = seeded(seed)
    return [*(json.dumps(good(rng)).encode() for _ in range(10)), *bodies(90, seed)]


def workers(server: TorchServe) -> set[int]:
    return {child.pid for child in process.find_processes(server.state)}


@pytest.mark.timeout(600)
def test_five_thousand_hostile_bodies_meet_no_5xx_and_kill_no_worker(
    server: TorchServe, torchserve: Shell, asgi: Shell, recommender: Recommender, first: Release
) -> None:
    """Over HTTP, in full batches: every reply is the byte-exact one of the recommender in this process."""
    old_workers, traffic = workers(server), list(bodies(HOSTILE, seed=1))
    expected = [(*respond(recommender, body), "application/json") for body in traffic]
    statuses = Counter(status for status, _, _ in expected)
    assert set(statuses) == {200, 400}
    assert min(statuses.values()) > HOSTILE // 10
    assert WorkerConfig().batch_size < CLIENTS
    for shell in (torchserve, asgi):
        for body, reply, expected_reply in zip(
            traffic, in_parallel(shell.send, traffic), expected, strict=True
        ):
            assert reply == expected_reply, (shell.url, body[:200])
    for body, (status, answer, _) in zip(traffic, expected, strict=True):
        assert conforms(status, json.loads(answer)), (body[:200], answer[:300])
    assert workers(server) == old_workers
    assert replay_on_server(server.client, GoldenRequests.read(first.golden), first.digest, samples=0).passed


def test_the_content_type_changes_nothing(torchserve: Shell, asgi: Shell, recommender: Recommender) -> None:
    traffic = mixed(seed=5)
    expected = [respond(recommender, body) for body in traffic]
    for kind in TYPES:
        assert [reply[:2] for reply in in_parallel(partial(torchserve.send, kind=kind), traffic)] == expected
    for kind in (*TYPES, *FORMS):
        assert [reply[:2] for reply in in_parallel(partial(asgi.send, kind=kind), traffic)] == expected


@pytest.mark.parametrize("kind", FORMS)
def test_forms_reach_no_worker_that_they_could_harm(server: TorchServe, torchserve: Shell, kind: str) -> None:
    """TorchServe takes forms apart before us: one that its decoder can't read is its 500, the only one."""
    old_workers = workers(server)
    for status, answer, _ in in_parallel(partial(torchserve.send, kind=kind), mixed(seed=6)):
        assert status in (200, 400) or json.loads(answer)["type"] == "ErrorDataDecoderException"
    assert workers(server) == old_workers
    assert torchserve.send(b'{"history": ["i1"]}')[0] == 200


def test_both_shells_answer_with_equal_bytes(torchserve: Shell, asgi: Shell) -> None:
    rng = seeded(7)
    valid = [*REQUESTS, REQUESTS, {"requests": REQUESTS}, *[good(rng) for _ in range(50)]]
    traffic = [
        *BAD_REQUESTS.values(),
        *(json.dumps(request).encode() for request in valid),
        *bodies(300, seed=8),
    ]
    replies, asgi_replies = in_parallel(torchserve.send, traffic), in_parallel(asgi.send, traffic)
    assert replies == asgi_replies
    assert Counter(status for status, _, _ in replies)[200] > 60


@pytest.mark.parametrize("over", [0, 1])
def test_both_shells_refuse_what_is_far_too_large_unread(torchserve: Shell, asgi: Shell, over: int) -> None:
    body = b"[" * (4 * MAX_BODY_BYTES + over)
    assert [shell.send(body)[0] for shell in (torchserve, asgi)] == [413 if over else 400] * 2


def test_the_asgi_shell_describes_itself(asgi: Shell, recommender: Recommender) -> None:
    root = asgi.url.removesuffix("/predictions/car")
    assert requests.get(f"{root}/openapi.json", timeout=10).json() == document(recommender)
    assert requests.get(asgi.url, timeout=10).status_code == 405
    assert requests.get(f"{root}/models", timeout=10).status_code == 404
