"""Print throughput and latency of the Recommender in process, behind TorchServe and behind the ASGI server.

    python -m benchmarks.serving_speed --data PATH/amazon2014/Beauty

The release is trained for two epochs (`benchmarks.load.trained_release`); requests are real histories, k 10.
The limit is this process answering in one thread without a server: one request at a time, or as many at a
time as a server has clients. The servers run one model process with one thread; their clients are in another
process. Every round measures every case once in a new random order, and ratios are taken within a round.
About 10 minutes. Written to benchmarks/results/serving.csv.
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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import requests
import torch
import typer
from tqdm import tqdm

from benchmarks.load.clients import Target, Throughput, client_process, measure
from benchmarks.load.trained_release import TrainedRelease, trained_release
from benchmarks.report.machine import machine
from benchmarks.report.rows import Row, write_rows
from benchmarks.report.table import Table
from car_model.recommender.recommender import Recommender
from serving.answering.answer import respond_all
from serving.answering.openapi import PATH
from serving.archive.build import build_archive
from serving.torchserve.config import LOOPBACK
from serving.torchserve.server import TorchServe
from serving.torchserve.versions import register_and_wait

OUTPUT = Path("benchmarks/results/serving.csv")
CLIENTS = (1, 8, 32)
REQUESTS: dict[str, dict[str, Any]] = {
    "no reasons, thinking 0": {"explain": False, "thinking": 0},
    "no reasons, thinking 4": {"explain": False},
    "with reasons": {},
}
LIMIT = "in process"
START_TIMEOUT = 60.0  # seconds
RELEASE = "f" * 64
app = typer.Typer(add_completion=False)

Measure = Callable[[], Throughput]


@dataclass(frozen=True)
class Case:
    """A server, a kind of request and a number of clients."""

    server: str
    request: str
    clients: int


class ServingRow(Row):
    """One case: medians over the rounds."""

    machine: str
    dataset: str
    items: int
    server: str
    request: str
    clients: int
    answers_per_second: float
    p50_ms: float
    p99_ms: float
    throughput_of_limit: float
    """Over the throughput of the limit with one request at a time."""
    p99_of_limit_p50: float
    """99th percentile over the limit's median with one request at a time."""
    p99_of_loaded_p50: float
    """99th percentile over the limit's median with as many requests at a time."""
    failed: int
    first_answer_s: float | None = None
    """Seconds from starting the server to its first answer."""


@app.command()
def main(
    data: Annotated[str, typer.Option(help="movielens, or the folder of an Amazon 2014 data set.")],
    seconds: float = 5.0,
    rounds: int = 3,
) -> None:
    """Measure all cases and print the tables."""
    torch.set_num_threads(1)
    release = trained_release(data)
    with tempfile.TemporaryDirectory(prefix="car-") as folder:
        archive = build_archive(release.bundle, Path(folder), release=RELEASE)
        with (
            run_torchserve(archive, Path(folder) / "state") as (torchserve, torchserve_start),
            run_asgi(archive) as (asgi, asgi_start),
            client_process() as executor,
        ):
            cases = all_cases(release, {"TorchServe": torchserve, "ASGI": asgi}, executor, seconds)
            results = measure_in_turn(cases, rounds)
    starts = {"TorchServe": torchserve_start, "ASGI": asgi_start}
    rows = [
        ServingRow(
            machine=machine(),
            dataset=release.name,
            items=release.n_items,
            server=case.server,
            request=case.request,
            clients=case.clients,
            first_answer_s=starts.get(case.server),
            **summarise(case, results),
        )
        for case in cases
    ]
    write_rows(OUTPUT, rows)
    for table in tables(rows):
        table.print()


def all_cases(
    release: TrainedRelease, servers: dict[str, Target], executor: Executor, seconds: float
) -> dict[Case, Measure]:
    """Every case and how to measure it."""
    recommender = Recommender.load(release.bundle, RELEASE)
    cases: dict[Case, Measure] = {}
    for request, changes in REQUESTS.items():
        bodies = [
            json.dumps({"history": history, "k": 10, **changes}).encode() for history in release.histories
        ]
        for clients in CLIENTS:
            cases[Case(LIMIT, request, clients)] = partial(
                measure_in_process, recommender, bodies, clients, seconds
            )
        for name, target in servers.items():
            for clients in CLIENTS:
                cases[Case(name, request, clients)] = partial(
                    measure_server, executor, target, bodies, clients, seconds
                )
    return cases


def measure_server(
    executor: Executor, target: Target, bodies: list[bytes], clients: int, seconds: float
) -> Throughput:
    """Throughput of a server whose clients run in another process."""
    return executor.submit(measure, target, bodies, clients, seconds).result()


def measure_in_process(
    recommender: Recommender, bodies: list[bytes], clients: int, seconds: float
) -> Throughput:
    """Throughput without a server; the requests of several clients are answered together."""
    times: list[float] = []
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        batch = [bodies[(len(times) + i) % len(bodies)] for i in range(clients)]
        sent = time.monotonic()
        respond_all(recommender, batch)
        times += [1000 * (time.monotonic() - sent)] * clients
    return Throughput.of(times, time.monotonic() - start)


def measure_in_turn(cases: dict[Case, Measure], rounds: int) -> dict[Case, list[Throughput]]:
    """Measure every case once per round, after a warm-up round that does not count."""
    order, results, rng = list(cases), defaultdict(list), np.random.default_rng(0)
    for number in tqdm(range(rounds + 1), desc="rounds", unit="round"):
        for i in rng.permutation(len(order)):
            throughput = cases[order[i]]()
            if number:
                results[order[i]].append(throughput)
    return results


def summarise(case: Case, results: dict[Case, list[Throughput]]) -> dict[str, Any]:
    """Medians over the rounds; ratios to the limit are taken within a round."""
    runs = results[case]
    alone = list(zip(runs, results[Case(LIMIT, case.request, 1)], strict=True))
    loaded = list(zip(runs, results[Case(LIMIT, case.request, case.clients)], strict=True))
    return {
        "answers_per_second": round(median(run.per_second for run in runs), 1),
        "p50_ms": round(median(run.p50 for run in runs), 2),
        "p99_ms": round(median(run.p99 for run in runs), 2),
        "throughput_of_limit": round(median(run.per_second / limit.per_second for run, limit in alone), 3),
        "p99_of_limit_p50": round(median(run.p99 / limit.p50 for run, limit in alone), 2),
        "p99_of_loaded_p50": round(median(run.p99 / limit.p50 for run, limit in loaded), 2),
        "failed": sum(run.failed for run in runs),
    }


@contextlib.contextmanager
def run_torchserve(archive: Path, state_dir: Path) -> Iterator[tuple[Target, float]]:
    """A TorchServe with the archive, and the seconds from its start to its first answer."""
    start = time.monotonic()
    server = TorchServe.start(state_dir)
    try:
        register_and_wait(server, archive)
        server.predict({"history": []})
        seconds = time.monotonic() - start
        name, _, value = server.state.header.read_text().strip().partition(": ")
        headers = {name: value, "Content-Type": "application/json"}
        yield Target(server.ports.inference, PATH, headers), seconds
    finally:
        TorchServe.stop(state_dir)


@contextlib.contextmanager
def run_asgi(archive: Path) -> Iterator[tuple[Target, float]]:
    """The ASGI server with the archive, and the seconds from its start to its first answer."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    start = time.monotonic()
    command = [sys.executable, "-m", "serving", "asgi", "--archive", str(archive), "--port", str(port)]
    process = subprocess.Popen(command)
    try:
        while not is_healthy(port):
            if process.poll() is not None or time.monotonic() - start > START_TIMEOUT:
                raise RuntimeError(f"the ASGI server did not start: {' '.join(command)}")
            time.sleep(0.05)
        yield Target(port, PATH, {"Content-Type": "application/json"}), time.monotonic() - start
    finally:
        process.terminate()
        process.wait()


def is_healthy(port: int) -> bool:
    """Whether a server answers its health check."""
    try:
        return requests.get(f"http://{LOOPBACK}:{port}/ping", timeout=5).ok
    except requests.RequestException:
        return False


def tables(rows: Sequence[ServingRow]) -> list[Table]:
    """One table per kind of request, and one of starts."""
    columns = ["server", "clients", "answers/s", "of the limit", "p50 ms", "p99 ms"]
    columns += ["p99 / limit's p50", "at as many clients", "failed"]
    result = []
    for request in dict.fromkeys(row.request for row in rows):
        cells = [
            (
                row.server,
                str(row.clients),
                f"{row.answers_per_second:.0f}",
                f"{row.throughput_of_limit:.0%}",
                f"{row.p50_ms:.1f}",
                f"{row.p99_ms:.1f}",
                f"{row.p99_of_limit_p50:.1f}",
                f"{row.p99_of_loaded_p50:.1f}",
                str(row.failed),
            )
            for row in rows
            if row.request == request
        ]
        result.append(Table(f"{rows[0].dataset}, {rows[0].items} items, {request}", columns, cells))
    seconds = {row.server: row.first_answer_s for row in rows if row.first_answer_s is not None}
    starts = [(server, f"{value:.1f}") for server, value in seconds.items()]
    return [*result, Table("From start to first answer", ("server", "seconds"), starts)]


if __name__ == "__main__":
    app()
