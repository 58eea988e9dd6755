"""Clients that ask a TorchServe without pause and hold every answer against the releases that may give it.

They repeat nothing: what the server loses is counted.
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
Right = Mapping[bytes, Mapping[str, bytes]]  # body -> release -> the answer that this release gives


@dataclass(frozen=True)
class Asked:
    """One request: when it was sent (monotonic), how it ended, and by which release (“” where unknown)."""

    sent: float
    seconds: float
    status: int  # 0 where there was no answer
    release: str
    fault: str

    @property
    def failed(self) -> bool:
        """Whether there was no answer, or an error."""
        return self.status != OK

    @property
    def mixed(self) -> bool:
        """Whether the answer is no release's."""
        return self.status == OK and not self.release


class Load:
    """Clients in threads of this process; each has one connection and one request under way."""

    def __init__(self, state_dir: Path | str, right: Right, clients: int = 4) -> None:
        self.asked: list[Asked] = []
        self._state = StateDir.at(state_dir)
        self._right = right
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(at,)) for at in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def faults(self) -> list[str]:
        """What went wrong, in words."""
        return [one.fault for one in self.asked if one.fault]

    def _run(self, first: int) -> None:
        bodies = list(self._right)
        connection, headers = self._connect()
        for body in itertools.islice(itertools.cycle(bodies), first % len(bodies), None):
            if self._ended.is_set():
                connection.close()
                return
            one = self._ask(connection, headers, body)
            self.asked.append(one)
            if one.failed:  # TorchServe closes the connection, and one that was started anew has new keys
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

    def _ask(self, connection: http.client.HTTPConnection, headers: Mapping[str, str], body: bytes) -> Asked:
        sent = time.monotonic()
        try:
            connection.request("POST", PATH, body, headers)
            reply = connection.getresponse()
            status, content = reply.status, reply.read()
        except (OSError, http.client.HTTPException) as error:
            return Asked(sent, time.monotonic() - sent, 0, "", f"no answer: {error!r}")
        seconds = time.monotonic() - sent
        by = next((name for name, answer in self._right[body].items() if answer == content), "")
        fault = "" if status == OK and by else f"status {status}: {content[:300]!r}"
        return Asked(sent, seconds, status, by if status == OK else "", fault)


def right_answers(bundles: Mapping[str, Path], requests: Sequence[Mapping[str, Any]]) -> Right:
    """What each release (digest -> bundle folder) answers in this process, byte for byte."""
    torch.set_num_threads(1)
    bodies = [json.dumps(request).encode() for request in requests]
    right: dict[bytes, dict[str, bytes]] = {body: {} for body in bodies}
    for release, folder in bundles.items():
        recommender = Recommender.load(folder, release)
        for body in bodies:
            right[body][release] = respond(recommender, body)[1]
    return right


@contextmanager
def load_apart(state_dir: Path, right: Right, clients: int) -> Iterator[list[Asked]]:
    """The same clients in a process of their own; the list is filled at the end."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=_load, args=(state_dir, right, clients, theirs))
    child.start()
    asked: list[Asked] = []
    try:
        ours.recv()  # the clients run
        yield asked
    finally:
        ours.send("stop")
        asked += ours.recv()
        child.join()


def _load(state_dir: Path, right: Right, clients: int, pipe: Any) -> None:
    with Load(state_dir, right, clients) as load:
        pipe.send("started")
        pipe.recv()
    pipe.send(load.asked)
