"""Releases and channel histories as tables that read well in 80 columns, on a terminal or piped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from registry.channels.log import Entry
from registry.maintenance.diff import Change, Difference, FileChange
from registry.releases.manifest import FileRecord, Gate, Manifest
from registry.releases.validations import Validation

HEADLINE = "ndcg@10"  # the one metric there is room for; `show` has them all
SHORT = 12
_UNITS = ("B", "kB", "MB", "GB", "TB")


def releases_table(releases: Iterable[Manifest], used_by: Mapping[str, Sequence[str]]) -> Table:
    """One line a release; `used_by` maps a release's digest to the channels that point to it."""
    table = plain_table("release", "created (UTC)", "gate", "codebook", HEADLINE, "in use")
    for one in releases:
        metric = one.metrics.get(HEADLINE)
        table.add_row(
            f"[bold]{one.release[:SHORT]}[/bold]",
            _minute(one.created),
            _gate(one.gate),
            escape(one.versions.codebook[:8]),
            "" if metric is None else f"{metric:.4f}",
            ", ".join(used_by.get(one.release, ())),
        )
    return table


def release_view(one: Manifest, channels: Sequence[str], validations: Sequence[Validation] = ()) -> Group:
    """Everything a manifest says: facts, metrics, files, evidence; and who validated the release since."""
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    later = [("validated", f"{_minute(each.created)} UTC by {escape(each.who)}") for each in validations]
    for name, value in _facts(one, channels) + later:
        facts.add_row(name, value)
    parts: list[RenderableType] = [facts]
    if one.metrics:
        metrics = plain_table("metric", "value")
        for name, number in sorted(one.metrics.items()):
            metrics.add_row(escape(name), f"{number:.4f}")
        parts += ["", metrics]
    parts += ["", _files("file", one.files)]
    parts += ["", _files("evidence", one.evidence)] if one.evidence else []
    return Group(*parts)


def history_table(entries: Iterable[Entry]) -> Table:
    """One line an entry; forced ones stand out."""
    table = plain_table("#", "when (UTC)", "action", "release", "who", "why")
    table.columns[0].justify = "right"
    for entry in entries:
        table.add_row(
            str(entry.number),
            _minute(entry.when),
            _action(entry),
            f"[bold]{entry.release[:SHORT]}[/bold]",
            escape(entry.who),
            escape(entry.why),
        )
    return table


def _facts(one: Manifest, channels: Sequence[str]) -> list[tuple[str, str]]:
    encoder = ", ".join(f"{key}={value}" for key, value in sorted(one.versions.encoder.items()))
    facts = [
        ("release", one.release),
        ("created", f"{_minute(one.created)} UTC"),
        ("gate", _gate_in_words(one.gate)),
        ("in use", ", ".join(channels) or "no channel"),
        ("parent", one.parent or "none"),
        ("codebook", escape(one.versions.codebook)),
        ("catalogue", escape(one.versions.catalogue)),
        ("model", escape(one.versions.model)),
        ("data", escape(one.versions.data)),
        ("encoder", escape(encoder)),
    ]
    return facts + [
        (name, escape(value)) for name, value in (("commit", one.git_commit), ("run", one.run_id)) if value
    ]


def _files(title: str, files: Mapping[str, FileRecord]) -> Table:
    table = plain_table(title, "size", "sha256")
    table.columns[1].justify = "right"
    for path, stored in sorted(files.items()):
        table.add_row(escape(path), size_text(stored.size), stored.sha256[:SHORT])
    return table


def plain_table(*columns: str) -> Table:
    """A table in the style of all of them; digests, numbers and times are not broken."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), header_style="bold")
    fixed = {
        "release",
        "#",
        "action",
        "gate",
        "created (UTC)",
        "when (UTC)",
        "codebook",
        "size",
        "sha256",
        HEADLINE,
    }
    for column in columns:
        table.add_column(column, no_wrap=column in fixed, overflow="fold")
    return table


def _gate(gate: Gate) -> str:
    if not gate.blessed:
        return "[bold red]FORCED[/bold red]"
    return "bootstrap" if gate.bootstrap else "[green]blessed[/green]"


def _gate_in_words(gate: Gate) -> str:
    if not gate.blessed:
        failing = escape("; ".join(gate.failing))
        return f"[bold red]FORCED[/bold red]: {escape(gate.forced or '')}; failing: {failing}"
    return "blessed as a first release (bootstrap)" if gate.bootstrap else "blessed"


def _action(entry: Entry) -> str:
    return {"force": "[bold red]FORCE[/bold red]", "rollback": "[yellow]rollback[/yellow]"}.get(
        entry.action, entry.action
    )


def _minute(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def size_text(count: int) -> str:
    """A number of bytes for people: `12.3 MB`."""
    amount, unit = float(count), 0
    while amount >= 1000 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.0f} B" if unit == 0 else f"{amount:.1f} {_UNITS[unit]}"


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
    return Group(*parts, "", _churn(found.churn), "", _changed_files(found.files))


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


def _changed_files(files: Mapping[str, FileChange]) -> RenderableType:
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
