"""From the bytes of an HTTP body to a JSON value; the module knows no model server.

The Recommender judges what the fields mean and which values they may take. This module only makes sure that
the body is one JSON object or array of a reasonable size and depth and can be read in one way only: no name
twice in an object, no NaN.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from common.limits import MAX_BODY_BYTES
from serving.errors import ServingError

MAX_DEPTH = 8  # a batch of requests needs four
SHOWN_CHARACTERS = 40
BRACKETS = re.compile(
    r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[][{}]', re.DOTALL
)  # strings are skipped, unclosed ones too
STEP = {"[": 1, "{": 1, "]": -1, "}": -1}
KINDS = {str: "a string", bool: "a boolean", int: "a number", float: "a number"}


class BadBodyError(ServingError):
    """The body is not a JSON object or array; the message is one sentence for the sender."""


def parse_body(body: object) -> dict[str, Any] | list[Any]:
    """Parse a request body (bytes, text or an already decoded JSON value) into an object or an array.

    Raises BadBodyError if it is empty, too large, cannot be decoded, or is any other JSON.
    """
    value = _decode(body) if isinstance(body, bytes | bytearray | str) else body
    if value is None:
        raise BadBodyError('The request has no body; send JSON like {"history": ["item id"], "k": 10}.')
    if not isinstance(value, dict | list):
        kind = KINDS.get(type(value), type(value).__name__[:SHOWN_CHARACTERS])
        raise BadBodyError(f'The body must be a JSON object like {{"history": [...]}}, not {kind}.')
    return value


def _decode(body: bytes | bytearray | str) -> Any:
    raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body)
    if len(raw) > MAX_BODY_BYTES:
        raise BadBodyError(f"The body has {len(raw)} bytes; at most {MAX_BODY_BYTES} are read.")
    if not raw.strip():
        return None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadBodyError(f"The body is not UTF-8 (byte {error.start}).") from error
    if text.count("[") + text.count("{") > MAX_DEPTH:
        depth = 0
        for token in BRACKETS.finditer(text):
            depth += STEP.get(token.group(), 0)
            if depth > MAX_DEPTH:
                raise BadBodyError(f"The body is nested too deeply: more than {MAX_DEPTH} levels.")
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)
    except json.JSONDecodeError as error:
        raise BadBodyError(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from error
    except ValueError as error:  # a number with more digits than Python converts
        raise BadBodyError("The body holds a number with too many digits.") from error


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, member in pairs:
        if name in value:
            raise BadBodyError(f"The body names {name[:SHOWN_CHARACTERS]!r} twice in one object.")
        value[name] = member
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise BadBodyError(f"The body holds {name}, which is not a JSON number.")
