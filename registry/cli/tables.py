"""Tables of releases, channel histories and differences that fit in 80 columns, on a terminal or piped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from car_model.evidence.training import RecipeRecord
from common.cli import plain_table
from common.home import run_folder
from registry.channels.log import Entry
from registry.maintenance.diff import Difference
from registry.releases.gate import Gate
from registry.releases.manifest import FileRecord, Manifest
from registry.releases.validations import Validation

HEADLINE = "ndcg@10"  # the one metric that fits in the list; `show` has all of them
SHORT = 12  # characters of a digest
SHORT_HOLDOUT = 8
_UNITS = ("B", "kB", "MB", "GB", "TB")
_UNBROKEN = {"release", "#", "action", "gate", "created (UTC)", "when (UTC)", "holdout", "size", "sha256"}


def releases_table(
    manifests: Sequence[Manifest], gates: Iterable[Gate], used_by: Mapping[str, Sequence[str]]
) -> Group:
    """One line per release; `used_by` maps a release's digest to the channels that use it."""
    table = _table("release", "created (UTC)", "gate", HEADLINE, "holdout", "in use")
    for manifest, gate in zip(manifests, gates, strict=True):
        metric = manifest.metrics.get(HEADLINE)
        table.add_row(
            _bold(manifest.release),
            _format_time(manifest.created),
            _format_gate(manifest, gate),
            "" if metric is None else f"{metric:.4f}",
            (manifest.holdout or "")[:SHORT_HOLDOUT],
            ", ".join(used_by.get(manifest.release, ())),
        )
    notes = []
    if len({manifest.holdout for manifest in manifests if manifest.metrics}) > 1:
        notes.append(f"{HEADLINE} of different holdouts is of different users: compare only equal holdouts.")
    if any(not manifest.metrics for manifest in manifests):
        notes.append(f"Without {HEADLINE}: never evaluated itself.")
    return Group(table, *notes)


def manifest_table(
    manifest: Manifest,
    gate: Gate,
    channels: Sequence[str],
    validations: Sequence[Validation] = (),
    recipe: RecipeRecord | None = None,
) -> Group:
    """Everything in a manifest: facts, metrics, files, evidence; the gate's answer, validations, recipe."""
    versions = manifest.versions
    rows: list[tuple[str, str | Text]] = [
        ("release", manifest.release),
        ("created", f"{_format_time(manifest.created)} UTC"),
        ("gate", _format_gate(manifest, gate)),
        *([] if gate.blessed else [("failing", "; ".join(gate.failing))]),
        *([("forced", manifest.forced)] if manifest.forced else []),
        ("policy", gate.policy or "none"),
        ("holdout", manifest.holdout or gate.holdout or "none"),
        ("in use", ", ".join(channels) or "no channel"),
        ("parent", manifest.parent or "none"),
        ("codebook", versions.codebook),
        ("catalogue", versions.catalogue),
        ("model", versions.model),
        ("data", versions.data),
        ("encoder", ", ".join(f"{key}={value}" for key, value in sorted(versions.encoder.items()))),
    ]
    rows += [("commit", manifest.git_commit)] if manifest.git_commit else []
    rows += [("run", manifest.run_id)] if manifest.run_id else []
    folder = run_folder(manifest.run_id or "")
    rows += [("run folder", str(folder))] if folder else []
    for validation in validations:
        rows.append(("validated", f"{_format_time(validation.created)} UTC by {validation.who}"))
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, text in rows:
        facts.add_row(name, text)
    parts: list[RenderableType] = [facts]
    if recipe:
        settings = _table("setting", "value")
        for name, text in recipe.rows():
            settings.add_row(name, text)
        parts += ["", f"Trained by {recipe.origin}:", "", settings]
    if manifest.metrics:
        metrics = _table("metric", "value")
        for name, number in sorted(manifest.metrics.items()):
            metrics.add_row(name, f"{number:.4f}")
        parts += ["", metrics]
    else:
        parts += ["", "No metrics: this release was never evaluated itself."]
    parts += ["", _files_table("file", manifest.files)]
    parts += ["", _files_table("evidence", manifest.evidence)] if manifest.evidence else []
    return Group(*parts)


def history_table(entries: Iterable[Entry]) -> Table:
    """One line per entry; forced ones stand out."""
    table = _table("#", "when (UTC)", "action", "release", "who", "why")
    table.columns[0].justify = "right"
    styles = {"force": Text("FORCE", "bold red"), "rollback": Text("rollback", "yellow")}
    for entry in entries:
        table.add_row(
            str(entry.number),
            _format_time(entry.when),
            styles.get(entry.action, entry.action),
            _bold(entry.release),
            entry.who,
            entry.why,
        )
    return table


def difference_table(difference: Difference) -> RenderableType:
    """Everything that differs between two releases, part by part."""
    header = Text.assemble(_bold(difference.before), " -> ", _bold(difference.after))
    if difference.before == difference.after:
        return Group(header, "They are the same release.")
    parts: list[RenderableType] = [header]
    for title, plural, changes in (
        ("version", "versions", difference.versions),
        ("encoder", "encoder", difference.encoder),
        ("model setting", "model settings", difference.config),
        ("metric", "metrics", difference.metrics),
    ):
        if not changes:
            parts += ["", f"{plural}: equal"]
            continue
        with_difference = any(change.difference is not None for change in changes.values())
        table = _table(title, "before", "after", *(["difference"] if with_difference else []))
        for name, change in changes.items():
            row = [name, _format_value(change.before), _format_value(change.after)]
            if with_difference:
                number = change.difference
                row.append("" if number is None else f"{number:+g}" if number % 1 == 0 else f"{number:+.4f}")
            table.add_row(*row)
        parts += ["", table]
    if difference.incomparable:
        parts += ["", difference.incomparable]
    churn = difference.churn
    levels = ", ".join(f"{share:.1%}" for share in churn.by_level)
    files = _table("file", "before", "after", "difference")
    for path, file in difference.files.items():
        sizes = ["-" if size is None else format_size(size) for size in (file.before, file.after)]
        growth = (file.after or 0) - (file.before or 0)
        files.add_row(path, *sizes, f"{'-' if growth < 0 else '+'}{format_size(abs(growth))}")
    return Group(
        *parts,
        "",
        f"SIDs of {churn.items} common items: {churn.whole or 0:.1%} changed (by level: {levels}); "
        f"{churn.added} items added, {churn.retired} retired",
        "",
        files,
    )


def format_size(n_bytes: int) -> str:
    """A number of bytes for people: `12.3 MB`."""
    amount, unit = float(n_bytes), 0
    while amount >= 1000 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.0f} B" if unit == 0 else f"{amount:.1f} {_UNITS[unit]}"


def _files_table(title: str, files: Mapping[str, FileRecord]) -> Table:
    table = _table(title, "size", "sha256")
    table.columns[1].justify = "right"
    for path, record in sorted(files.items()):
        table.add_row(path, format_size(record.size), record.sha256[:SHORT])
    return table


def _table(*columns: str) -> Table:
    """An empty table in the common style; digests, numbers and times are never wrapped."""
    table = plain_table()
    for column in columns:
        table.add_column(column, no_wrap=column in _UNBROKEN or column == HEADLINE, overflow="fold")
    return table


def _bold(digest: str) -> Text:
    return Text(digest[:SHORT], "bold")


def _format_gate(manifest: Manifest, gate: Gate) -> Text:
    if not gate.blessed:
        return Text("FORCED" if manifest.forced else gate.word, "bold red")
    return Text(gate.word, "green" if gate.compared else "")


def _format_time(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _format_value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    text = "-" if value is None else str(value)
    return text[:SHORT] if len(text) == 64 else text  # 64 characters: a digest
