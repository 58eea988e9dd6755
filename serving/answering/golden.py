"""Golden requests: what the evaluated recommender answered is what the served one must answer, exactly."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from serving.errors import ServingError

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


def first_difference(expected: Any, actual: Any, where: str = "answer") -> str | None:
    """Say where two JSON values part, or None where they are equal; 1, 1.0 and true are all different."""
    return next(_differences(expected, actual, where), None)


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
