"""A registry with releases, and the very process that a pod runs, on loopback ports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from registry.channels.channel import promote, stage
from registry.releases.release import write_release
from registry.store.base import ObjectStore
from serving.torchserve.config import Ports
from tests.registry.bundles import make_evidence
from tests.serving.conftest import Release, write_infra_report

ANN = {"who": "ann@shop", "why": "a reason"}
KEY, NEXT_KEY = "first-" + "k" * 40, "second-" + "k" * 40


def released(store: ObjectStore, release: Release, **evidence: Path) -> str:
    """Write a release with golden answers and the report of its infra validation; returns its digest."""
    folder = release.bundle.parent
    report = write_infra_report(folder, release.archive)
    files = (
        make_evidence(folder, release.bundle)
        | {"golden.json": release.golden, "infra.json": report}
        | evidence
    )
    return write_release(store, release.bundle, files).release


def in_production(store: ObjectStore, release: str) -> None:
    """Move production to a release."""
    stage(store, release, **ANN)
    promote(store, "production", release, **ANN)


@dataclass
class Running:
    """A pod's process; `log` is all that it wrote."""

    process: subprocess.Popen[bytes]
    port: int
    metrics_port: int
    log: Path

    def get(self, path: str, key: str | None = None, port: int | None = None) -> requests.Response:
        return self.call("GET", path, key, port=port)

    def ask(self, value: Any, key: str | None = KEY) -> requests.Response:
        return self.call("POST", "/predictions/car", key, json=value)

    def call(
        self, verb: str, path: str, key: str | None, port: int | None = None, **more: Any
    ) -> requests.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url = f"http://127.0.0.1:{port or self.port}{path}"
        with requests.Session() as session:
            session.trust_env = False
            return session.request(verb, url, headers=headers, timeout=60, **more)

    def wait(self, holds: Callable[[], Any], seconds: float = 180) -> None:
        until = time.monotonic() + seconds
        while True:
            try:
                if holds():
                    return
            except requests.ConnectionError:
                pass
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.1)


@contextmanager
def pod(
    folder: Path, arguments: Sequence[str], prefix: Sequence[str] = (), env: dict[str, str] | None = None
) -> Iterator[Running]:
    """Run `pipeline.py serve` with arguments on free ports; what it wrote holds no traceback at the end.

    Args:
        folder: for its log.
        arguments: beyond the ports.
        prefix: what starts the command, such as setpriv.
        env: variables on top of this process's.
    """
    ports = Ports.choose()
    command = [*prefix, sys.executable, "pipeline.py", "serve", *arguments, "--port", str(ports.inference)]
    command += ["--metrics-port", str(ports.metrics)]
    log = folder / "pod.log"
    with log.open("wb") as written:
        process = subprocess.Popen(command, stdout=written, stderr=written, env=os.environ | (env or {}))
    try:
        yield Running(process, ports.inference, ports.metrics, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=60)
        finally:
            process.kill()
    assert "Traceback" not in log.read_text(), log.read_text()
