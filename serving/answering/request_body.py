"""From the bytes of an HTTP body to a JSON value; knows nothing of any model server.

What the fields mean, and which values they may take, is the Recommender's to judge; this module only
makes sure that there is one JSON object or array of a reasonable size and depth, without doubt about what
it says: no name twice in an object, no NaN.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from common.errors import UserError

MAX_BODY_BYTES = 256 * 1024
MAX_DEPTH = 8  # a batch of requests needs four
SHOWN_CHARACTERS = 40
BRACKETS = re.compile(
    r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[][{}]', re.DOTALL
)  # strings are skipped, open ones too
STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


class BadBodyError(UserError, ValueError):
    """The body is no JSON object or array; the message is one sentence for the sender."""


def parse_body(body: object) -> dict[str, Any] | list[Any]:
    """Parse a request body (bytes, text or an already decoded JSON value) into an object or an array.

    Raises:
        BadBodyError: for an empty, oversized or undecodable body, and for any other JSON.
    """
    value = _decode(body) if isinstance(body, bytes | bytearray | str) else body
    if value is None:
        raise BadBodyError('The request has no body; send JSON like {"history": ["item id"], "k": 10}.')
    if not isinstance(value, dict | list):
        raise BadBodyError(f'The body must be a JSON object like {{"history": [...]}}, not {_kind(value)}.')
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
    _check_depth(text)
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except BadBodyError:
        raise
    except json.JSONDecodeError as error:
        raise BadBodyError(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from error
    except ValueError as error:  # a number with more digits than Python converts
        raise BadBodyError("The body holds a number with too many digits.") from error


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for found in BRACKETS.finditer(text):
        depth += STEP.get(found.group(), 0)
        if depth > MAX_DEPTH:
            raise BadBodyError(f"The body is nested too deeply: more than {MAX_DEPTH} levels.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise BadBodyError(f"The body names {twice[:SHOWN_CHARACTERS]!r} twice in one object.")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise BadBodyError(f"The body holds {name}, which is not a JSON number.")


def _kind(value: object) -> str:
    names = {str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__[:SHOWN_CHARACTERS])
