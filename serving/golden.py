"""Golden requests: what the evaluated recommender answered is what the served one must answer, exactly."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from serving.client import Client, RequestRefusedError
from serving.state import ServingError

SHOWN_DIFFERENCES = 5
SERVER_ERROR = 500
WARM_UP = 20
SAMPLES = 200


@dataclass(frozen=True)
class Golden:
    """Requests and the answers that the evaluated recommender gave."""

    requests: list[dict[str, Any]]
    answers: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Golden:
        """Read golden.json.

        Raises:
            ServingError: where the file is missing, malformed, empty or uneven.
        """
        try:
            content = json.loads(path.read_text("utf-8"))
            requests, answers = content["requests"], content["answers"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ServingError(f"{path} is not a golden file of requests and answers: {error!r}.") from error
        if not requests or len(requests) != len(answers):
            raise ServingError(
                f"{path} has {len(requests)} requests and {len(answers)} answers: it proves nothing."
            )
        return cls(requests, answers)


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


def first_difference(expected: Any, actual: Any, where: str = "answer") -> str | None:
    """Say where two JSON values part, or None where they are equal; 1, 1.0 and true are all different."""
    return next(_differences(expected, actual, where), None)


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


def _differences(expected: Any, actual: Any, where: str) -> Iterator[str]:
    if type(expected) is not type(actual):
        yield f"{where} is {_short(actual)}, expected {_short(expected)}"
    elif isinstance(expected, dict):
        yield from _key_differences(expected, actual, where)
        shared = [key for key in expected if key in actual]
        parts = (_differences(expected[key], actual[key], f"{where}.{key}") for key in shared)
        yield from chain.from_iterable(parts)
    elif isinstance(expected, list):
        if len(expected) != len(actual):
            yield f"{where} has {len(actual)} entries, expected {len(expected)}"
        pairs = enumerate(zip(expected, actual, strict=False))
        yield from chain.from_iterable(_differences(a, b, f"{where}[{index}]") for index, (a, b) in pairs)
    elif expected != actual:
        yield f"{where} is {_short(actual)}, expected {_short(expected)}"


def _key_differences(expected: Mapping[str, Any], actual: Mapping[str, Any], where: str) -> Iterator[str]:
    if missing := sorted(set(expected) - set(actual)):
        yield f"{where} lacks {', '.join(missing)}"
    if added := sorted(set(actual) - set(expected)):
        yield f"{where} has the unexpected {', '.join(added)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
