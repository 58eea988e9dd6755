"""Atomic writes and JSON objects: no reader ever sees half a file."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import UserError, shorten

MAX_JSON_BYTES = 256 << 20


@contextmanager
def atomic_path(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary file beside `path`, and rename it to `path` when the block ends without an error.

    Until then the file is named `.NAME.RANDOM.partial` and only its owner can read it; an error removes it.
    Missing parent folders are created.

    Args:
        mode: permissions of the finished file; 0o600 for secrets.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes, mode: int = 0o644) -> Path:
    """Write text (as UTF-8) or bytes to `path` in one step and return `path`; see `atomic_path`."""
    with atomic_path(path, mode) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read_json_object(
    path: Path, error: type[Exception] = UserError, remedy: str = "", max_bytes: int = MAX_JSON_BYTES
) -> dict[str, Any]:
    """Read a JSON file that holds an object; see `parse_json_object`.

    Raises:
        UserError: (or `error`) the file is missing, unreadable, too large, or not such an object.
    """
    end = f"; {remedy}." if remedy else "."
    try:
        with path.open("rb") as stream:
            content = stream.read(max_bytes + 1)
    except FileNotFoundError as problem:
        raise error(f"{path} does not exist{end}") from problem
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}{end}") from problem
    return parse_json_object(content, path, error, remedy, max_bytes)


def parse_json_object(
    content: bytes,
    name: Path | str,
    error: type[Exception] = UserError,
    remedy: str = "",
    max_bytes: int = MAX_JSON_BYTES,
) -> dict[str, Any]:
    """Parse UTF-8 JSON that must be one object and can be read in one way only.

    No name twice in an object, no NaN or infinity, no number too large for a float.

    Args:
        name: what errors call the content.
        remedy: what to do about it, such as "run the evaluate step again"; ends the sentence.

    Raises:
        UserError: (or `error`) it is not such an object, or has more than `max_bytes`.
    """
    end = f"; {remedy}." if remedy else "."
    if len(content) > max_bytes:
        raise error(f"{name} has more than {max_bytes} bytes, the limit{end}")
    try:
        value = strict_json(content.decode("utf-8"))
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise error(f"{name} is not UTF-8 text (line {line}); save it as UTF-8{end}") from problem
    except (ValueError, RecursionError) as problem:
        raise error(f"{name} is not valid JSON ({problem}){end}") from problem
    if not isinstance(value, dict):
        raise error(f"{name} must hold a JSON object, not {type(value).__name__}{end}")
    return value


def strict_json(text: str) -> Any:
    """Parse JSON; raise ValueError if a name is given twice in an object or a number is not finite."""
    return json.loads(
        text,
        object_pairs_hook=_refuse_duplicates,
        parse_constant=_finite,
        parse_float=_finite,
        parse_int=_integer,
    )


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice, times = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the name {shorten(twice)} is given {times} times in one object")
    return value


def _integer(text: str) -> int:
    _finite(text)
    return int(text)


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{shorten(text)} is not a finite number")
    return number
