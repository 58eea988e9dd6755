"""Replay the golden requests on a TorchServe, and measure its latency."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np

from serving.answering.golden import GoldenRequests, ReplayReport, replay
from serving.torchserve.client import Client

WARM_UP = 20  # requests before the measurement
SAMPLES = 200


def replay_on_server(
    client: Client, golden: GoldenRequests, release: str, version: str | None = None, samples: int = SAMPLES
) -> ReplayReport:
    """Replay on one model version (default: the server's default one); if that passed, measure latency.

    Raises:
        ServingError: the server does not answer at all (it is down or reports an error of its own).
    """
    report = replay(golden, release, lambda request: client.predict(request, version))
    if not report.passed or not samples:
        return report
    bodies = [json.dumps(request).encode() for request in golden.requests]
    for i in range(WARM_UP):
        client.send(bodies[i % len(bodies)], version)
    seconds = np.empty(samples)
    for i in range(samples):
        started = time.perf_counter()
        client.send(bodies[i % len(bodies)], version)
        seconds[i] = time.perf_counter() - started
    p50, p99 = np.percentile(seconds * 1000, [50, 99]).round(2)
    return replace(report, p50_ms=float(p50), p99_ms=float(p99))
