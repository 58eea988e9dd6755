"""From the bytes of a request to a status and the bytes of an answer: what every server shell calls.

Three stages: parse the bodies, let the recommender answer their requests together, encode the replies. The
module knows no model server, so equal bodies get equal replies from all of them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

from car_model.recommender.recommender import Recommender
from car_model.recommender.request import RequestError, batch_of
from serving.answering.request_body import BadBodyError, parse_body

logger = logging.getLogger(__name__)

OK, BAD_REQUEST, DEFECT = HTTPStatus.OK, HTTPStatus.BAD_REQUEST, HTTPStatus.INTERNAL_SERVER_ERROR
GROUP = 16  # requests that the recommender gets at once: this bounds their memory and time
HEALTH = b'{"history": [], "k": 1}'  # asks whether the model answers; such requests are not counted
FAILED = "The recommender failed on this request; see the server's log."
Reply = tuple[int, bytes]
"""HTTP status and JSON in ASCII."""


Observe = Callable[[Any, dict[str, Any] | RequestError], None]
"""Gets every request that the recommender answered, with its answer."""


def respond(recommender: Recommender, body: object) -> Reply:
    """Answer one body: see `respond_all`."""
    [reply] = respond_all(recommender, [body])
    return reply


def respond_all(
    recommender: Recommender, bodies: Sequence[object], observe: Observe | None = None
) -> list[Reply]:
    """Answer bodies together, each with the bytes it would get alone; never raises (if `observe` does not).

    A body holds one request or a batch of them. A batch is answered with 200 and {"answers": [...]} in its
    order; a request of it that cannot be answered gets {"error": sentence, "status": 400} as its answer. Only
    a malformed batch is refused as a whole.
    """
    requests: list[Any] = []
    parsed: list[Reply | int | slice] = []  # a refusal, or the position of the body's request or requests
    for body in bodies:
        try:
            value = parse_body(body)
            batch = batch_of(value)
        except (BadBodyError, RequestError) as error:
            parsed.append(refusal(BAD_REQUEST, str(error)))
            continue
        start = len(requests)
        requests += [value] if batch is None else batch
        parsed.append(start if batch is None else slice(start, len(requests)))
    answers = _recommend(recommender, requests, observe)
    replies: list[Reply] = []
    for item in parsed:
        if isinstance(item, slice):
            texts = b", ".join(text for _, text in answers[item])
            replies.append((int(OK), b'{"answers": [' + texts + b"]}"))
        else:
            replies.append(answers[item] if isinstance(item, int) else item)
    return replies


def _recommend(recommender: Recommender, requests: list[Any], observe: Observe | None) -> list[Reply]:
    """Answer requests in groups; if one fails, answer it one by one, so that a defect costs one answer."""

    def reply_to(group: list[Any]) -> list[Reply]:
        answers = recommender.recommend_batch(group)
        replies = [
            refusal(BAD_REQUEST, str(answer))
            if isinstance(answer, RequestError)
            else (int(OK), json.dumps(answer, allow_nan=False).encode("ascii"))
            for answer in answers
        ]
        if observe:
            for request, answer in zip(group, answers, strict=True):
                observe(request, answer)
        return replies

    replies: list[Reply] = []
    for start in range(0, len(requests), GROUP):
        group = requests[start : start + GROUP]
        try:
            replies += reply_to(group)
        except Exception:
            for request in group:
                try:
                    replies += reply_to([request])
                except Exception:
                    logger.exception("The recommender failed on a request.")
                    replies.append(refusal(DEFECT, FAILED))
    return replies


def refusal(status: int, sentence: str) -> Reply:
    """The reply that refuses a request."""
    return int(status), json.dumps({"error": sentence, "status": int(status)}).encode("ascii")
