"""From the bytes of an HTTP body to a request mapping; knows nothing of any model server.

What the fields mean, and which values they may take, is the Recommender's to judge; this module only
makes sure that there is one JSON object of a reasonable size.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

MAX_BODY_BYTES = 256 * 1024
SHOWN_CHARACTERS = 40
LOAD_FAILURE = "The bundle does not load:"  # what a handler logs and the control side looks for


class BadBodyError(ValueError):
    """The body is not a JSON object; the message is one sentence for the sender."""


def parse_request(body: object) -> dict[str, Any]:
    """Parse a request body (bytes, text or an already decoded JSON value) into a mapping.

    Raises:
        BadBodyError: for an empty, oversized or undecodable body, and for JSON that is not an object.
    """
    value = _decode(body) if isinstance(body, bytes | bytearray | str) else body
    if value is None:
        raise BadBodyError('The request has no body; send JSON like {"history": ["item id"], "k": 10}.')
    if not isinstance(value, dict):
        raise BadBodyError(f'The body must be a JSON object like {{"history": [...]}}, not {_kind(value)}.')
    return value


def _decode(body: bytes | bytearray | str) -> Any:
    raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body)
    if len(raw) > MAX_BODY_BYTES:
        raise BadBodyError(f"The body has {len(raw)} bytes; at most {MAX_BODY_BYTES} are read.")
    if not raw.strip():
        return None
    try:
        return json.loads(raw.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except BadBodyError:
        raise
    except UnicodeDecodeError as error:
        raise BadBodyError(f"The body is not UTF-8 (byte {error.start}).") from error
    except json.JSONDecodeError as error:
        raise BadBodyError(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from error
    except RecursionError as error:
        raise BadBodyError("The body is nested too deeply to be a request.") from error
    except ValueError as error:  # a number with more digits than Python converts
        raise BadBodyError("The body holds a number with too many digits.") from error


def _refuse_constant(name: str) -> NoReturn:
    raise BadBodyError(f"The body holds {name}, which is not a JSON number.")


def _kind(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__[:SHOWN_CHARACTERS])
