"""Golden requests: a served recommender must answer them exactly as the evaluated one did."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.files import read_json_object
from serving.errors import RequestRefusedError, ServingError

SHOWN_DIFFERENCES = 5
SERVER_ERROR = 500
Predict = Callable[[dict[str, Any]], dict[str, Any]]
"""Returns the answer to a request, or raises RequestRefusedError."""


@dataclass(frozen=True)
class GoldenRequests:
    """Requests, and the answers that the evaluated recommender gave."""

    requests: list[dict[str, Any]]
    answers: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> GoldenRequests:
        """Read golden.json.

        Raises:
            ServingError: the file is missing or malformed, or has no requests or not one answer per request.
        """
        content = read_json_object(path, ServingError)
        requests, answers = content.get("requests"), content.get("answers")
        if not isinstance(requests, list) or not isinstance(answers, list):
            raise ServingError(f"{path} is not a golden file: it must hold lists of requests and answers.")
        if not requests or len(requests) != len(answers):
            raise ServingError(
                f"{path} has {len(requests)} requests and {len(answers)} answers: it proves nothing."
            )
        return cls(requests, answers)


@dataclass(frozen=True)
class ReplayReport:
    """The outcome of a replay."""

    requests: int
    """Golden requests that were sent."""
    differing: int
    """Those with another answer than the golden one."""
    differences: tuple[str, ...]
    """The first differences in words."""
    p50_ms: float = 0.0
    """Median latency in milliseconds over loopback HTTP, one request at a time; 0 if it was not measured."""
    p99_ms: float = 0.0
    """99th percentile of the same latencies."""

    @property
    def passed(self) -> bool:
        """Whether every answer was the golden one."""
        return self.differing == 0

    def sentence(self) -> str:
        """The outcome in words."""
        if self.passed:
            return f"all {self.requests} golden requests gave the expected answer"
        differences = "; ".join(self.differences)
        return f"{self.differing} of {self.requests} golden requests gave another answer: {differences}"


def replay(golden: GoldenRequests, release: str, predict: Predict) -> ReplayReport:
    """Ask every golden request and compare the answers, value for value, under the name of `release`.

    Raises:
        ServingError: a request gets no answer at all (the server is down or reports an error of its own).
    """
    differences = []
    for index, (request, expected) in enumerate(zip(golden.requests, golden.answers, strict=True)):
        try:
            difference = first_difference(expected | {"release": release}, predict(request))
        except RequestRefusedError as refusal:
            if refusal.status >= SERVER_ERROR:
                raise
            difference = f"refused with {refusal.status}: {refusal}"
        if difference:
            differences.append(f"request {index}: {difference}")
    return ReplayReport(len(golden.requests), len(differences), tuple(differences[:SHOWN_DIFFERENCES]))


def first_difference(expected: Any, actual: Any, path: str = "answer") -> str | None:
    """Say where two JSON values differ first; None if they are equal. 1, 1.0 and true are all different."""
    return next(_differences(expected, actual, path), None)


def _differences(expected: Any, actual: Any, path: str) -> Iterator[str]:
    if type(expected) is not type(actual):
        yield f"{path} is {_shorten(actual)}, expected {_shorten(expected)}"
    elif isinstance(expected, dict):
        if missing := sorted(set(expected) - set(actual)):
            yield f"{path} lacks {', '.join(missing)}"
        if added := sorted(set(actual) - set(expected)):
            yield f"{path} has the unexpected {', '.join(added)}"
        for key in expected:
            if key in actual:
                yield from _differences(expected[key], actual[key], f"{path}.{key}")
    elif isinstance(expected, list):
        if len(expected) != len(actual):
            yield f"{path} has {len(actual)} entries, expected {len(expected)}"
        for index, (expected_item, actual_item) in enumerate(zip(expected, actual, strict=False)):
            yield from _differences(expected_item, actual_item, f"{path}[{index}]")
    elif expected != actual:
        yield f"{path} is {_shorten(actual)}, expected {_shorten(expected)}"


def _shorten(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
