"""A comparison of two releases as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape

from registry.diff import Change, Difference, FileChange
from registry.tables import SHORT, plain_table, size_text


def diff_view(found: Difference) -> RenderableType:
    """Everything that differs between two releases, part by part."""
    head = f"[bold]{found.before[:SHORT]}[/bold] -> [bold]{found.after[:SHORT]}[/bold]"
    if found.before == found.after:
        return Group(head, "They are one release.")
    parts: list[RenderableType] = [head]
    for title, plural, changes in (
        ("version", "versions", found.versions),
        ("encoder", "encoder", found.encoder),
        ("model setting", "model settings", found.config),
        ("metric", "metrics", found.metrics),
    ):
        parts += ["", _changes(title, changes) if changes else f"{plural}: equal"]
    return Group(*parts, "", _churn(found.churn), "", _files(found.files))


def _changes(title: str, changes: Mapping[str, Change]) -> RenderableType:
    numbers = any(one.difference is not None for one in changes.values())
    table = plain_table(title, "before", "after", *(["difference"] if numbers else []))
    for name, one in changes.items():
        difference = "" if one.difference is None else _signed(one.difference)
        table.add_row(escape(name), _value(one.before), _value(one.after), *([difference] if numbers else []))
    return table


def _churn(churn: Mapping[str, Any]) -> RenderableType:
    levels = ", ".join(f"{share:.1%}" for share in churn["by_level"])
    return (
        f"SIDs of {churn['items']} common items: {churn['whole']:.1%} changed (by level: {levels}); "
        f"{churn['added']} items added, {churn['retired']} retired"
    )


def _files(files: Mapping[str, FileChange]) -> RenderableType:
    table = plain_table("file", "before", "after", "difference")
    for path, one in files.items():
        sizes = ["-" if size is None else size_text(size) for size in (one.before, one.after)]
        grown = (one.after or 0) - (one.before or 0)
        table.add_row(escape(path), *sizes, f"{'-' if grown < 0 else '+'}{size_text(abs(grown))}")
    return table


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    text = "-" if value is None else str(value)
    # A digest is known by its beginning.
    return escape(text[:SHORT] if len(text) == 64 else text)


def _signed(number: float) -> str:
    return f"{number:+.4f}" if isinstance(number, float) and number % 1 else f"{number:+g}"
