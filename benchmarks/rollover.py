"""Print lost, wrong and stale answers and the latency of twenty TorchServe rollovers under load.

    python -m benchmarks.rollover

Two releases with a catalogue of Beauty's size (random vectors and weights cost what trained ones do) go into
a registry. `pipeline.py deploy --follow` serves its production channel, which is promoted to one and rolled
back to the other in turn, while clients in a process of their own ask without pause and never retry. Every
answer has to be, byte for byte, what one release answers in a quiet process. About 5 minutes. Written to
benchmarks/results/rollover.csv.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer
from tqdm import tqdm

from benchmarks.load.checked_clients import SentRequest, expected_answers, load_process
from benchmarks.load.random_releases import WHO, WHY, random_requests, write_releases
from benchmarks.report.machine import machine
from benchmarks.report.rows import Row, write_rows
from benchmarks.report.table import Table
from registry.channels.channel import promote, rollback
from registry.store.base import ObjectStore
from serving.torchserve.server import TorchServe

OUTPUT = Path("benchmarks/results/rollover.csv")
CHANNEL = "production"
POLL_SECONDS = 0.5  # between the follower's looks at the channel
LOAD_SECONDS = 3.0  # of load before and after each rollover

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Rollover:
    """One move of the channel: its start, and when the new release was reported, in monotonic seconds."""

    action: str
    release: str
    started: float
    reported: float


class Latency(Row):
    """Milliseconds from request to answer."""

    requests: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class RolloverRow(Row):
    """All rollovers of one measurement."""

    machine: str
    items: int
    clients: int
    rollovers: list[dict[str, str | float]]
    """Action and seconds of each rollover."""
    requests: int
    failed: int
    """Requests without an answer, or with an error."""
    mixed: int
    """Answers that no release gives."""
    stale: int
    """Answers of the old release after the switch was reported."""
    faults: list[str]
    """The first twenty errors."""
    answers: dict[str, int]
    """Answers by release."""
    during: Latency
    """Of requests sent during a rollover."""
    between: Latency


@app.command()
def main(rollovers: int = 20, items: int = 12_101, clients: int = 8) -> None:
    """Measure and print the tables."""
    with tempfile.TemporaryDirectory(prefix="car-rollover-") as folder:
        store, releases = write_releases(Path(folder), items)
        expected = expected_answers(releases, random_requests(items))
        state_dir = Path(folder) / "serving"
        first, second = releases
        promote(store, CHANNEL, first, who=WHO, why=WHY)
        with follower(store, state_dir) as log:
            wait_until_served(log, first)
            with load_process(state_dir, expected, clients) as requests:
                time.sleep(LOAD_SECONDS)
                moves = [
                    roll_over(store, number, first, second, log)
                    for number in tqdm(range(rollovers), unit="rollover")
                ]
    row = summarise(requests, moves, items=items, clients=clients)
    write_rows(OUTPUT, [row])
    for table in tables([row]):
        table.print()


def roll_over(store: ObjectStore, number: int, first: str, second: str, log: Iterator[str]) -> Rollover:
    """Promote (even numbers) or roll back (odd ones), and wait until the follower serves the release."""
    started = time.monotonic()
    if number % 2 == 0:
        action, release = "promote", second
        promote(store, CHANNEL, release, who=WHO, why=WHY)
    else:
        action, release = "rollback", first
        rollback(store, CHANNEL, to=release, who=WHO, why=WHY)
    wait_until_served(log, release)
    reported = time.monotonic()
    time.sleep(LOAD_SECONDS)
    return Rollover(action, release, started, reported)


def wait_until_served(log: Iterator[str], release: str) -> None:
    """Read the follower's output until it serves a release."""
    for line in log:
        if f"now serves {CHANNEL}, release {release[:12]}" in line:
            return
        tqdm.write(line.rstrip())
    raise SystemExit("The follower ended.")


@contextmanager
def follower(store: ObjectStore, state_dir: Path) -> Iterator[Iterator[str]]:
    """`pipeline.py deploy --follow` as a process; yields the lines that it prints."""
    command = [sys.executable, "pipeline.py", "deploy", CHANNEL, "--follow", str(POLL_SECONDS)]
    command += ["--registry", store.url, "--serving", str(state_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield iter(process.stdout or ())
        finally:
            process.terminate()
            process.wait()
            TorchServe.stop(state_dir)


def summarise(
    requests: Sequence[SentRequest], moves: Sequence[Rollover], *, items: int, clients: int
) -> RolloverRow:
    """Count lost, wrong and stale answers, and summarise latency during and between rollovers."""
    during: list[float] = []
    between: list[float] = []
    for request in requests:
        inside = any(move.started <= request.sent <= move.reported for move in moves)
        (during if inside else between).append(request.seconds * 1000)
    releases = {move.release for move in moves}
    return RolloverRow(
        machine=machine(),
        items=items,
        clients=clients,
        rollovers=[
            {"action": move.action, "seconds": round(move.reported - move.started, 2)} for move in moves
        ],
        requests=len(requests),
        failed=sum(request.failed for request in requests),
        mixed=sum(request.mixed for request in requests),
        stale=sum(is_stale(request, moves) for request in requests),
        faults=[request.error for request in requests if request.error][:20],
        answers={name: sum(request.release == name for request in requests) for name in releases},
        during=latency(during),
        between=latency(between),
    )


def is_stale(request: SentRequest, moves: Sequence[Rollover]) -> bool:
    """Whether a request, sent after a switch was reported and before the next move, met another release."""
    before = [move for move in moves if move.reported < request.sent]
    after = [move for move in moves if move.reported >= request.sent]
    if not before or (after and after[0].started <= request.sent + request.seconds):
        return False
    return request.release not in ("", before[-1].release)


def latency(milliseconds: Sequence[float]) -> Latency:
    """Median, 99th percentile and maximum."""
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return Latency(
        requests=len(milliseconds),
        p50_ms=round(float(p50), 1),
        p99_ms=round(float(p99), 1),
        max_ms=round(max(milliseconds), 1),
    )


def tables(rows: Sequence[RolloverRow]) -> list[Table]:
    """Lost, wrong and stale answers, and the latency that clients see."""
    row = rows[-1]
    seconds = [float(rollover["seconds"]) for rollover in row.rollovers]
    title = (
        f"{len(seconds)} rollovers under {row.clients} clients, {row.items:,} items: "
        f"{min(seconds):g} to {max(seconds):g} s each, median {np.median(seconds):.1f} s"
    )
    counts = [
        ["requests", f"{row.requests:,}"],
        ["without an answer, or with an error", str(row.failed)],
        ["answers that no release gives", str(row.mixed)],
        ["answers of the old release after the switch was reported", str(row.stale)],
    ]
    times = [
        [name, f"{part.requests:,}", f"{part.p50_ms:.1f}", f"{part.p99_ms:.1f}", f"{part.max_ms:.1f}"]
        for name, part in (("during a rollover", row.during), ("between", row.between))
    ]
    return [
        Table(title, ["", "number"], counts),
        Table("Latency (ms)", ["requests sent", "number", "p50", "p99", "max"], times),
    ]


if __name__ == "__main__":
    app()
