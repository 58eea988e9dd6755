"""Atomic writes and JSON objects: no reader ever sees half a file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import UserError


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


def read_json_object(path: Path, error: type[Exception] = UserError, remedy: str = "") -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Args:
        remedy: what to do about a bad file, such as "run the evaluate step again"; ends the sentence.

    Raises:
        UserError: (or `error`) the file is missing, unreadable, not JSON in UTF-8, or not an object.
    """
    end = f"; {remedy}." if remedy else "."
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as problem:
        raise error(f"{path} does not exist{end}") from problem
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}{end}") from problem
    except (ValueError, RecursionError) as problem:
        raise error(f"{path} is not valid JSON ({problem}){end}") from problem
    if not isinstance(value, dict):
        raise error(f"{path} must hold a JSON object, not {type(value).__name__}{end}")
    return value
