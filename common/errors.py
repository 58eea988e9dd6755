"""The base of every error that a person can act on, and the sentences that such errors share."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pydantic

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
MAX_SHOWN = 80  # characters of a name or value that a person wrote


class UserError(Exception):
    """An expected failure. `str(error)` is one sentence that names what is wrong and what to do."""


def disk_full_message(path: Path | str, error: OSError) -> str:
    """The sentence for a full disk or quota (`error.errno` is in DISK_FULL)."""
    return f"There is no room for {path} ({error.strerror}): free some and run again."


def first_problem(error: pydantic.ValidationError, known: Iterable[str] = ()) -> str:
    """Say in one sentence what the first problem is: the setting by its dotted path, its value, the rule.

    Examples: `'retries.count' is -1: input should be greater than or equal to 0.`, `'name' is missing.`,
    `there is no setting 'epoch'; there are: epochs, seed.` A rule about all settings is its message alone.
    `known` are the settings to list after an unknown one.
    """
    return problems(error, known)[0]


def problems(error: pydantic.ValidationError, known: Iterable[str] = ()) -> list[str]:
    """Every problem as a sentence; see `first_problem`."""
    names = ", ".join(known)
    return [_sentence(item, names) for item in error.errors(include_url=False, include_context=False)]


def _sentence(item: Any, known: str) -> str:
    name, value = shorten(".".join(map(str, item["loc"]))), item["input"]
    if item["type"] == "missing":
        return f"{name} is missing."
    if item["type"] == "extra_forbidden":
        return f"there is no setting {name}{f'; there are: {known}' if known else ''}."
    if item["type"] == "value_error":  # the project's own rule, which names the value if it matters
        rule = item["msg"].removeprefix("Value error, ").rstrip(".")
    else:
        rule = f"{item['msg'][0].lower()}{item['msg'][1:]}"
    if not item["loc"]:
        return f"{rule}."
    scalar = value is None or isinstance(value, str | int | float)
    return f"{name} is {shorten(value)}: {rule}." if scalar else f"{name}: {rule}."


def shorten(value: object) -> str:
    """A value's repr, cut to MAX_SHOWN characters: control characters are escaped."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
