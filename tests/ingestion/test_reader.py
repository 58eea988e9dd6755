"""The reader of people's files: what a cell becomes in every format, and what a broken file is told."""

from __future__ import annotations

import bz2
import datetime
import decimal
import gzip
import io
import json
import uuid
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from ingestion.config import IngestError, InteractionSource, ItemSource, parse_config
from ingestion.reader import MAX_LINE, locate, read_table

CSV = "item_id,title\na1,Tea One\n"
ROW = [{"item_id": "a1", "title": "Tea One"}]
TIMED = {"user_id": "u", "item_id": "i", "timestamp": "t"}


def read(path: Path, content: str | bytes | pa.Table | None = None, **settings: Any) -> list[dict[str, Any]]:
    """Write a file of items and read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(ItemSource(location=str(path), **settings), path).to_pylist()


def refusal(path: Path, content: str | bytes | pa.Table | None = None, **settings: Any) -> str:
    """The sentence that a file of items gets."""
    with pytest.raises(IngestError) as caught:
        read(path, content, **settings)
    sentence = str(caught.value)
    assert sentence.startswith(str(path)) and sentence.endswith(".") and "\n" not in sentence
    return sentence.removeprefix(str(path))


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        (",item_id,title\n0,a1,Tea One\n", {}),  # the index of a data frame
        ("item_id,Title,title,x,x,\na1,WRONG,Tea One,,,\n", {}),
        ("item_id,title\r\na1,Tea One\n", {}),
        ("item_id,title\ra1,Tea One\r", {}),
        ("\ufeffitem_id,title\n\na1,Tea One\n\n", {}),
        ("item_id::title\na1::Tea One\n", {"delimiter": "::"}),
        ('item_id::title\na1::"Tea One"\n', {"delimiter": "::"}),
        ("a1::1::Tea One\n", {"delimiter": "::", "header": False, "columns": {"item_id": 1, "title": "3"}}),
        ("item_id,title\na1,\u00a0 Tea One\t\n", {}),
    ],
)
def test_csv(tmp_path: Path, text: str, settings: dict[str, Any]) -> None:
    assert read(tmp_path / "a.csv", text, **settings) == ROW


def test_text_may_hold_a_quoted_delimiter_of_several_characters(tmp_path: Path) -> None:
    text = 'item_id::title\na1::"one::two"\n'
    assert read(tmp_path / "a.csv", text, delimiter="::")[0]["title"] == "one::two"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('item_id,title\na1,"one\n\n\nline"\na2,two\na3,three,x\n', "line 7 has 3 fields, line 1 has 2"),
        ('item_id,title\na1,"one\n\nline",x\n', "line 2 has 3 fields"),
        ('item_id,title\na1,x\na2,"y\n', "line 3 starts a quoted value that never ends"),
        ('item_id,title\na1,"5" disk\n', "line 2 has text after a closing quote"),
        ("item_id,title\na1,T\0\n", "line 2 holds a NUL character"),
        ("item_id,title\na1," + "x" * MAX_LINE + "\n", "line 2 has more than 16,777,216 characters"),
        ('item_id,title\na1,"' + "x\n" * MAX_LINE, "line 2 has a value of more than 16,777,216"),
        ("item_id,title,title\na1,x,y\n", "names column 'title' twice"),
        ("item_id;title\na1;x\n", "if ';' separates the fields, set delimiter"),
        ("a1,x\na2,y\n", "set header to false"),
        ("item_id, Title\na1,x\n", "' Title' differs in case, blanks or accents from 'title'"),
        (f"item_id,{','.join(map(str, range(3000)))}\n", "and 2,981 more"),
        (f"item_id,title\n{'x' * 257},y\n", "column 'item_id', line 2, has more than 256 characters"),
        (CSV.encode("utf-16"), "it is UTF-16 text"),
        (CSV.encode("utf-16-le"), "NUL character"),
        ("item_id,title\na1,T\na2,Café\n".encode("latin-1"), "line 3 is not UTF-8 text; save it as UTF-8"),
        (gzip.compress(CSV.encode() * 99, mtime=0)[:-9], "its compressed content is damaged"),
        (gzip.compress(b"", mtime=0), "has no rows"),
    ],
)  # fmt: skip
def test_broken_csv(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert message in refusal(tmp_path / "a.csv", text)


def test_columns_that_look_alike_are_told_apart(tmp_path: Path) -> None:
    text = "item_id,cafe\u0301\na1,x\n"
    sentence = refusal(tmp_path / "a.csv", text, columns={"item_id": "item_id", "title": "caf\u00e9"})
    assert r"'cafe\u0301' differs in case, blanks or accents from 'caf\xe9'" in sentence


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, zstandard.compress])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_compression_is_seen_in_the_content(tmp_path: Path, compress: Any, name: str) -> None:
    assert read(tmp_path / name, compress(CSV.encode())) == ROW


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "u8", "utf-8-sig"])
def test_a_byte_order_mark_in_any_spelling_of_utf8(tmp_path: Path, encoding: str) -> None:
    assert read(tmp_path / "a.csv", "\ufeff" + CSV, encoding=encoding) == ROW


def test_other_containers_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(archive := io.BytesIO(), "w") as stream:
        stream.writestr("a.csv", CSV)
    assert "it is a zip archive or a workbook" in refusal(tmp_path / "a.csv", archive.getvalue())
    pq.write_table(pa.table({"item_id": ["a"]}), tmp_path / "b.csv")
    assert "it is Parquet; set format to parquet" in refusal(tmp_path / "b.csv")
    assert "it is damaged, or no Parquet" in refusal(tmp_path / "c.parquet", CSV)


def test_another_encoding(tmp_path: Path) -> None:
    for encoding in ("latin-1", "utf-16", "cp1250"):
        content = "item_id,title\na1,Café\n".encode(encoding)
        assert read(tmp_path / "a.csv", content, encoding=encoding)[0]["title"] == "Café"


@pytest.mark.parametrize(
    ("line", "cell"),
    [
        ('{"item_id": 1, "title": 1e5}', "1e5"),
        ('{"item_id": 1, "title": 2.50}', "2.50"),
        ('{"item_id": 1, "title": 12345678901234567890123}', "12345678901234567890123"),
        ('{"item_id": 1, "title": true}', "true"),
        ('{"item_id": 1, "title": ["A", 1, null, false]}', "A, 1, false"),
        ('{"item_id": 1, "title": []}', None),
        ('{"item_id": 1, "title": "x", "Title": "y", "": 2, "m": {"n": 1, "N": [[]]}, "z": 1, "z": 2}', "x"),
        ('\ufeff{"item_id": 1, "title": "x"}\r\n\r\n', "x"),
        ('{"item_id": 1}\n{"item_id": 2, "title": "x"}', None),
    ],
)
def test_json(tmp_path: Path, line: str, cell: str | None) -> None:
    assert read(tmp_path / "a.jsonl", line)[0] == {"item_id": "1", "title": cell}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('[{"item_id": 1}]', "line 1 holds a list; write one object a line"),
        ('{\n"item_id": 1\n}', "line 1 is not a JSON object"),
        ('{"item_id": 1, "title": NaN}', "line 1 is not a JSON object (NaN is no JSON number; write null)"),
        ('{"item_id": 1, "title": "x"}\n{"title": 1, "title": 2}', "line 2 names 'title' twice"),
        ('\ufeff{"item_id": 1, "title": "x"}\n{oops', "line 2 is not a JSON object"),
        ('{"item_id": 1, "title": {"x": 1}}', "column 'title', holds nested values (an object in line 1)"),
        ('{"item_id": 1, "title": [["x"]]}', "column 'title', holds nested values (a list of lists"),
        ('{"item_id": ["x"], "title": "x"}', "column 'item_id', holds nested values (a list in line 1)"),
        ('{"item_id": 1, "title": "\\ud800"}', "column 'title', line 1, holds half of a character"),
        ('{"item_id": 1, "title": "\\u0000"}', "column 'title', line 1, holds a NUL character"),
        ('{"item_id": 1, "title": ' + "[" * 99999 + "]" * 99999 + "}", "it nests too deeply"),
        ('{"item_id": 1, "Title": "x"}', "'Title' differs in case"),
    ],
)  # fmt: skip
def test_broken_json(tmp_path: Path, line: str, message: str) -> None:
    assert message in refusal(tmp_path / "a.jsonl", line)


DAY = datetime.datetime(2024, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        (pa.array(["x"]).dictionary_encode(), "x"),
        (pa.array([1999]).dictionary_encode(), "1999"),
        (pa.array([1999.0]), "1999"),  # what a data frame makes of whole numbers beside a missing one
        (pa.array([0.1], pa.float32()), "0.1"),
        (pa.array(np.array([1.5], np.float16)), "1.5"),
        (pa.array([float("nan")]), None),
        (pa.array([decimal.Decimal("1.50")]), "1.50"),
        (pa.array([True]), "true"),
        (pa.array([2**64 - 1], pa.uint64()), "18446744073709551615"),
        (pa.array([DAY.date()]), "2024-01-02"),
        (pa.array([DAY]), "2024-01-02 03:04:05"),
        (pa.array([DAY], pa.timestamp("ns", "Asia/Tokyo")), "2024-01-02 03:04:05Z"),
        (pa.array([DAY.time()]), "03:04:05"),
        (pa.array([uuid.UUID(int=5).bytes], pa.uuid()), "00000000-0000-0000-0000-000000000005"),
        (pa.array(["Café".encode()]), "Café"),
        (pa.array([b"xy"], pa.binary(2)), "xy"),
        (pa.array([" x\u3000"], pa.large_string()), "x"),
        (pa.array(["x"], pa.string_view()), "x"),
        (pa.array([["x", None, "y"]]), "x, y"),
        (pa.array([[1, 2]], pa.list_(pa.int8(), 2)), "1, 2"),
        (pa.array([[]], pa.large_list(pa.string())), None),
        (pa.nulls(1), None),
    ],
)
def test_parquet(tmp_path: Path, column: pa.Array, cell: str | None) -> None:
    table = pa.table({"item_id": ["a"], "title": column, "Title": ["wrong"]})
    assert read(tmp_path / "a.parquet", table) == [{"item_id": "a", "title": cell}]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([{"n": 1}]), "holds nested values (struct<n: int64>)"),
        (pa.array([[["x"]]]), "holds nested values (list<"),
        (pa.array([[{"n": 1}]]), "holds nested values (list<"),
        (pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string())), "holds nested values (map<"),
        (pa.array([b"\xff"]), "holds bytes that are not UTF-8 text"),
        (pa.array([b"\0\1"]), "row 1, holds a NUL character"),
        (pa.array([5], pa.duration("s")), "holds duration[s], which has no text"),
    ],
)
def test_parquet_that_has_no_text(tmp_path: Path, column: pa.Array, message: str) -> None:
    table = pa.table({"item_id": ["a"], "title": column})
    assert f", column 'title', {message}" in refusal(tmp_path / "a.parquet", table)


def test_parquet_with_a_column_twice(tmp_path: Path) -> None:
    table = pa.table([pa.array(["a"]), pa.array(["b"]), pa.array(["c"])], names=["item_id", "title", "title"])
    assert "names column 'title' twice" in refusal(tmp_path / "a.parquet", table)


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.float64()])
def test_ids_are_neither_lists_nor_fractions(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"item_id": pa.array([None], kind), "title": ["x"]})
    assert ", column 'item_id', holds" in refusal(tmp_path / "a.parquet", table)


@pytest.mark.parametrize(
    ("column", "micros"),
    [
        (pa.array([1_704_110_400_123_456_789], pa.timestamp("ns", "UTC")), 123_456),
        (pa.array([1_704_110_400_123_456], pa.timestamp("us", "America/New_York")), 123_456),
        (pa.array([1_704_110_400_123], pa.timestamp("ms")), 123_000),
    ],
)
def test_stored_times_stay_times(tmp_path: Path, column: pa.Array, micros: int) -> None:
    table = pa.table({"u": ["a"], "i": ["b"], "t": column})
    pq.write_table(table, path := tmp_path / "a.parquet")
    row = read_table(InteractionSource(location=str(path), columns=TIMED), path).to_pylist()[0]
    assert row["timestamp"] == datetime.datetime(2024, 1, 1, 12, 0, 0, micros, datetime.UTC)


def test_a_stored_time_without_a_year_is_refused(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"u": ["a"], "i": ["b"], "t": pa.array([2**62], pa.timestamp("ms"))}),
        path := tmp_path / "a.parquet",
    )
    with pytest.raises(IngestError, match="column 't', holds times outside the years 1 to 9999"):
        read_table(InteractionSource(location=str(path), columns=TIMED), path)


def test_a_folder_of_parts(tmp_path: Path) -> None:
    folder = tmp_path / "items.csv"
    for name, text in {
        "part-0": "item_id,title\na1,Tea One\n",
        "part-1": "title,x,item_id\nTea Two,,a2\n",
        "part-2": "",
        "_SUCCESS": "",
        ".part-0.crc": "x",
        "_temporary/part-9": "x",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    assert read(folder) == [*ROW, {"item_id": "a2", "title": "Tea Two"}]
    source = ItemSource(location=str(folder))
    assert locate(source, folder, 1) == f"row 2, line 2 of {folder}/part-1"
    (folder / "part-3").write_text("item_id\na3\n")
    assert "/part-3 has no column 'title'" in refusal(folder)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_columns_in_the_names_of_folders(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / f"items.{suffix}"
    for number, kind in enumerate(("green%20tea", "__HIVE_DEFAULT_PARTITION__")):
        path = folder / f"kind={kind}" / "part"
        path.parent.mkdir(parents=True)
        record = {"item_id": f"a{number}", "title": "x"}
        if suffix == "parquet":
            pq.write_table(pa.Table.from_pylist([record]), path)
        else:
            path.write_text(json.dumps(record) if suffix == "jsonl" else f"item_id,title\na{number},x\n")
    columns = {name: name for name in ("item_id", "title", "kind")}
    cells = {row["item_id"]: row["kind"] for row in read(folder, columns=columns)}
    assert cells == {"a0": "green tea", "a1": None}


def test_folders_that_are_more_than_their_files(tmp_path: Path) -> None:
    (tmp_path / "a.parquet" / "_delta_log").mkdir(parents=True)
    assert "is a Delta table" in refusal(tmp_path / "a.parquet")
    (tmp_path / "b.csv").mkdir()
    assert "is empty" in refusal(tmp_path / "b.csv")


def test_parts_that_store_times_otherwise(tmp_path: Path) -> None:
    folder = tmp_path / "a.parquet"
    folder.mkdir()
    for number, time in enumerate((pa.array([DAY]), pa.array(["2024-01-02"]))):
        pq.write_table(pa.table({"u": ["a"], "i": ["b"], "t": time}), folder / str(number))
    with pytest.raises(IngestError, match="/1 stores column 't' as another type"):
        read_table(InteractionSource(location=str(folder), columns=TIMED), folder)


def test_casts_read_whole_numbers_however_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("u,i,t\n17.0,x,1\n1e3,x,1\n-5,x,1\n,x,1\n")
    source = InteractionSource(location=str(path), columns=TIMED, casts={"user_id": "int64"})
    assert read_table(source, path)["user_id"].to_pylist() == ["17", "1000", "-5", None]
    for text in ("1.5", "1e999999999", "NaN", "1_000", "٣", str(2**63)):
        path.write_text(f"u,i,t\n1,x,1\n{text},x,1\n")
        with pytest.raises(IngestError, match=r"column 'u', line 3: .* cannot be read as int64"):
            read_table(source, path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoding": "nonsense"}, "there is no encoding 'nonsense'"),
        ({"encoding": "base64"}, "there is no encoding 'base64'"),
        ({"delimiter": "\n"}, "must differ, and be no line breaks"),
        ({"delimiter": '"'}, "must differ"),
        ({"header": False}, "columns.item_id must be a column's number, not 'item_id'"),
        ({"header": False, "format": "jsonl"}, "header is a setting of csv and tsv"),
    ],
)
def test_wrong_settings_of_a_source(settings: dict[str, Any], message: str) -> None:
    config = {"interactions": {"location": "a.csv"}, "items": {"location": "b.csv", **settings}}
    with pytest.raises(IngestError) as caught:
        parse_config(json.dumps(config), "dataset.json")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"name": "Café"}'.encode("latin-1"), r"is not UTF-8 text \(line 1\); save it as UTF-8"),
        (b'{"name": "a", "name": "b"}', "the name 'name' is given 2 times"),
        (b'{"items": {"location": "a", "location": "b"}}', "the name 'location' is given 2 times"),
        (b'{"action_min": NaN}', "'NaN' is not a finite number"),
        (b"[" * 99999, "is not valid JSON"),
        (b'{"items": {"location": "a.csv", "columns": {"\\ud800": "a"}}}', "invalid JSON"),
        (b"[]", "must hold a JSON object"),
    ],
)
def test_a_dataset_json_that_is_none(content: bytes, message: str) -> None:
    with pytest.raises(IngestError, match=message):
        parse_config(content, "dataset.json")


def test_a_dataset_json_may_have_a_byte_order_mark() -> None:
    text = '\ufeff{"interactions": {"location": "a.csv"}, "items": {"location": "b.csv"}}'
    assert parse_config(text.encode()).items.location == "b.csv"
