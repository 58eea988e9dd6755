"""Closed-loop HTTP clients in a process of their own: each sends its next request once it has an answer."""

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
class Throughput:
    """Answers per second, and milliseconds from request to answer (median and 99th percentile)."""

    per_second: float
    p50: float
    p99: float
    failed: int

    @classmethod
    def of(cls, milliseconds: Sequence[float], seconds: float, failed: int = 0) -> Throughput:
        """Summarise the answers of `seconds`.

        Raises:
            ValueError: there was no answer.
        """
        if not len(milliseconds):
            raise ValueError(f"there was no answer within {seconds:g} s ({failed} requests failed).")
        p50, p99 = np.percentile(milliseconds, [50, 99]).tolist()
        return cls(len(milliseconds) / seconds, p50, p99, failed)


def measure(target: Target, bodies: Sequence[bytes], clients: int, seconds: float) -> Throughput:
    """Send requests for `seconds` from a number of clients; requests under way at the end do not count."""
    end = time.monotonic() + seconds
    times: list[list[float]] = [[] for _ in range(clients)]
    failed = [0] * clients

    def run(client: int) -> None:
        connection = http.client.HTTPConnection(LOOPBACK, target.port, timeout=TIMEOUT)
        number = client
        while True:
            sent = time.monotonic()
            connection.request("POST", target.path, bodies[number % len(bodies)], dict(target.headers))
            reply = connection.getresponse()
            reply.read()
            now = time.monotonic()
            if now > end:
                return
            if reply.status == OK:
                times[client].append(1000 * (now - sent))
            else:
                failed[client] += 1
            number += clients

    threads = [threading.Thread(target=run, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Throughput.of([value for client_times in times for value in client_times], seconds, sum(failed))


@contextmanager
def client_process() -> Iterator[Executor]:
    """A process for the clients, so that they do not share this process's interpreter lock."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool
