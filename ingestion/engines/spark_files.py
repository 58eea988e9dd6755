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
    nested_error,
    no_records_error,
    require_columns,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

PARTITION_ROW = (1 << 33) - 1  # the bits of monotonically_increasing_id that count within a partition
AS_TEXT = re.compile(r"string|tinyint|smallint|int|bigint|boolean|date|decimal\(.*\)|array<string>|void")


def read_file(session: SparkSession, source: Source, path: Path) -> DataFrame:
    """The mapped columns by canonical name, and each row's position in the file: `_part` and `_id`."""
    readers = {"csv": _read_delimited, "tsv": _read_delimited, "jsonl": _read_jsonl, "parquet": _read_parquet}
    frame = readers[source.resolved_format()](session, source, path)
    columns = (frame[_quoted(column)].alias(name) for name, column in source.columns.items())
    return frame.select(*columns).selectExpr(
        "*", "spark_partition_id() AS _part", "monotonically_increasing_id() AS _id"
    )


def number_rows(located: ir.Table) -> ir.Table:
    """`_part` and `_id` -> `source_row`, 0.. in file order: a file's partitions come in its order."""
    counts = located.group_by("_part").agg(rows=located.count())
    before = ibis.window(order_by="_part", preceding=(None, 1))
    starts = counts.mutate(start=counts.rows.sum().over(before).coalesce(0)).drop("rows")
    numbered = located.join(starts, "_part")
    row = numbered.start + (numbered._id & PARTITION_ROW)
    return numbered.mutate(source_row=row.cast("int64")).drop("_part", "_id", "start")


def read_error(source: Source, path: Path, error: Exception) -> IngestError:
    """What is wrong with a file that Spark could not read."""
    kind, problem = source.resolved_format(), None
    if kind == "jsonl":
        if sentence := bad_json_line(source, path):
            return IngestError(sentence)
    elif kind != "parquet":
        problem = bad_csv_line(source, path, len(header_of(source, path)))
    return IngestError(f"{source.location} cannot be read as {kind}: {problem or failure_reason(error)}")


def _read_delimited(session: SparkSession, source: Source, path: Path) -> DataFrame:
    header = header_of(source, path)
    spans_lines = False
    if source.quote:
        literal = "'" + source.quote.replace("\\", "\\\\").replace("'", "\\'") + "'"
        quotes = f"length(value) - length(replace(value, {literal}, ''))"
        spans_lines = bool(_query_lines(session, source, path, f"max(({quotes}) % 2 = 1)"))
    else:
        _query_lines(session, source, path, "NULL")
    reader = session.read.options(
        header=True,
        sep=delimiter_of(source),
        quote=source.quote or "\0",
        escape=source.quote or "\0",
        emptyValue="",
        multiLine=spans_lines,  # such a file is read by one executor
        mode="FAILFAST",
        columnPruning=False,  # or rows with too many or too few fields would pass
        unescapedQuoteHandling="RAISE_ERROR",
    )
    return reader.schema(", ".join(f"{_quoted(column)} STRING" for column in header)).csv(_uri(path))


def _read_jsonl(session: SparkSession, source: Source, path: Path) -> DataFrame:
    """Scalars are read as the text they were written as, so that 1 and "1" are the same id."""
    line = "trim(BOTH ' \\t\\r' FROM value)"
    if not _query_lines(session, source, path, f"min(startswith({line}, '{{')) FILTER (WHERE {line} <> '')"):
        raise no_records_error(source)
    reader = session.read.options(mode="FAILFAST", allowSingleQuotes=False, allowNonNumericNumbers=False)
    kinds = {field.name: field.dataType.simpleString() for field in reader.json(_uri(path)).schema}
    require_columns(source, list(kinds))
    types = {}
    for column in source.columns.values():
        kind = kinds[column]
        if re.match("struct|map|array<(struct|map|array)", kind):
            raise nested_error(source, column, kind)
        scalar = "BOOLEAN" if kind == "boolean" else "STRING"
        types[column] = "ARRAY<STRING>" if kind.startswith("array") else scalar
    return reader.schema(", ".join(f"{_quoted(name)} {kind}" for name, kind in types.items())).json(
        _uri(path)
    )


def _query_lines(session: SparkSession, source: Source, path: Path, aggregate: str) -> Any:
    """An aggregate over all lines (`value`), which must be UTF-8: Spark's readers replace what is not."""
    lines = session.read.text(_uri(path))
    broken, answer = lines.selectExpr("max(NOT is_valid_utf8(value))", aggregate).first() or (None, None)
    if broken:
        raise IngestError(
            f"{source.location} cannot be read as {source.resolved_format()}: "
            "it is not UTF-8 text; save it as UTF-8."
        )
    return answer


def _read_parquet(session: SparkSession, source: Source, path: Path) -> DataFrame:
    frame = session.read.parquet(_uri(path))
    require_columns(source, frame.columns)
    kinds = dict(frame.dtypes)
    for name, column in source.columns.items():
        kind, is_number = kinds[column], name in ("timestamp", "position", "action") or name in source.casts
        if re.match("struct|map|array<(?!string)", kind):
            raise nested_error(source, column, kind)
        float_id = name.endswith("_id") and kind in ("float", "double")
        if not (is_number or float_id or AS_TEXT.fullmatch(kind)):
            raise IngestError(
                f"{source.location}, column '{column}', holds {kind}, which Spark writes as other text than "
                "DuckDB; store it as text, or ingest with the engine duckdb."
            )
    for field in pq.read_schema(path):
        if pa.types.is_timestamp(field.type) and kinds.get(field.name) == "bigint":  # read as nanoseconds
            name = _quoted(field.name)
            frame = frame.selectExpr(f"* EXCEPT ({name})", f"timestamp_micros({name} DIV 1000) AS {name}")
    return frame


def _quoted(column: str) -> str:
    """A column's name as Spark's SQL writes it."""
    return "`" + column.replace("`", "``") + "`"


def _uri(path: Path) -> str:
    """A file of this machine, with no wildcards in its name."""
    return "file://" + re.sub(r"([*?\[\]{}\\])", r"\\\1", str(path.absolute()))


def failure_reason(error: Exception) -> str:
    """The line of Spark's message that names the problem, without the Java around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if re.match(r"(: |Caused by: )", line)]
    line = (causes or lines or [type(error).__name__])[-1]
    line = re.sub(r"^(: |Caused by: )?([\w$]+\.)+[\w$]+(Exception|Error): ", "", line)
    return line.split(" SQLSTATE")[0].rstrip(". ") + "."
