"""The serving request, checked: what a client may ask, and the sentence it gets when it may not."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_HISTORY = 10_000
MAX_K = 100
MAX_ID = 256
SHOWN = 40  # characters of a client's own text that a message repeats

ItemId = Annotated[str, Field(min_length=1, max_length=MAX_ID)]


class RequestError(ValueError):
    """The request can't be answered; the message tells the client what to change."""


class Request(BaseModel):
    """What to recommend after a history (oldest first).

    `thinking`: how many SID levels join the UID in the score; None means all.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    history: Annotated[list[ItemId], Field(max_length=MAX_HISTORY)]
    k: Annotated[int, Field(ge=1, le=MAX_K)] = 10
    thinking: Annotated[int, Field(ge=0)] | None = None
    exclude: Annotated[list[ItemId], Field(max_length=MAX_HISTORY)] = []
    explain: bool = True


def parse(body: Any, levels: int) -> Request:
    """Check a request body.

    Raises:
        RequestError: one sentence naming the first wrong field.
    """
    if not isinstance(body, dict):
        raise RequestError('the request must be a JSON object such as {"history": ["50"], "k": 10}.')
    try:
        request = Request.model_validate(body)
    except ValidationError as error:
        raise RequestError(_sentence(error)) from None
    if request.thinking is not None and request.thinking > levels:
        raise RequestError(f"'thinking' must be from 0 to {levels}, the levels of this release.")
    return request


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    parts = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    field = repr(parts.removeprefix(".")[:SHOWN])  # a client's own text: escaped and short
    if first["type"] == "missing":
        return f"{field} is missing."
    if first["type"] == "extra_forbidden":
        return f"{field} is not a field of the request; there are: {', '.join(Request.model_fields)}."
    return f"{field}: {first['msg'][0].lower()}{first['msg'][1:]}."
