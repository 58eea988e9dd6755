"""The serving request, checked: what a client may ask, and the sentence it gets when it may not."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from common.errors import UserError
from common.limits import MAX_BATCH, MAX_HISTORY, MAX_ID, MAX_K

SHOWN = 40  # characters of a client's own text that a message repeats


# JSON has one type of number: 3.0 is 3. Outermost, since a bound around it would be missing from the schema.
WHOLE = BeforeValidator(
    lambda value: int(value) if isinstance(value, float) and value.is_integer() else value
)
ItemId = Annotated[str, Field(min_length=1, max_length=MAX_ID)]
Items = Annotated[list[ItemId], Field(max_length=MAX_HISTORY, fail_fast=True)]
Action = Annotated[float, Field(allow_inf_nan=False)] | None
Actions = Annotated[list[Action], Field(max_length=MAX_HISTORY, fail_fast=True)]


class RequestError(UserError, ValueError):
    """The request can't be answered; the message tells the client what to change."""


class Request(BaseModel):
    """What to recommend after a history."""

    model_config = ConfigDict(extra="forbid", strict=True)

    history: Annotated[
        Items, Field(description="Item ids, oldest first; unknown ones are skipped and reported.")
    ]
    k: Annotated[int, Field(ge=1, le=MAX_K, description="How many items to recommend."), WHOLE] = 10
    thinking: Annotated[
        Annotated[int, Field(ge=0), WHOLE] | None,
        Field(description="How many semantic levels join the item's own score; none means all there are."),
    ] = None
    exclude: Annotated[Items, Field(description="Item ids that must not be recommended.")] = []
    candidates: Annotated[
        Items | None,
        Field(description="Rank these items only; those that the release does not offer are reported."),
    ] = None
    explain: Annotated[bool, Field(description="Whether every item comes with its reasons.")] = True
    rank_by: Annotated[
        Literal["relevance", "action"],
        Field(description="action: the most relevant items by how likely the user would like them as well."),
    ] = "relevance"
    actions: Annotated[
        Actions | None,
        Field(description="What the user did with each item of the history, such as ratings; null: unknown."),
    ] = None


def parse(body: Any, levels: int, by_action: bool = False) -> Request:
    """Check a request body, for a release with so many levels that can or can't rank by action.

    Raises RequestError, one sentence that names the first wrong field.
    """
    if not isinstance(body, dict):
        raise RequestError('the request must be a JSON object such as {"history": ["50"], "k": 10}.')
    try:
        request = Request.model_validate(body)
    except ValidationError as error:
        raise RequestError(_sentence(error)) from None
    if request.thinking is not None and request.thinking > levels:
        raise RequestError(f"'thinking' must be from 0 to {levels}, the levels of this release.")
    if request.actions is not None and len(request.actions) != len(request.history):
        raise RequestError(
            f"'actions' has {len(request.actions)} entries, 'history' has {len(request.history)}; give one "
            "an item, null where it is unknown."
        )
    if request.rank_by == "action" and not by_action:
        raise RequestError("'rank_by': this release has no ranker by action; leave it out.")
    return request


def batch_of(body: Any) -> list[Any] | None:
    """The requests of a batch, unchecked: a list of them or {"requests": [...]}; None for a single request.

    Raises RequestError if the batch itself is malformed, empty or too long.
    """
    if isinstance(body, dict) and "requests" in body:
        if others := sorted(repr(str(name)[:SHOWN]) for name in body if name != "requests"):
            raise RequestError(f"a batch holds 'requests' alone; {others[0]} belongs into one of them.")
        body = body["requests"]
        if not isinstance(body, list):
            raise RequestError("'requests': input should be a valid list.")
    if not isinstance(body, list):
        return None
    if not 1 <= len(body) <= MAX_BATCH:
        raise RequestError(f"'requests' must hold 1 to {MAX_BATCH} requests, not {len(body)}.")
    return body


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    parts = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    field = repr(parts.removeprefix(".")[:SHOWN])  # a client's own text: escaped and short
    if first["type"] == "missing":
        return f"{field} is missing."
    if first["type"] == "extra_forbidden":
        return f"{field} is not a field of the request; there are: {', '.join(Request.model_fields)}."
    return f"{field}: {first['msg'][0].lower()}{first['msg'][1:]}."
