"""From the bytes of a request to a status and the bytes of an answer: what every server shell calls.

Three stages: parse the bodies, let the recommender answer their requests together, encode the replies. The
module knows no model server, so equal bodies get equal replies from all of them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

from car_model.recommender.request import RequestError, batch_of
from serving.answering.request_body import BadBodyError, parse_body

logger = logging.getLogger(__name__)

OK, BAD_REQUEST, DEFECT = HTTPStatus.OK, HTTPStatus.BAD_REQUEST, HTTPStatus.INTERNAL_SERVER_ERROR
GROUP = 16  # requests that the recommender gets at once: this bounds their memory and time
FAILED = "The recommender failed on this request; see the server's log."
Reply = tuple[int, bytes]
"""HTTP status and JSON in ASCII."""


class Recommends(Protocol):
    """A Recommender, or what passes its answers on."""

    def recommend_batch(self, bodies: Sequence[Any]) -> list[dict[str, Any] | RequestError]:
        """Answer requests together: see `Recommender.recommend_batch`."""


@dataclass(frozen=True)
class ParsedBody:
    """The requests of a body, unchecked, and whether they came as a batch."""

    requests: list[Any]
    is_batch: bool


def respond(recommender: Recommends, body: object) -> Reply:
    """Answer one body: see `respond_all`."""
    [reply] = respond_all(recommender, [body])
    return reply


def respond_all(recommender: Recommends, bodies: Sequence[object]) -> list[Reply]:
    """Answer bodies together, each with the bytes it would get alone; never raises.

    A body holds one request or a batch of them. A batch is answered with 200 and {"answers": [...]} in its
    order; a request of it that cannot be answered gets {"error": sentence, "status": 400} as its answer. Only
    a malformed batch is refused as a whole.
    """
    parsed = [_parse(body) for body in bodies]
    requests = [request for item in parsed if isinstance(item, ParsedBody) for request in item.requests]
    answers = iter(_recommend(recommender, requests))
    replies = []
    for item in parsed:
        if not isinstance(item, ParsedBody):
            replies.append(item)
        elif item.is_batch:
            texts = [next(answers)[1] for _ in item.requests]
            replies.append((int(OK), b'{"answers": [' + b", ".join(texts) + b"]}"))
        else:
            replies.append(next(answers))
    return replies


def _parse(body: object) -> ParsedBody | Reply:
    """The requests of a body, or the refusal of a malformed one."""
    try:
        value = parse_body(body)
        batch = batch_of(value)
    except (BadBodyError, RequestError) as error:
        return refusal(BAD_REQUEST, str(error))
    return ParsedBody([value], is_batch=False) if batch is None else ParsedBody(batch, is_batch=True)


def _recommend(recommender: Recommends, requests: list[Any]) -> list[Reply]:
    """Answer requests in groups; if one fails, answer it one by one, so that a defect costs one answer."""
    replies: list[Reply] = []
    for start in range(0, len(requests), GROUP):
        group = requests[start : start + GROUP]
        try:
            replies += [_encode(answer) for answer in recommender.recommend_batch(group)]
        except Exception:
            for request in group:
                try:
                    [answer] = recommender.recommend_batch([request])
                    replies.append(_encode(answer))
                except Exception:
                    logger.exception("The recommender failed on a request.")
                    replies.append(refusal(DEFECT, FAILED))
    return replies


def _encode(answer: dict[str, Any] | RequestError) -> Reply:
    if isinstance(answer, RequestError):
        return refusal(BAD_REQUEST, str(answer))
    return int(OK), json.dumps(answer, allow_nan=False).encode("ascii")


def refusal(status: int, sentence: str) -> Reply:
    """The reply that refuses a request."""
    return int(status), json.dumps({"error": sentence, "status": int(status)}).encode("ascii")
