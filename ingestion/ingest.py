"""Turn two sources into a dataset folder: map, de-duplicate, filter by k-core, split, and count."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.errors import shorten
from common.files import atomic_path, write_atomic
from ingestion import transform
from ingestion.config import DatasetConfig, IngestError, InteractionSource
from ingestion.engines.base import Engine, open_engine
from ingestion.reader import locate, write_table
from ingestion.report import Counts, Dropped, IngestReport, content_digest, time_range
from ingestion.sources import local_file, source_digest

REPORT = "report.json"
ROW_GROUP = 1 << 18  # rows
EPOCHS = {"epoch_s": 1, "epoch_ms": 10**3, "epoch_us": 10**6, "epoch_ns": 10**9}


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
    shared = cache_dir if config.engine == "spark" else None  # executors read what is written there
    if shared:
        shared.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=shared) as folder,
        open_engine(config, scratch := Path(folder)) as engine,
    ):
        interactions, items = _load(config, engine, cache_dir or scratch, scratch)
        text = text_names(config)
        for table, name in ((interactions.table, "interactions"), (items.table, "items")):
            mapped = engine.fetch(table.order_by("source_row").drop("source_row"))
            if name == "items":
                mapped = mapped.select(["item_id", *text.values()]).rename_columns(["item_id", *text])
            _write(mapped, output / f"source_{name}.parquet")
        rounds = _filter(config, engine, interactions, items)
        report = _finish(config, interactions, items, rounds, output)
    write_atomic(output / REPORT, report.model_dump_json(indent=2) + "\n")
    return report


def _load(
    config: DatasetConfig, engine: Engine, cache_dir: Path, scratch: Path
) -> tuple[TableInProgress, TableInProgress]:
    """Read both sources and map their columns; no row is dropped."""
    source, path = config.interactions, local_file(config.interactions, cache_dir)
    write_table(source, path, scratch / "interactions.parquet", {})
    catalogue = local_file(config.items, cache_dir)
    write_table(config.items, catalogue, scratch / "items.parquet", text_names(config))
    raw = engine.load(scratch / "interactions.parquet")
    interactions = TableInProgress(engine, transform.map_interactions(raw, source))
    meanings = {
        "timestamp": f"{source.timestamp_unit} times",
        "position": "whole numbers: fix them, or map another column",
        "action": "numbers: fix them, or map another column",
    }
    for name in meanings.keys() & source.columns.keys():
        bad, count = engine.store(transform.unreadable(raw, interactions.table, name))
        if count:
            first = engine.fetch(bad.order_by("source_row").limit(1)).to_pylist()[0]
            meaning = meanings[name]
            if name == "timestamp":
                meaning += f"; {_unit_hint(first['value'])}"
            raise IngestError(
                f"{source.location}, column {shorten(source.columns[name])}: {count} "
                f"value{'s' if count > 1 else ''} (first: {shorten(first['value'])} in "
                f"{locate(source, path, first['source_row'])}) cannot be read as {meaning}."
            )
    if "timestamp" in source.columns:
        _question_times(engine, source, interactions.table)
    return interactions, TableInProgress(engine, engine.load(scratch / "items.parquet"))


def text_names(config: DatasetConfig) -> dict[str, str]:
    """Names of the items' text columns inside an engine: people's names may differ in case only."""
    names = [name for name in config.items.columns if name != "item_id"]
    return {name: f"text_{number}" for number, name in enumerate(names)}


def _unit_hint(value: str) -> str:
    """What to do about a time that can't be read."""
    with suppress(ValueError):
        first, last = transform.LIKELY_SECONDS
        for unit, scale in EPOCHS.items():
            if first <= float(value) / scale <= last:
                return f"set timestamp_unit to {unit}, or fix them"
    return f"set timestamp_unit to iso, {', '.join(EPOCHS)}, or fix them"


def _question_times(engine: Engine, source: InteractionSource, table: ir.Table) -> None:
    """Refuse times of which most lie early in 1970, but in our days if their numbers are of another unit."""
    counts = engine.fetch(transform.shift_counts(table)).to_pylist()[0]
    for factor in transform.SHIFTS:
        if (rows := counts[f"shift_{factor}"] or 0) * 2 > counts["times"]:
            scale = EPOCHS.get(source.timestamp_unit, 0) // factor
            unit = next((name for name, size in EPOCHS.items() if size == scale), None)
            is_counter = counts["last"] - counts["first"] >= timedelta(seconds=1)  # 1, 2, 3: no dates at all
            if not unit and (source.timestamp_unit != "iso" or is_counter):
                continue
            advice = f"set timestamp_unit to {unit}" if unit else "convert them again"
            raise IngestError(
                f"{source.location}, column {shorten(source.columns['timestamp'])}: {rows} of "
                f"{counts['times']} times are in 1970 (the first is {counts['first']:%Y-%m-%d %H:%M:%S}); "
                f"they were probably counted in units {factor:,} times longer: {advice}."
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
    inside = text_names(config)
    text = [inside[name] for name in config.ordered_text() if name in inside]
    warm, cold = transform.warm_and_cold(items.table, interactions.table, text)
    if config.cold_items == "offer":
        items.apply("neither interactions nor text", warm.union(cold))
    else:
        items.apply("no kept interaction", warm)
    return rounds


def _finish(
    config: DatasetConfig, interactions: TableInProgress, items: TableInProgress, rounds: int, output: Path
) -> IngestReport:
    """Split, write the two final tables and count."""
    fetch = interactions.engine.fetch
    split = transform.leave_one_out(interactions.table)
    final = fetch(transform.canonical_interactions(split))
    inside = text_names(config)
    text = {name: inside[name] for name in config.ordered_text() if name in inside}
    catalogue = fetch(transform.canonical_items(items.table, text))
    catalogue = catalogue.rename_columns(["item_id", *config.ordered_text()])
    _write(final, output / "interactions.parquet")
    _write(catalogue, output / "items.parquet")
    users, warm = (pc.count_distinct(final[name]).as_py() for name in ("user_id", "item_id"))
    splits = Counter(final["split"].to_pylist())
    first_time, last_time = time_range(final["timestamp"])
    return IngestReport(
        name=config.name,
        read=Counts(interactions=interactions.read, items=items.read),
        dropped=Dropped(interactions=interactions.dropped, items=items.dropped),
        kept=Counts(interactions=interactions.rows, items=items.rows),
        users=users,
        items=warm,
        cold_items=items.rows - warm,
        density=interactions.rows / (users * warm),
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
