"""Whatever bytes a file holds: rows of clean text, or one sentence that names the file."""

from __future__ import annotations

import gzip
import io
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.config import IngestError, InteractionSource, ItemSource
from ingestion.reader import locate, read_table

MANY = settings(max_examples=150, deadline=None)
TOKENS = [
    b",",
    b'"',
    b"\n",
    b"\r",
    b"\r\n",
    b"item_id",
    b"title",
    b"a",
    b" ",
    b"\0",
    b"\xff",
    b"\xc3\xa9",
    b"::",
]
TOKENS += [
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b'"item_id":',
    b'"title":',
    b"1e5",
    b"NaN",
    b"null",
    b"\\ud800",
    b"\xef\xbb\xbf",
]
SOUP = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from(TOKENS), max_size=40).map(b"".join),
    st.lists(st.sampled_from(TOKENS), max_size=20).map(lambda parts: b"item_id,title\n" + b"".join(parts)),
    st.lists(st.sampled_from(TOKENS), max_size=9).map(
        lambda parts: b'{"item_id":1,"title":' + b"".join(parts) + b"}"
    ),
)
SCALARS = st.sampled_from([
    pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.binary(3), pa.bool_(), pa.int8(),
    pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.decimal128(9, 2), pa.date32(), pa.date64(),
    pa.time32("s"), pa.time64("ns"), pa.timestamp("ms"), pa.timestamp("ns", "Asia/Tokyo"), pa.duration("us"),
    pa.null(),
])  # fmt: skip
TYPES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        inner.map(pa.list_),
        inner.map(pa.large_list),
        inner.map(lambda kind: pa.list_(kind, 2)),
        inner.map(lambda kind: pa.struct({"x": kind})),
        inner.map(lambda kind: pa.map_(pa.string(), kind)),
    ),
    max_leaves=3,
)


def check(source: ItemSource | InteractionSource, path: Path) -> None:
    """Read a file, which gives a dataset's rows or one sentence."""
    try:
        table = read_table(source, path)
    except IngestError as error:
        sentence = str(error)
        assert (
            str(path) in sentence and sentence.endswith(".") and "\n" not in sentence and len(sentence) < 2000
        )
        return
    assert table.column_names == list(source.columns)
    for name in table.column_names:
        for cell in table[name].to_pylist():
            assert cell is None or not isinstance(cell, str) or (cell and "\0" not in cell and cell.encode())
    assert locate(source, path, len(table) - 1).startswith(f"row {len(table)}")


@MANY
@given(content=SOUP, suffix=st.sampled_from(["csv", "tsv", "jsonl", "parquet"]), squeeze=st.booleans())
def test_any_bytes(content: bytes, suffix: str, squeeze: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"items.{suffix}"
        path.write_bytes(gzip.compress(content) if squeeze else content)
        check(ItemSource(location=str(path)), path)


@MANY
@given(data=st.data())
def test_damaged_parquet(data: st.DataObject) -> None:
    pq.write_table(pa.table({"item_id": ["a"] * 9, "title": ["x", None, "y"] * 3}), stream := io.BytesIO())
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.parquet"
        path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
        check(ItemSource(location=str(path)), path)


@MANY
@given(kinds=st.tuples(TYPES, TYPES, TYPES), encode=st.booleans())
def test_any_type_of_column(kinds: tuple[pa.DataType, ...], encode: bool) -> None:
    columns = []
    for kind in kinds:
        column = pa.nulls(2, kind)
        if pa.types.is_primitive(kind) and not pa.types.is_boolean(kind) and kind.bit_width >= 8:
            raw = pa.py_buffer(bytes(range(kind.bit_width // 8)) * 2)
            column = pa.Array.from_buffers(kind, 2, [None, raw])
        columns.append(column.dictionary_encode() if encode and pa.types.is_integer(kind) else column)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        try:
            pq.write_table(pa.table(columns, names=["user_id", "item_id", "timestamp"]), path)
        except (pa.ArrowException, ValueError):
            return  # a type that Parquet does not have
        check(InteractionSource(location=str(path)), path)
        check(
            ItemSource(location=str(path), columns={"item_id": "user_id", "a": "item_id", "b": "timestamp"}),
            path,
        )
