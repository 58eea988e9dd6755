"""Twenty rollovers of a TorchServe under load: what fails, what is mixed up, how long it takes.

    python -m benchmarks.rollover

Two releases with a catalogue of Beauty's size (random vectors and weights cost what trained ones do) go into
a registry. `python pipeline.py deploy --follow` serves its production channel, which is promoted to one and
rolled back to the other in turn, while clients in a process of their own ask without pause and repeat
nothing. Every answer has to be, byte for byte, what one release answers in a quiet process.

Written to benchmarks/results/speed/rollover.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer
from tqdm import tqdm

from benchmarks.load.checked_clients import Asked, Right, load_apart, right_answers
from benchmarks.load.random_releases import WHO, WHY, asked_for, released
from benchmarks.report.machine import machine
from benchmarks.rollover_tables import sheets
from registry.channels.channel import promote, rollback
from registry.store.base import ObjectStore
from serving.torchserve.server import TorchServe

RESULT = Path("benchmarks/results/speed/rollover.json")
CHANNEL = "production"
LOOK = 0.5  # seconds between the follower's looks at the channel
SETTLED = 3.0  # seconds of load before and after each rollover
WAIT = 600.0

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Rollover:
    """One move of the channel, in monotonic seconds."""

    action: str
    release: str
    moved: float
    reported: float


@app.command()
def main(rollovers: int = 20, items: int = 12_101, clients: int = 8, output: Path = RESULT) -> None:
    """Measure, print and write."""
    with tempfile.TemporaryDirectory(prefix="car-rollover-") as folder:
        store, releases = released(Path(folder), items)
        requests = asked_for(items)
        right = right_answers(releases, requests)
        served = Path(folder) / "serving"
        first, second = releases
        promote(store, CHANNEL, first, who=WHO, why=WHY)
        with follower(store, served) as told, load_when_up(told, served, right, clients) as asked:
            time.sleep(SETTLED)
            moves = [
                move(store, number, first, second, told) for number in tqdm(range(rollovers), unit="rollover")
            ]
    found: dict[str, Any] = {
        "machine": machine(),
        "items": items,
        "clients": clients,
        **measured(asked, moves),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1) + "\n")
    for sheet in sheets(found):
        sheet.print()


def measured(asked: Sequence[Asked], moves: Sequence[Rollover]) -> dict[str, Any]:
    """Failures, mixed answers, answers of an old release after its end was reported, and times."""
    during: list[float] = []
    outside: list[float] = []
    for one in asked:
        inside = any(move.moved <= one.sent <= move.reported for move in moves)
        (during if inside else outside).append(one.seconds * 1000)
    return {
        "rollovers": [
            {"action": move.action, "seconds": round(move.reported - move.moved, 2)} for move in moves
        ],
        "requests": len(asked),
        "failed": sum(one.failed for one in asked),
        "mixed": sum(one.mixed for one in asked),
        "late": sum(late(one, moves) for one in asked),
        "faults": [one.fault for one in asked if one.fault][:20],
        "answers": {name: sum(one.release == name for one in asked) for name in {m.release for m in moves}},
        "during": summary(during),
        "outside": summary(outside),
    }


def late(one: Asked, moves: Sequence[Rollover]) -> bool:
    """Whether a request sent after a switch was reported, and before the next move, met another release."""
    before = [move for move in moves if move.reported < one.sent]
    coming = [move for move in moves if move.reported >= one.sent]
    if not before or (coming and coming[0].moved <= one.sent + one.seconds):
        return False
    return one.release not in ("", before[-1].release)


def summary(times: Sequence[float]) -> dict[str, float]:
    """How many, median and 99th percentile in milliseconds, and the longest."""
    p50, p99 = np.percentile(times, [50, 99])
    return {
        "requests": len(times),
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "max_ms": round(max(times), 1),
    }


def move(store: ObjectStore, number: int, first: str, second: str, told: Iterator[str]) -> Rollover:
    """Promote or roll back, and wait until the follower says that it is served."""
    forward = number % 2 == 0
    wanted = second if forward else first
    began = time.monotonic()
    if forward:
        promote(store, CHANNEL, wanted, who=WHO, why=WHY)
    else:
        rollback(store, CHANNEL, to=wanted, who=WHO, why=WHY)
    heard(told, wanted)
    reported = time.monotonic()
    time.sleep(SETTLED)
    return Rollover("promote" if forward else "rollback", wanted, began, reported)


def heard(told: Iterator[str], release: str) -> None:
    """Read what the follower says until it serves a release."""
    for line in told:
        if f"now serves {CHANNEL}, release {release[:12]}" in line:
            return
        tqdm.write(line.rstrip())
    raise SystemExit("The follower ended.")


@contextmanager
def follower(store: ObjectStore, served: Path) -> Iterator[Iterator[str]]:
    """`pipeline.py deploy --follow` as a process; yields the lines that it prints."""
    command = [sys.executable, "pipeline.py", "deploy", CHANNEL, "--follow", str(LOOK)]
    command += ["--registry", store.url, "--serving", str(served)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        try:
            yield iter(running.stdout or ())
        finally:
            running.terminate()
            running.wait()
            TorchServe.stop(served)


@contextmanager
def load_when_up(told: Iterator[str], served: Path, right: Right, clients: int) -> Iterator[list[Asked]]:
    """Clients, once the first release is served."""
    heard(told, next(iter(next(iter(right.values())))))
    with load_apart(served, right, clients) as asked:
        yield asked


if __name__ == "__main__":
    app()
