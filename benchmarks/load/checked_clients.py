"""Clients that ask a TorchServe without pause and check every answer against the releases that may give it.

They never retry, so every lost request is counted.
"""

from __future__ import annotations

import http.client
import itertools
import json
import multiprocessing
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from car_model.recommender.recommender import Recommender
from serving.answering.answer import respond
from serving.archive.build import MODEL_NAME
from serving.torchserve.config import LOOPBACK
from serving.torchserve.state_dir import StateDir

OK = 200
PATH = f"/predictions/{MODEL_NAME}"
TIMEOUT = 40.0  # seconds; longer than TorchServe lets a worker compute
PAUSE = 0.05  # before a client that got no answer connects again
ExpectedAnswers = Mapping[bytes, Mapping[str, bytes]]  # request body -> release -> its answer


@dataclass(frozen=True)
class SentRequest:
    """One request: when it was sent (monotonic), how it ended, and which release answered ("" if none)."""

    sent: float
    seconds: float
    status: int  # 0 without an answer
    release: str
    error: str

    @property
    def failed(self) -> bool:
        """Whether there was no answer, or an error."""
        return self.status != OK

    @property
    def mixed(self) -> bool:
        """Whether the answer is not what any release gives."""
        return self.status == OK and not self.release


class Load:
    """Clients in threads of this process; each has one connection and one request under way."""

    def __init__(self, state_dir: Path | str, expected: ExpectedAnswers, clients: int = 4) -> None:
        self.requests: list[SentRequest] = []
        self._state = StateDir(state_dir)
        self._expected = expected
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(client,)) for client in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def errors(self) -> list[str]:
        """What went wrong, in words."""
        return [request.error for request in self.requests if request.error]

    def _run(self, first: int) -> None:
        bodies = list(self._expected)
        connection, headers = self._connect()
        for body in itertools.islice(itertools.cycle(bodies), first % len(bodies), None):
            if self._ended.is_set():
                connection.close()
                return
            request = self._send(connection, headers, body)
            self.requests.append(request)
            if request.failed:  # TorchServe closed the connection; a restarted one has new keys
                connection.close()
                self._ended.wait(PAUSE)
                connection, headers = self._connect()

    def _connect(self) -> tuple[http.client.HTTPConnection, dict[str, str]]:
        ports = json.loads(self._state.server.read_text())["ports"]
        connection = http.client.HTTPConnection(LOOPBACK, ports["inference"], timeout=TIMEOUT)
        try:
            name, _, value = self._state.header.read_text().strip().partition(": ")
        except FileNotFoundError:  # the server is down
            return connection, {}
        return connection, {name: value, "Content-Type": "application/json"}

    def _send(
        self, connection: http.client.HTTPConnection, headers: Mapping[str, str], body: bytes
    ) -> SentRequest:
        sent = time.monotonic()
        try:
            connection.request("POST", PATH, body, headers)
            reply = connection.getresponse()
            status, content = reply.status, reply.read()
        except (OSError, http.client.HTTPException) as error:
            return SentRequest(sent, time.monotonic() - sent, 0, "", f"no answer: {error!r}")
        seconds = time.monotonic() - sent
        release = next((name for name, answer in self._expected[body].items() if answer == content), "")
        error_text = "" if status == OK and release else f"status {status}: {content[:300]!r}"
        return SentRequest(sent, seconds, status, release if status == OK else "", error_text)


def expected_answers(bundles: Mapping[str, Path], requests: Sequence[Mapping[str, Any]]) -> ExpectedAnswers:
    """What each release (digest -> bundle folder) answers in this process, byte for byte."""
    torch.set_num_threads(1)
    bodies = [json.dumps(request).encode() for request in requests]
    expected: dict[bytes, dict[str, bytes]] = {body: {} for body in bodies}
    for release, folder in bundles.items():
        recommender = Recommender.load(folder, release)
        for body in bodies:
            expected[body][release] = respond(recommender, body)[1]
    return expected


@contextmanager
def load_process(state_dir: Path, expected: ExpectedAnswers, clients: int) -> Iterator[list[SentRequest]]:
    """The same clients in a process of their own; the list is filled when the block ends."""
    spawn = multiprocessing.get_context("spawn")
    parent_end, child_end = spawn.Pipe()
    child = spawn.Process(target=_run_load, args=(state_dir, expected, clients, child_end))
    child.start()
    requests: list[SentRequest] = []
    try:
        parent_end.recv()  # the clients run
        yield requests
    finally:
        parent_end.send("stop")
        requests += parent_end.recv()
        child.join()


def _run_load(state_dir: Path, expected: ExpectedAnswers, clients: int, pipe: Any) -> None:
    with Load(state_dir, expected, clients) as load:
        pipe.send("started")
        pipe.recv()
    pipe.send(load.requests)
