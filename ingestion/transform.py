"""Raw columns -> canonical tables, as pure Ibis expressions: DuckDB and Spark run the same ones.

Engines differ in the text that they accept as a number or a time, so patterns here decide.
Nothing here executes a query, except the `materialise` argument of `k_core`.

Order of a user's interactions: by `position` if the source maps it (it is the source's own complete
order), else by `timestamp`; ties by the row's number in the source (`source_row`), then by `item_id`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC as UTC_ZONE
from datetime import datetime

import ibis
import ibis.expr.types as ir

from ingestion.config import InteractionSource, TimestampUnit

UTC = 'timestamp("UTC", 6)'
FIRST_TIME, LAST_TIME = "0001-01-01 00:00:00", "9999-12-31 23:59:59"  # the range of Python
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799
LIKELY_SECONDS = (631_152_000, 4_102_444_800)  # of 1990 and 2100
SHIFTS = (10**3, 10**6, 10**9)
EXACT = 2.0**53  # above it float64 skips whole numbers
NUMBER = "^[ \t]*[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?[ \t]*$"
DIGITS = "^[ \t]*[+-]?[0-9]+[ \t]*$"
ISO = (  # a date, or a date and a time of day, with an offset or without
    "^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    "([T ]([01]?[0-9]|2[0-3]):[0-9]{1,2}(:[0-9]{1,2}([.][0-9]{1,9})?)?"
    "(Z| ?UTC|[+-](0[0-9]|1[0-7])(:?[0-5][0-9])?)?)?$"
)
NO_SECONDS = "^([^T ]+[T ][0-9]+:[0-9]+)([^0-9:].*)$"
SHORTEST_HISTORY = 3  # with fewer nothing is left to train on when two interactions are held out


def as_number(text: ir.StringValue) -> ir.FloatingValue:
    """float64; what cannot be read, or is not finite, is null."""
    number = _matching(text, NUMBER).try_cast("float64")
    return ibis.ifelse(number.isnan() | number.isinf(), ibis.null("float64"), number)


def as_integer(text: ir.StringValue) -> ir.IntegerValue:
    """int64; what cannot be read, or has a fraction (an engine would round it), is null."""
    number = as_number(text)
    # Engines differ on the text "17.0": read it as a number, where float64 is exact.
    small = ibis.ifelse(number.abs() < EXACT, number, ibis.null("float64"))
    exact = ibis.ifelse(small == small.floor(), small, ibis.null("float64")).cast("int64")
    large = _matching(text, DIGITS).try_cast("int64")
    return ibis.coalesce(exact, ibis.ifelse(number.abs() >= EXACT, large, ibis.null("int64")))


@ibis.udf.scalar.builtin(signature=(("int64",), UTC))
def timestamp_micros(microseconds):  # type: ignore[no-untyped-def]
    """Spark's own function, and a macro in DuckDB: casts of numbers to times round differently."""


def as_time(column: ir.Value, unit: TimestampUnit) -> ir.TimestampValue:
    """UTC time; what cannot be read, or lies outside the years 1 to 9999, is null.

    Times without a zone are taken as UTC. Epochs in seconds keep milliseconds. Columns that are times already
    (Parquet) need no unit.
    """
    if column.type().is_timestamp() or unit == "iso":
        time = column
        if column.type().is_string():  # Spark reads no offset after minutes: add the seconds
            text = _matching(column, ISO)
            full = text.re_extract(NO_SECONDS, 1) + ibis.literal(":00") + text.re_extract(NO_SECONDS, 2)
            time = ibis.ifelse(text.re_search(NO_SECONDS), full, text).try_cast(UTC)
        in_range = time.between(ibis.literal(FIRST_TIME).cast(UTC), ibis.literal(LAST_TIME).cast(UTC))
        return ibis.ifelse(in_range, time, ibis.null(UTC))
    if unit in ("epoch_us", "epoch_ns"):  # float64 would skip some
        whole = as_integer(column)
        scale = 1 if unit == "epoch_us" else 1000
        rounded = as_number(column) / float(scale)  # 1.7e+18, as data frames write what they read as floats
        usable = ibis.ifelse(rounded.abs() < EXACT * 100, rounded, ibis.null("float64"))
        micros = ibis.coalesce((whole - whole % scale) // scale, usable.round().cast("int64"))
    else:
        seconds = as_number(column) / (1000.0 if unit == "epoch_ms" else 1.0)
        usable = ibis.ifelse(seconds.between(FIRST_SECOND, LAST_SECOND), seconds, ibis.null("float64"))
        micros = (usable * 1000.0).round().cast("int64") * 1000
    in_range = micros.between(FIRST_SECOND * 1_000_000, LAST_SECOND * 1_000_000)
    return timestamp_micros(ibis.ifelse(in_range, micros, ibis.null("int64")))


def _matching(text: ir.StringValue, pattern: str) -> ir.StringValue:
    """Text that matches the pattern, the rest null."""
    return ibis.ifelse(text.re_search(pattern), text, ibis.null("string"))


def map_interactions(raw: ir.Table, config: InteractionSource) -> ir.Table:
    """Canonical interaction columns (those that are mapped), plus `source_row`."""
    columns = {name: raw[name] for name in ("user_id", "item_id")}
    if "timestamp" in raw.columns:
        columns["timestamp"] = as_time(raw.timestamp, config.timestamp_unit)
    if config.file_order:
        columns["position"] = raw.source_row
    elif "position" in raw.columns:
        columns["position"] = as_integer(raw.position)
    if "action" in raw.columns:
        columns["action"] = as_number(raw.action)
    return raw.select(**columns, source_row=raw.source_row)


def unreadable(raw: ir.Table, mapped: ir.Table, column: str) -> ir.Table:
    """Rows (`source_row`, `value`) with a raw value that could not be read, in source order."""
    values = raw.select("source_row", value=raw[column].cast("string"))
    read = mapped.select("source_row", read=mapped[column])
    joined = values.join(read, "source_row").filter(lambda t: t.value.notnull() & t.read.isnull())
    return joined.select("source_row", "value").order_by("source_row")


def shift_counts(table: ir.Table) -> ir.Table:
    """One row: the number of times, the first and the last, and for each factor how many lie between 1990
    and 2100 once the number that they were made of is so many times larger."""
    shifted = {}
    for factor in SHIFTS:
        first, last = (
            ibis.literal(datetime.fromtimestamp(second / factor, UTC_ZONE).isoformat(" ")).cast(UTC)
            for second in LIKELY_SECONDS
        )
        shifted[f"shift_{factor}"] = table.timestamp.between(first, last).sum()
    times = table.timestamp
    return table.aggregate(times=times.count(), first=times.min(), last=times.max(), **shifted)


def order_keys(table: ir.Table) -> list[str]:
    """The columns that order a user's interactions; see the module's first lines."""
    first = "position" if "position" in table.columns else "timestamp"
    return [name for name in (first, "source_row", "item_id") if name in table.columns]


def one_per_key(table: ir.Table, keys: Sequence[str], order: Sequence[str], last: bool = False) -> ir.Table:
    """Keep the first (or last) row of every key."""
    direction = ibis.desc if last else ibis.asc
    window = ibis.window(group_by=list(keys), order_by=[direction(name) for name in order])
    return table.mutate(_rank=ibis.row_number().over(window)).filter(lambda t: t._rank == 0).drop("_rank")


def k_core_round(table: ir.Table, user_core: int, item_core: int) -> ir.Table:
    """Remove, once, the users and the items that have too few interactions."""
    counted = table.mutate(
        _user=table.count().over(ibis.window(group_by="user_id")),
        _item=table.count().over(ibis.window(group_by="item_id")),
    )
    in_core = (counted._user >= user_core) & (counted._item >= item_core)
    return counted.filter(in_core).drop("_user", "_item")


def k_core(
    table: ir.Table, user_core: int, item_core: int, materialise: Callable[[ir.Table], tuple[ir.Table, int]]
) -> tuple[ir.Table, int]:
    """The (user_core, item_core)-core of the graph, and the number of rounds that removed something.

    Args:
        materialise: runs an expression and returns the stored table and its number of rows. Without it
            the query would grow with every round.
    """
    current, rows = materialise(table)
    rounds = 0
    while max(user_core, item_core) > 1 and rows:
        smaller, remaining = materialise(k_core_round(current, user_core, item_core))
        if remaining == rows:
            break
        current, rows, rounds = smaller, remaining, rounds + 1
    return current, rounds


def warm_and_cold(items: ir.Table, interactions: ir.Table, text: Sequence[str]) -> tuple[ir.Table, ir.Table]:
    """Items with interactions, and items without any that have a text; a column `cold` tells them apart.

    Args:
        text: names of the text columns.
    """
    warm = items.semi_join(interactions, "item_id").mutate(cold=False)
    described = ibis.or_(*(items[column].notnull() for column in text))
    cold = items.filter(described).anti_join(interactions, "item_id").mutate(cold=True)
    return warm, cold


def leave_one_out(table: ir.Table) -> ir.Table:
    """Number every user's interactions from 0, and hold out the last (test) and the one before it (valid).

    Users with fewer than three interactions only train.
    """
    by_user = ibis.window(group_by="user_id", order_by=order_keys(table))
    numbered = table.mutate(
        position=ibis.row_number().over(by_user).cast("int64"),
        _size=table.count().over(ibis.window(group_by="user_id")),
    )
    held_out = numbered._size >= SHORTEST_HISTORY
    split = ibis.cases(
        (held_out & (numbered.position == numbered._size - 1), "test"),
        (held_out & (numbered.position == numbered._size - 2), "valid"),
        else_="train",
    )
    return numbered.mutate(split=split).drop("_size")


def canonical_interactions(table: ir.Table) -> ir.Table:
    """The final columns in their order; null if the source has no such column."""
    absent = {
        name: ibis.null(kind)
        for name, kind in (("timestamp", UTC), ("action", "float64"))
        if name not in table.columns
    }
    columns = ["user_id", "item_id", "position", "timestamp", "action", "split"]
    return table.mutate(**absent).select(columns).order_by(["user_id", "position"])


def canonical_items(table: ir.Table, text: dict[str, str]) -> ir.Table:
    """`item_id`, `title` and other text: the title is the id if there is none, the rest is never null.

    Items with interactions come first, then cold ones, each by id.

    Args:
        text: names of text columns, each with its name in the table, which the others keep.
    """
    title = table[text["title"]] if "title" in text else ibis.null("string")
    others = {column: table[column].coalesce("") for name, column in text.items() if name != "title"}
    named = table.select("item_id", "cold", title=ibis.coalesce(title, table.item_id), **others)
    return named.order_by(["cold", "item_id"]).drop("cold")
