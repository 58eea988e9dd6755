"""What serving adds to the Recommender: in process, TorchServe and the ASGI shell, side by side.

    python -m benchmarks.serving_speed --data PATH/amazon2014/Beauty

The release is made of the data set, trained for two epochs (what the weights are changes no time) with texts
in the act slot and in the score; it is kept under .cache/serving. Requests are real histories, k 10. The
limit is this process calling `serving.answering.answer.respond_all` in one thread, one by one; what
as many clients as a server's would see of it is that many bodies at a time. The servers run one model
process with one thread and get their requests over loopback from clients in another process. Every round
measures every case once, in an order drawn anew, and ratios are taken within a round.

Written to benchmarks/results/speed/serving.json.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import requests
import torch
import typer
from tqdm import tqdm

from benchmarks.load.clients import Measured, Target, measure, process_apart
from benchmarks.load.trained_release import Release, made
from benchmarks.report.machine import machine
from benchmarks.report.table import Sheet
from car_model.recommender.recommender import Recommender
from serving.answering.answer import respond_all
from serving.answering.openapi import PATH
from serving.archive.build import build_archive
from serving.torchserve.config import LOOPBACK
from serving.torchserve.server import TorchServe
from serving.torchserve.versions import register_and_wait

OUTPUT = Path("benchmarks/results/speed/serving.json")
CLIENTS = (1, 8, 32)
ASKED: dict[str, dict[str, Any]] = {
    "no reasons, thinking 0": {"explain": False, "thinking": 0},
    "no reasons, thinking 4": {"explain": False},
    "with reasons": {},
}
LIMIT = "in process"
WAIT_SECONDS = 60
app = typer.Typer(add_completion=False)

Measure = Callable[[], Measured]


@dataclass(frozen=True)
class Case:
    """One cell: who answers what to how many clients."""

    server: str
    asked: str
    clients: int


@app.command()
def main(
    data: Annotated[str, typer.Option(help="movielens, or an Amazon 2014 set's folder")],
    seconds: float = 5.0,
    rounds: int = 3,
) -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    release = made(data)
    with tempfile.TemporaryDirectory(prefix="car-") as folder:
        archive = build_archive(release.bundle, Path(folder), release="f" * 64)
        with (
            torchserve(archive, Path(folder) / "state") as (slow, first),
            asgi(archive) as (thin, other),
            process_apart() as apart,
        ):
            ask = partial(ask_apart, apart, seconds)
            cases = all_cases(release, {"TorchServe": slow, "ASGI": thin}, ask, seconds)
            runs = in_turn(cases, rounds)
    found = {
        "machine": machine(),
        "data": release.name,
        "items": release.items,
        "first_answer_s": {"TorchServe": first, "ASGI": other},
        "cases": [{**asdict(case), **summary(case, runs)} for case in cases],
    }
    for sheet in sheets(found):
        sheet.print()
    OUTPUT.write_text(json.dumps(found, indent=1) + "\n")


def ask_apart(apart: Executor, seconds: float, target: Target, bodies: list[bytes], clients: int) -> Measured:
    """Clients in the process apart."""
    return apart.submit(measure, target, bodies, clients, seconds).result()


def all_cases(
    release: Release, servers: dict[str, Target], ask: Callable[..., Measured], seconds: float
) -> dict[Case, Measure]:
    """Every cell of the tables."""
    recommender = Recommender.load(release.bundle, "f" * 64)
    cases: dict[Case, Measure] = {}
    for asked, changes in ASKED.items():
        bodies = [json.dumps({"history": one, "k": 10, **changes}).encode() for one in release.histories]
        for clients in CLIENTS:
            cases[Case(LIMIT, asked, clients)] = partial(alone, recommender, bodies, clients, seconds)
        for name, target in servers.items():
            for clients in CLIENTS:
                cases[Case(name, asked, clients)] = partial(ask, target, bodies, clients)
    return cases


def alone(recommender: Recommender, bodies: list[bytes], clients: int, seconds: float) -> Measured:
    """The Recommender without a server; what several clients ask is answered together."""
    taken: list[float] = []
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        waiting = [bodies[(len(taken) + at) % len(bodies)] for at in range(clients)]
        before = time.monotonic()
        respond_all(recommender, waiting)
        taken += [1000 * (time.monotonic() - before)] * clients
    return Measured.of(taken, time.monotonic() - started)


def in_turn(cases: dict[Case, Measure], rounds: int) -> dict[Case, list[Measured]]:
    """Every case once a round, after one that warms up and does not count."""
    order, runs, dice = list(cases), defaultdict(list), np.random.default_rng(0)
    for number in tqdm(range(rounds + 1), desc="rounds", unit="round"):
        for at in dice.permutation(len(order)):
            case = order[at]
            one = cases[case]()
            if number:
                runs[case].append(one)
    return runs


def summary(case: Case, runs: dict[Case, list[Measured]]) -> dict[str, Any]:
    """Medians over the rounds; ratios to the limit of the same round, with one client and with as many."""
    mine, limit = runs[case], runs[Case(LIMIT, case.asked, 1)]
    pairs = list(zip(mine, limit, strict=True))
    loaded = list(zip(mine, runs[Case(LIMIT, case.asked, case.clients)], strict=True))
    return {
        "per_second": round(median(one.per_second for one in mine), 1),
        "p50_ms": round(median(one.p50 for one in mine), 2),
        "p99_ms": round(median(one.p99 for one in mine), 2),
        "throughput_of_limit": round(median(one.per_second / best.per_second for one, best in pairs), 3),
        "p99_of_limit_p50": round(median(one.p99 / best.p50 for one, best in pairs), 2),
        "p99_of_loaded_p50": round(median(one.p99 / best.p50 for one, best in loaded), 2),
        "failed": sum(one.failed for one in mine),
    }


@contextlib.contextmanager
def torchserve(archive: Path, state: Path) -> Iterator[tuple[Target, float]]:
    """A TorchServe with the archive, and the seconds from nothing to its first answer."""
    started = time.monotonic()
    server = TorchServe.start(state)
    try:
        register_and_wait(server, archive)
        server.predict({"history": []})
        ready = time.monotonic() - started
        name, _, value = server.state.header.read_text().strip().partition(": ")
        yield Target(server.ports.inference, PATH, {name: value, "Content-Type": "application/json"}), ready
    finally:
        TorchServe.stop(state)


@contextlib.contextmanager
def asgi(archive: Path) -> Iterator[tuple[Target, float]]:
    """The second shell with the archive, and the seconds from nothing to its first answer."""
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    command = [sys.executable, "-m", "serving", "asgi", "--archive", str(archive), "--port", str(port)]
    child = subprocess.Popen(command)
    try:
        while not _healthy(port):
            if child.poll() is not None or time.monotonic() - started > WAIT_SECONDS:
                raise RuntimeError(f"the ASGI shell did not start: {' '.join(command)}")
            time.sleep(0.05)
        yield Target(port, PATH, {"Content-Type": "application/json"}), time.monotonic() - started
    finally:
        child.terminate()
        child.wait()


def _healthy(port: int) -> bool:
    try:
        return requests.get(f"http://{LOOPBACK}:{port}/ping", timeout=5).ok
    except requests.RequestException:
        return False


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """A table for every kind of request, and one of starts."""
    columns = (
        "server",
        "clients",
        "answers/s",
        "of the limit",
        "p50 ms",
        "p99 ms",
        "p99 / limit's p50",
        "at as many clients",
        "failed",
    )
    tables = []
    for asked in ASKED:
        rows = [
            (
                one["server"],
                str(one["clients"]),
                f"{one['per_second']:.0f}",
                f"{one['throughput_of_limit']:.0%}",
                f"{one['p50_ms']:.1f}",
                f"{one['p99_ms']:.1f}",
                f"{one['p99_of_limit_p50']:.1f}",
                f"{one['p99_of_loaded_p50']:.1f}",
                str(one["failed"]),
            )
            for one in found["cases"]
            if one["asked"] == asked
        ]
        tables.append(Sheet(f"{found['data']}, {found['items']} items, {asked}", columns, rows))
    starts = [(name, f"{seconds:.1f}") for name, seconds in found["first_answer_s"].items()]
    return [*tables, Sheet("From nothing to the first answer", ("server", "seconds"), starts)]


if __name__ == "__main__":
    app()
