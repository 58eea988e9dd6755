"""Tolerant look-ups for the report: it renders whatever evidence there is, unlike the gate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

NONE = "–"  # noqa: RUF001 (an en dash is how tables show that there is nothing)


def tree(value: Any, *keys: str) -> Mapping[str, Any]:
    """The mapping at a path of keys; empty where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def trees(value: Mapping[str, Any], key: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The mappings below a key, by name."""
    return [(name, one) for name, one in tree(value, key).items() if isinstance(one, Mapping)]


def entries(value: Any) -> list[Any]:
    """The list; empty for anything else."""
    return list(value) if isinstance(value, list | tuple) else []


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list."""
    return [one for one in entries(value) if isinstance(one, Mapping)]


def number(value: Any) -> float | None:
    """The value where it is a finite number; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def numbers(values: Any) -> list[float]:
    """The list as numbers with gaps (NaN) where an entry is none; empty for anything that is no list."""
    found = [number(value) for value in entries(values)]
    if all(one is None for one in found):
        return []
    return [math.nan if one is None else one for one in found]


def percent(share: float, digits: int = 0) -> str:
    """A share as people write it."""
    return f"{100 * share:.{digits}f} %"
