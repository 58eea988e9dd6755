"""Files -> Spark data frames of the mapped columns, split over the executors, in the order of the file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from ingestion.config import IngestError, Source
from ingestion.text_files import (
    bad_csv_line,
    bad_json_line,
    delimiter_of,
    header_of,
    nested,
    no_records,
    require,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

PLACE = (1 << 33) - 1  # the bits of monotonically_increasing_id that count within a partition
AS_TEXT = re.compile(r"string|tinyint|smallint|int|bigint|boolean|date|decimal\(.*\)|array<string>|void")


def read_file(session: SparkSession, source: Source, path: Path) -> DataFrame:
    """The mapped columns under our names, and where each row stood: `_part` and `_id`."""
    kind = source.resolved_format()
    readers = {"csv": _delimited, "tsv": _delimited, "jsonl": _jsonl, "parquet": _parquet}
    frame = readers[kind](session, source, path)
    named = frame.select(*(frame[_name(theirs)].alias(ours) for ours, theirs in source.columns.items()))
    return named.selectExpr("*", "spark_partition_id() AS _part", "monotonically_increasing_id() AS _id")


def number_rows(placed: ir.Table) -> ir.Table:
    """`_part` and `_id` -> `source_row`, 0.. in file order: a file's partitions come in its order."""
    counts = placed.group_by("_part").agg(rows=placed.count())
    before = ibis.window(order_by="_part", preceding=(None, 1))
    starts = counts.mutate(start=counts.rows.sum().over(before).coalesce(0)).drop("rows")
    numbered = placed.join(starts, "_part")
    row = numbered.start + (numbered._id & PLACE)
    return numbered.mutate(source_row=row.cast("int64")).drop("_part", "_id", "start")


def explain(source: Source, path: Path, error: Exception) -> IngestError:
    """What is wrong with a file that Spark could not read."""
    kind = source.resolved_format()
    where = None
    if kind == "jsonl":
        said = bad_json_line(source, path)
        if said:
            return IngestError(said)
    elif kind != "parquet":
        where = bad_csv_line(source, path, len(header_of(source, path)))
    return IngestError(f"{source.location} cannot be read as {kind}: {where or said_by(error)}")


def _delimited(session: SparkSession, source: Source, path: Path) -> DataFrame:
    header = header_of(source, path)
    count = f"length(value) - length(replace(value, {_text(source.quote)}, ''))" if source.quote else "0"
    spans_lines = bool(_look(session, source, path, f"max(({count}) % 2 = 1)"))
    nothing = "\0"
    reader = session.read.options(
        header=True,
        sep=delimiter_of(source),
        quote=source.quote or nothing,
        escape=source.quote or nothing,
        emptyValue="",
        multiLine=spans_lines,  # such a file is read by one executor
        mode="FAILFAST",
        columnPruning=False,  # or rows with too many or too few fields would pass
        unescapedQuoteHandling="RAISE_ERROR",
    )
    return reader.schema(", ".join(f"{_name(column)} STRING" for column in header)).csv(_literal(path))


def _jsonl(session: SparkSession, source: Source, path: Path) -> DataFrame:
    line = "trim(BOTH ' \\t\\r' FROM value)"
    if not _look(session, source, path, f"min(startswith({line}, '{{')) FILTER (WHERE {line} <> '')"):
        raise no_records(source)
    reader = session.read.options(mode="FAILFAST", allowSingleQuotes=False, allowNonNumericNumbers=False)
    found = {field.name: field.dataType.simpleString() for field in reader.json(_literal(path)).schema}
    require(source, list(found))
    types = {name: _json_type(source, name, found[name]) for name in source.columns.values()}
    schema = ", ".join(f"{_name(column)} {kind}" for column, kind in types.items())
    return reader.schema(schema).json(_literal(path))


def _json_type(source: Source, name: str, kind: str) -> str:
    """Scalars are read as the text they were written as, so that 1 and "1" are the same id."""
    if re.match("struct|map|array<(struct|map|array)", kind):
        raise nested(source, name, kind)
    return {"boolean": "BOOLEAN"}.get(kind, "ARRAY<STRING>" if kind.startswith("array") else "STRING")


def _look(session: SparkSession, source: Source, path: Path, question: str) -> Any:
    """Ask one thing of all lines (`value`), which must be UTF-8: Spark's readers replace what is not."""
    lines = session.read.text(_literal(path))
    broken, answer = lines.selectExpr("max(NOT is_valid_utf8(value))", question).first() or (None, None)
    if broken:
        raise IngestError(
            f"{source.location} cannot be read as {source.resolved_format()}: "
            "it is not UTF-8 text; save it as UTF-8."
        )
    return answer


def _parquet(session: SparkSession, source: Source, path: Path) -> DataFrame:
    frame = session.read.parquet(_literal(path))
    require(source, frame.columns)
    kinds = dict(frame.dtypes)
    for ours, theirs in source.columns.items():
        kind, value = kinds[theirs], ours in ("timestamp", "position", "action") or ours in source.casts
        if re.match("struct|map|array<(?!string)", kind):
            raise nested(source, theirs, kind)
        if not (value or AS_TEXT.fullmatch(kind) or (ours.endswith("_id") and kind in ("float", "double"))):
            raise IngestError(
                f"{source.location}, column '{theirs}', holds {kind}, which Spark writes as other text than "
                "DuckDB; store it as text, or ingest with the engine duckdb."
            )
    times = [field.name for field in pq.read_schema(path) if pa.types.is_timestamp(field.type)]
    for name in (_name(name) for name in times if kinds.get(name) == "bigint"):  # read as nanoseconds
        frame = frame.selectExpr(f"* EXCEPT ({name})", f"timestamp_micros({name} DIV 1000) AS {name}")
    return frame


def _name(column: str) -> str:
    """A column's name as Spark's SQL writes it."""
    return "`" + column.replace("`", "``") + "`"


def _text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _literal(path: Path) -> str:
    """A file of this machine, with no wildcards in its name."""
    return "file://" + re.sub(r"([*?\[\]{}\\])", r"\\\1", str(path.absolute()))


def said_by(error: Exception) -> str:
    """The line of Spark's message that names the trouble, without the Java around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = (
        [line for line in lines if re.match(r"(: |Caused by: )", line)] or lines or [type(error).__name__]
    )
    line = re.sub(r"^(: |Caused by: )?([\w$]+\.)+[\w$]+(Exception|Error): ", "", causes[-1])
    return line.split(" SQLSTATE")[0].rstrip(". ") + "."
