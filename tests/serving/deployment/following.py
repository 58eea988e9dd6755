"""A registry with releases, `pipeline.py deploy --follow` as a process, and what a server leaves behind."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from registry.channels.channel import stage
from registry.releases.release import write_release
from registry.store.base import ObjectStore
from serving.torchserve.server import TorchServe
from tests.registry.bundles import make_evidence
from tests.serving.conftest import Release, write_infra_report

ANN = {"who": "ann@shop", "why": "a reason"}
PATIENCE = 300


def released(store: ObjectStore, release: Release, folder: Path, golden: Path | None = None) -> str:
    """A staged release that was validated; perhaps with another's golden requests."""
    evidence = make_evidence(folder, release.bundle)
    report = write_infra_report(folder, release.archive)
    evidence |= {"infra.json": report, "golden.json": golden or release.golden}
    digest = write_release(store, release.bundle, evidence).release
    assert digest == release.digest
    stage(store, digest, **ANN)
    return digest


@dataclass
class Follower:
    """`pipeline.py deploy --follow` as a process, and what it said so far."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait_for(self, sentence: str, times: int = 1) -> None:
        """Wait until it has said something so many times."""
        wait_until(lambda: self.log.read_text().count(sentence) >= times, self.log.read_text)

    def serves(self, release: str, times: int = 1) -> None:
        self.wait_for(f"now serves production, release {release[:12]}", times)


@contextmanager
def following(store: ObjectStore, state_dir: Path, folder: Path) -> Iterator[Follower]:
    """A follower; it and the server are ended afterwards."""
    command = [sys.executable, "pipeline.py", "deploy", "--follow", "0.3"]
    command += ["--registry", store.url, "--serving", str(state_dir)]
    log = folder / "follower.log"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as child:
        try:
            yield Follower(child, log)
        finally:
            child.kill()
            child.wait()
            TorchServe.stop(state_dir)
    assert "Traceback" not in log.read_text()


def wait_until(holds: Callable[[], bool], why: Callable[[], str] = str) -> None:
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until, why()
        time.sleep(0.1)


def looked(process: psutil.Process, times: int) -> None:
    """Let a follower look at the server again and again, seen by the time that its process takes."""
    for _ in range(times):
        cpu_seconds = sum(process.cpu_times()[:2])
        wait_until(lambda: sum(process.cpu_times()[:2]) > cpu_seconds)  # noqa: B023
