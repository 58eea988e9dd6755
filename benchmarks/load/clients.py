"""Closed-loop clients of an HTTP server, in a process of their own: each asks again once it was answered."""

from __future__ import annotations

import http.client
import multiprocessing
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from serving.torchserve.config import LOOPBACK

OK = 200
TIMEOUT = 60.0


@dataclass(frozen=True)
class Target:
    """Where to post to."""

    port: int
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Measured:
    """Answers a second, and milliseconds from request to answer: median and 99th percentile."""

    per_second: float
    p50: float
    p99: float
    failed: int

    @classmethod
    def of(cls, milliseconds: Sequence[float], seconds: float, failed: int = 0) -> Measured:
        """Summarise the answers of `seconds`; raises ValueError where there are none."""
        if not len(milliseconds):
            raise ValueError(f"there was no answer within {seconds:g} s ({failed} requests failed).")
        p50, p99 = np.percentile(milliseconds, [50, 99]).tolist()
        return cls(len(milliseconds) / seconds, p50, p99, failed)


def measure(target: Target, bodies: Sequence[bytes], clients: int, seconds: float) -> Measured:
    """Ask for `seconds` with so many clients; what is under way at the end does not count."""
    end = time.monotonic() + seconds
    taken: list[list[float]] = [[] for _ in range(clients)]
    failed = [0] * clients

    def ask(at: int) -> None:
        connection = http.client.HTTPConnection(LOOPBACK, target.port, timeout=TIMEOUT)
        number = at
        while True:
            sent = time.monotonic()
            connection.request("POST", target.path, bodies[number % len(bodies)], dict(target.headers))
            reply = connection.getresponse()
            reply.read()
            now = time.monotonic()
            if now > end:
                return
            if reply.status == OK:
                taken[at].append(1000 * (now - sent))
            else:
                failed[at] += 1
            number += clients

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Measured.of([one for mine in taken for one in mine], seconds, sum(failed))


@contextmanager
def process_apart() -> Iterator[Executor]:
    """A process that clients run in, so that they do not share this one's interpreter."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool
