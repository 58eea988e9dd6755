"""Replay the golden requests against a server, and measure its latency."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from serving.answering.golden import (
    SAMPLES,
    SERVER_ERROR,
    SHOWN_DIFFERENCES,
    WARM_UP,
    Golden,
    first_difference,
)
from serving.torchserve.client import Client, RequestRefusedError


@dataclass(frozen=True)
class GoldenReport:
    """The outcome of a replay; times are milliseconds over loopback HTTP, one request at a time."""

    requests: int
    differing: int
    differences: tuple[str, ...]
    p50_ms: float
    p99_ms: float

    @property
    def passed(self) -> bool:
        """Whether every answer was the expected one."""
        return self.differing == 0

    def sentence(self) -> str:
        """The outcome in words."""
        if self.passed:
            return f"all {self.requests} golden requests gave the expected answer"
        first = "; ".join(self.differences)
        return f"{self.differing} of {self.requests} golden requests gave another answer: {first}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"differences": list(self.differences)}


def replay(
    client: Client, golden: Golden, expected_release: str, version: str | None = None, samples: int = SAMPLES
) -> GoldenReport:
    """Send every golden request to a model version, compare the answers, then measure latency.

    Raises:
        ServingError: where the server does not answer at all (down, or an error of its own).
    """
    wrong = []
    for number, (request, expected) in enumerate(zip(golden.requests, golden.answers, strict=True)):
        difference = _check(client, request, expected | {"release": expected_release}, version)
        if difference:
            wrong.append(f"request {number}: {difference}")
    p50, p99 = measure_latency(client, golden, version, samples) if not wrong and samples else (0.0, 0.0)
    return GoldenReport(len(golden.requests), len(wrong), tuple(wrong[:SHOWN_DIFFERENCES]), p50, p99)


def measure_latency(
    client: Client, golden: Golden, version: str | None = None, samples: int = SAMPLES
) -> tuple[float, float]:
    """Median and 99th percentile in milliseconds of one request at a time, after a warm-up."""
    bodies = [json.dumps(request).encode() for request in golden.requests]
    for index in range(WARM_UP):
        client.send(bodies[index % len(bodies)], version)
    times = np.empty(samples)
    for index in range(samples):
        started = time.perf_counter()
        client.send(bodies[index % len(bodies)], version)
        times[index] = time.perf_counter() - started
    p50, p99 = np.percentile(times * 1000, [50, 99])
    return round(float(p50), 2), round(float(p99), 2)


def _check(
    client: Client, request: Mapping[str, Any], expected: Mapping[str, Any], version: str | None
) -> str | None:
    try:
        actual = client.predict(request, version)
    except RequestRefusedError as refusal:
        if refusal.status >= SERVER_ERROR:
            raise
        return f"refused with {refusal.status}: {refusal}"
    return first_difference(dict(expected), actual)
