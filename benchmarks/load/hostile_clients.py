"""Print what clients that never finish a request take of the ASGI server, and that it is given back.

    python -m benchmarks.load.hostile_clients

`car asgi` serves random weights. Clients open connections at once, send a part of a request and then nothing.
While they wait, a well-behaved client asks. Written to the terminal only; about 2 minutes.
"""

from __future__ import annotations

import json
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import psutil
import requests
import typer

from benchmarks.load.random_releases import random_bundle
from benchmarks.report.machine import machine
from benchmarks.report.table import Table
from serving.answering.openapi import PATH
from serving.archive.build import build_archive
from serving.asgi.connections import REQUEST_SECONDS
from serving.torchserve.config import LOOPBACK, MAX_REQUEST_BYTES, Ports

RELEASE = "f" * 64
HEAD = f"POST {PATH} HTTP/1.1\r\nHost: car\r\nContent-Length: {MAX_REQUEST_BYTES}\r\n".encode()
HALF_BODY = HEAD + b"\r\n" + b"x" * (MAX_REQUEST_BYTES - 1000)
CASES = (
    ("1,000 half-open headers", 1_000, HEAD),
    ("700 unfinished bodies of 1 MiB", 700, HALF_BODY),
    ("10,000 silent connections", 10_000, b""),
)
app = typer.Typer(add_completion=False)


@app.command()
def main(items: int = 12_101) -> None:
    """Measure and print the table."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory(prefix="car-hostile-") as folder, served(Path(folder), items) as server:
        rows = [[name, *measure(server, port_of(server), count, request)] for name, count, request in CASES]
    columns = ["clients", "before, MiB", "at most, MiB", "after, MiB", "good requests", "what they get"]
    Table(f"Memory of the server under clients that never finish ({machine()})", columns, rows).print()


@contextmanager
def served(folder: Path, items: int) -> Iterator[psutil.Process]:
    """`car asgi` with random weights."""
    random_bundle(items, seed=0).save(folder / "bundle")
    archive = build_archive(folder / "bundle", folder, RELEASE)
    port = Ports.choose().inference
    command = [sys.executable, "-m", "serving", "asgi", "--archive", str(archive), "--port", str(port)]
    with subprocess.Popen(command) as process:
        try:
            while ask(port) != "200":
                time.sleep(0.2)
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def port_of(server: psutil.Process) -> int:
    """The port that the server listens on."""
    listeners = [item for item in server.net_connections() if item.status == psutil.CONN_LISTEN]
    return int(listeners[0].laddr.port)


def measure(server: psutil.Process, port: int, count: int, request: bytes) -> list[str]:
    """Memory before, at most and after in MiB; statuses of good requests meanwhile; those of the clients."""
    before = mebibytes(server)
    clients = selectors.DefaultSelector()
    for _ in range(count):
        client = socket.create_connection((LOOPBACK, port))
        client.setblocking(False)
        clients.register(client, selectors.EVENT_READ | selectors.EVENT_WRITE, [memoryview(request), b""])
    peak, good, statuses = before, Counter[str](), Counter[str]()
    asked = time.monotonic()
    while clients.get_map():
        for key, events in clients.select(0.1):
            advance(clients, key, events, statuses)
        peak = max(peak, mebibytes(server))
        if time.monotonic() > asked + 1:
            good[ask(port)] += 1
            asked = time.monotonic()
    return [before, peak, mebibytes(server), shown(good), shown(statuses)]


def advance(
    clients: selectors.BaseSelector, key: selectors.SelectorKey, events: int, statuses: Counter[str]
) -> None:
    """Send and receive what is possible; count a client's status once it is closed."""
    client, (rest, received) = cast(socket.socket, key.fileobj), key.data
    try:
        if events & selectors.EVENT_WRITE and rest:
            key.data[0] = rest = rest[client.send(rest[: 2**16]) :]
        if events & selectors.EVENT_READ:
            if chunk := client.recv(2**16):
                key.data[1] = received + chunk
            else:
                raise ConnectionError
        if not rest:
            clients.modify(client, selectors.EVENT_READ, key.data)
    except BlockingIOError:
        pass
    except OSError:
        statuses[key.data[1][9:12].decode() or "closed"] += 1
        clients.unregister(client)
        client.close()


def ask(port: int) -> str:
    """The status of a good request, or the error."""
    try:
        body = json.dumps({"history": ["1", "2"], "k": 5})
        url = f"http://{LOOPBACK}:{port}{PATH}"
        return str(requests.post(url, body, timeout=REQUEST_SECONDS).status_code)
    except requests.RequestException as error:
        return type(error).__name__


def mebibytes(server: psutil.Process) -> str:
    """Resident memory."""
    return f"{server.memory_info().rss / 2**20:,.0f}".rjust(6)


def shown(statuses: Counter[str]) -> str:
    """Counts in words."""
    return ", ".join(f"{count:,} x {status}" for status, count in statuses.most_common())


if __name__ == "__main__":
    app()
