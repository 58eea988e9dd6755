"""Golden requests: a served recommender must answer them exactly as the evaluated one did."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
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
        """Read golden.json. Raises ServingError if it has no requests or not one answer for each."""
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
    pairs: Iterable[tuple[str, Any, Any]] = ()
    if type(expected) is type(actual) is dict:
        if missing := sorted(set(expected) - set(actual)):
            return f"{path} lacks {', '.join(missing)}"
        if added := sorted(set(actual) - set(expected)):
            return f"{path} has the unexpected {', '.join(added)}"
        pairs = ((f"{path}.{key}", expected[key], actual[key]) for key in expected)
    elif type(expected) is type(actual) is list:
        if len(expected) != len(actual):
            return f"{path} has {len(actual)} entries, expected {len(expected)}"
        pairs = ((f"{path}[{i}]", expected[i], actual[i]) for i in range(len(expected)))
    elif type(expected) is not type(actual) or expected != actual:
        shown = [
            text if len(text) <= 80 else text[:77] + "..." for text in map(json.dumps, (actual, expected))
        ]
        return f"{path} is {shown[0]}, expected {shown[1]}"
    differences = (first_difference(old, new, name) for name, old, new in pairs)
    return next(filter(None, differences), None)
