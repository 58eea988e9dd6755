"""From the bytes of a request to a status and the bytes of an answer: what every server shell calls.

Knows nothing of any model server, so whatever listens, equal bytes in are equal bytes out.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from car_model.recommend import Recommender, RequestError
from car_model.request import batch_of
from serving.parsing import BadBodyError, parse_body

logger = logging.getLogger(__name__)

OK, BAD_REQUEST, DEFECT = 200, 400, 500
REASONS = {BAD_REQUEST: "Bad Request", DEFECT: "Internal Server Error"}
FAILED = "The recommender failed on this request; see the server's log."


def respond(recommender: Recommender, body: object) -> tuple[int, bytes]:
    """Answer a body that holds one request or a batch of them; never raises.

    A batch is answered with 200 and {"answers": [...]} in its order: where one of its requests can't be
    answered, {"error": sentence, "status": 400} stands in its place. Only a malformed batch is refused.
    """
    try:
        value = parse_body(body)
        batch = batch_of(value)
    except (BadBodyError, RequestError) as error:
        status, text = _refusal(BAD_REQUEST, str(error))
        return status, text.encode("ascii")
    if batch is None:
        status, text = _answer(recommender, value)
        return status, text.encode("ascii")
    answers = ", ".join(_answer(recommender, request)[1] for request in batch)
    return OK, f'{{"answers": [{answers}]}}'.encode("ascii")


def _answer(recommender: Recommender, request: Any) -> tuple[int, str]:
    try:
        return OK, json.dumps(recommender.answer(request), allow_nan=False)
    except RequestError as error:
        return _refusal(BAD_REQUEST, str(error))
    except Exception:  # a defect of ours: tell this caller, keep the others
        logger.exception("The recommender failed on a request.")
        return _refusal(DEFECT, FAILED)


def _refusal(status: int, sentence: str) -> tuple[int, str]:
    return status, json.dumps({"error": sentence, "status": status})
