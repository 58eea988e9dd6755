"""Turn two sources into a dataset folder: map, de-duplicate, filter by k-core, split, and count."""

from __future__ import annotations

import gzip
import tempfile
from collections import Counter
from pathlib import Path

import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.files import atomic_path, write_atomic
from ingestion import transform
from ingestion.config import DatasetConfig, IngestError, Source
from ingestion.engines.base import Engine, open_engine
from ingestion.report import Counts, Dropped, IngestReport, content_digest, time_range
from ingestion.sources import local_file, source_digest

REPORT = "report.json"
ROW_GROUP = 1 << 18  # rows


class TableInProgress:
    """A table that rules are applied to, and the number of rows that each rule dropped."""

    def __init__(self, engine: Engine, table: ir.Table) -> None:
        self.engine = engine
        self.table, self.rows = engine.store(table)
        self.read = self.rows
        self.dropped: dict[str, int] = {}

    def apply(self, rule: str, remaining: ir.Table) -> None:
        """Replace the table by the rows that a rule keeps, and count those that it drops."""
        before = self.rows
        self.table, self.rows = self.engine.store(remaining)
        self.dropped[rule] = before - self.rows


def ingest(config: DatasetConfig, output: Path, cache_dir: Path | None = None) -> IngestReport:
    """Write a dataset folder: source_*.parquet, interactions.parquet, items.parquet, and report.json last.

    Single broken rows (no id, unknown item, duplicate) do not stop it: they stay in source_*.parquet for
    validation, and the report counts them as dropped.

    Args:
        output: the folder. A report of an earlier run is deleted first, so a folder with a report is always
            complete.
        cache_dir: folder that keeps gs:// objects between runs. Default: they are not kept.

    Raises:
        IngestError: a source is missing, empty or unreadable, or no interaction is left.
    """
    if output.is_file():
        raise IngestError(f"{output} is a file; the dataset needs a folder.")
    output.mkdir(parents=True, exist_ok=True)
    (output / REPORT).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder, open_engine(config, scratch := Path(folder)) as engine:
        interactions, items = _load(config, engine, cache_dir or scratch)
        for table, name in ((interactions.table, "interactions"), (items.table, "items")):
            mapped = table.order_by("source_row").drop("source_row")
            _write(engine.fetch(mapped), output / f"source_{name}.parquet")
        rounds = _filter(config, engine, interactions, items)
        report = _finish(config, interactions, items, rounds, output)
    write_atomic(output / REPORT, report.model_dump_json(indent=2) + "\n")
    return report


def _load(config: DatasetConfig, engine: Engine, cache_dir: Path) -> tuple[TableInProgress, TableInProgress]:
    """Read both sources and map their columns; no row is dropped."""
    source, unit = config.interactions, config.interactions.timestamp_unit
    raw = _read(engine, source, cache_dir)
    interactions = TableInProgress(engine, transform.map_interactions(raw, unit))
    meanings = {
        "timestamp": f"{unit} times: set timestamp_unit to iso, epoch_s or epoch_ms, or fix them",
        "position": "whole numbers: fix them, or map another column",
        "action": "numbers: fix them, or map another column",
    }
    for name, meaning in meanings.items():
        if name in source.columns:
            _require_readable(engine, source, raw, interactions.table, name=name, meaning=meaning)
    catalogue = _read(engine, config.items, cache_dir)
    return interactions, TableInProgress(engine, transform.map_items(catalogue))


def _read(engine: Engine, source: Source, cache_dir: Path) -> ir.Table:
    """The mapped columns of a source by canonical name, cast as configured, with `source_row`.

    Other values stay as the file has them: text for CSV, TSV and JSONL; typed for Parquet.
    """
    location, path = source.location, local_file(source, cache_dir)
    if path.stat().st_size == 0:
        raise IngestError(f"{location} is empty; it needs a header or records with at least one row.")
    try:
        raw, rows = engine.read(source, path)
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        is_unicode = isinstance(error, UnicodeDecodeError)
        reason = "it is not UTF-8 text; save it as UTF-8" if is_unicode else str(error).rstrip(". ")
        raise IngestError(f"{location} cannot be read as {source.resolved_format()}: {reason}.") from error
    if not rows:
        raise IngestError(f"{location} has no rows; it needs at least one.")
    casts = {"string": transform.as_id, "int64": transform.as_integer, "float64": transform.as_number}
    for name, kind in source.casts.items():
        cast = raw.mutate(**{name: casts[kind](raw[name])})
        meaning = f"{kind}: fix them, or drop '{name}' from casts"
        _require_readable(engine, source, raw, cast, name=name, meaning=meaning)
        raw = cast
    for name in {"user_id", "item_id"} & set(raw.columns):
        if raw[name].type().is_floating():
            raise IngestError(
                f"{location}, column '{source.columns[name]}', holds ids as floating-point numbers; "
                f'store them as integers or text, or set casts to {{"{name}": "int64"}}.'
            )
    return raw


def _require_readable(
    engine: Engine, source: Source, raw: ir.Table, mapped: ir.Table, *, name: str, meaning: str
) -> None:
    """Refuse a column with values that could not be read as `meaning`, which also says what to do."""
    bad, count = engine.store(transform.unreadable(raw, mapped, name))
    if count:
        first = engine.fetch(bad.order_by("source_row").limit(1)).to_pylist()[0]
        raise IngestError(
            f"{source.location}, column '{source.columns[name]}': {count} value{'s' if count > 1 else ''} "
            f"(first: '{first['value']}' in row {first['source_row'] + 1}) cannot be read as {meaning}."
        )


def _filter(
    config: DatasetConfig, engine: Engine, interactions: TableInProgress, items: TableInProgress
) -> int:
    """Apply the rules in order; returns the number of k-core rounds."""
    items.apply("missing id", items.table.filter(items.table.item_id.notnull()))
    items.apply("duplicate item_id", transform.one_per_key(items.table, ["item_id"], ["source_row"]))

    table = interactions.table
    interactions.apply("missing id", table.filter(table.user_id.notnull() & table.item_id.notnull()))
    table, order = interactions.table, transform.order_keys(interactions.table)
    interactions.apply(f"missing {order[0]}", table.filter(table[order[0]].notnull()))
    interactions.apply("item not in the catalogue", interactions.table.semi_join(items.table, "item_id"))
    if config.positive_action is not None:
        table = interactions.table
        interactions.apply("action too low", table.filter(table.action >= config.positive_action))
    if config.duplicates != "all":
        last = config.duplicates == "last"
        pairs = transform.one_per_key(interactions.table, ["user_id", "item_id"], order, last)
        interactions.apply("duplicate of user and item", pairs)
    core, rounds = transform.k_core(interactions.table, config.user_core, config.item_core, engine.store)
    interactions.apply(f"k-core {config.user_core}/{config.item_core}", core)
    if not interactions.rows:
        dropped = ", ".join(f"{rule}: {rows}" for rule, rows in interactions.dropped.items() if rows)
        raise IngestError(
            f"No interaction of {config.interactions.location} is left of {interactions.read}; dropped were "
            f"{dropped}. Lower user_core and item_core, or check that both sources use the same item ids."
        )
    items.apply("no kept interaction", items.table.semi_join(interactions.table, "item_id"))
    return rounds


def _finish(
    config: DatasetConfig, interactions: TableInProgress, items: TableInProgress, rounds: int, output: Path
) -> IngestReport:
    """Split, write the two final tables and count."""
    fetch = interactions.engine.fetch
    split = transform.leave_one_out(interactions.table)
    final = fetch(transform.canonical_interactions(split))
    catalogue = fetch(transform.canonical_items(items.table, config.ordered_text()))
    _write(final, output / "interactions.parquet")
    _write(catalogue, output / "items.parquet")
    users = pc.count_distinct(final["user_id"]).as_py()
    splits = Counter(final["split"].to_pylist())
    first_time, last_time = time_range(final["timestamp"])
    return IngestReport(
        name=config.name,
        read=Counts(interactions=interactions.read, items=items.read),
        dropped=Dropped(interactions=interactions.dropped, items=items.dropped),
        kept=Counts(interactions=interactions.rows, items=items.rows),
        users=users,
        items=items.rows,
        density=interactions.rows / (users * items.rows),
        splits={name: splits[name] for name in ("train", "valid", "test")},
        k_core_rounds=rounds,
        order=tuple(transform.order_keys(interactions.table)),
        first_time=first_time,
        last_time=last_time,
        text_columns=config.ordered_text(),
        source_digest=source_digest(config),
        dataset_digest=content_digest(final, catalogue),
        config=config,
    )


def _write(table: pa.Table, path: Path) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=ROW_GROUP)
