"""From the bytes of a request to a status and the bytes of an answer: what every server shell calls.

Knows nothing of any model server, so whatever listens, equal bytes in are equal bytes out.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from car_model.recommender.recommender import RequestError
from car_model.recommender.request import batch_of
from serving.answering.request_body import BadBodyError, parse_body

logger = logging.getLogger(__name__)

OK, BAD_REQUEST, DEFECT = 200, 400, 500
REASONS = {BAD_REQUEST: "Bad Request", DEFECT: "Internal Server Error"}
TOGETHER = 16  # requests that are read at once: what that takes of memory and time stays small
FAILED = "The recommender failed on this request; see the server's log."


class Answering(Protocol):
    """A Recommender, or what passes its answers on."""

    def answers(self, bodies: Sequence[Any]) -> list[dict[str, Any] | RequestError]:
        """Answer requests that are read together: see `Recommender.answers`."""


def respond(recommender: Answering, body: object) -> tuple[int, bytes]:
    """Answer one body: see `respond_all`."""
    [found] = respond_all(recommender, [body])
    return found


def respond_all(recommender: Answering, bodies: Sequence[object]) -> list[tuple[int, bytes]]:
    """Answer bodies that wait together, each with the bytes it gets alone; never raises.

    A body holds one request or a batch of them. A batch is answered with 200 and {"answers": [...]} in its
    order: where one of its requests can't be answered, {"error": sentence, "status": 400} stands in its
    place. Only a malformed batch is refused.
    """
    parsed = [_parsed(body) for body in bodies]
    requests = [request for one in parsed if isinstance(one, Parsed) for request in one.requests]
    answers = iter(_answers(recommender, requests))
    return [_reply(one, answers) if isinstance(one, Parsed) else _sent(one) for one in parsed]


@dataclass(frozen=True)
class Parsed:
    """The requests of a body, unchecked, and whether they came as a batch."""

    requests: list[Any]
    batch: bool


Answer = tuple[int, str]  # status and JSON


def _parsed(body: object) -> Parsed | Answer:
    try:
        value = parse_body(body)
        batch = batch_of(value)
    except (BadBodyError, RequestError) as error:
        return _refusal(BAD_REQUEST, str(error))
    return Parsed([value], batch=False) if batch is None else Parsed(batch, batch=True)


def _answers(recommender: Answering, requests: list[Any]) -> list[Answer]:
    """Answer all requests, some at once; where that fails, one by one, so that a defect costs one answer."""
    found: list[Answer] = []
    for start in range(0, len(requests), TOGETHER):
        group = requests[start : start + TOGETHER]
        try:
            found += [_said(one) for one in recommender.answers(group)]
        except Exception:
            found += [_alone(recommender, request) for request in group]
    return found


def _alone(recommender: Answering, request: Any) -> Answer:
    try:
        [answer] = recommender.answers([request])
        return _said(answer)
    except Exception:  # a defect of ours: tell this caller, keep the others
        logger.exception("The recommender failed on a request.")
        return _refusal(DEFECT, FAILED)


def _said(answer: dict[str, Any] | RequestError) -> Answer:
    if isinstance(answer, RequestError):
        return _refusal(BAD_REQUEST, str(answer))
    return OK, json.dumps(answer, allow_nan=False)


def _reply(parsed: Parsed, answers: Iterator[Answer]) -> tuple[int, bytes]:
    """A body's answer, from the next answers."""
    own = list(islice(answers, len(parsed.requests)))
    if not parsed.batch:
        return _sent(own[0])
    return _sent((OK, f'{{"answers": [{", ".join(text for _, text in own)}]}}'))


def _refusal(status: int, sentence: str) -> Answer:
    return status, json.dumps({"error": sentence, "status": status})


def _sent(answer: Answer) -> tuple[int, bytes]:
    status, text = answer
    return status, text.encode("ascii")
