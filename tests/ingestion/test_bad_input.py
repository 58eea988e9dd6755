"""Whatever is wrong with a file, the user gets one sentence that names it."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.config import DatasetConfig, IngestError
from ingestion.ingest import ingest
from tests.ingestion.ingest_data import INTERACTIONS, dataset, write_jsonl

GOOD = "user_id,item_id,timestamp\n" + "".join(",".join(row) + "\n" for row in INTERACTIONS)
RECORDS = [dict(zip(("user_id", "item_id", "timestamp"), row, strict=True)) for row in INTERACTIONS]


def with_file(folder: Path, name: str, **settings: object) -> DatasetConfig:
    """The small dataset, its interactions read from another file in the folder."""
    config = dataset(folder)
    source = config.interactions.model_copy(update={"location": str(folder / name), **settings})
    return config.model_copy(update={"interactions": source})


def complaint(config: DatasetConfig, output: Path) -> str:
    """Ingest, which must fail, and give the sentence."""
    with pytest.raises(IngestError) as caught:
        ingest(config, output)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    assert not (output / "report.json").exists()
    return sentence


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("user_id,item_id,timestamp\n", "has no rows"),
        ("\n", "has no header"),
        (
            GOOD.replace("timestamp", "time"),
            "no column 'timestamp' (mapped to timestamp); it has: user_id, item_id, time",
        ),
        (GOOD.replace("user_id", "item_id"), "names column 'item_id' twice"),
        (GOOD + "u0,i0\n", "line 22 has 2 fields, line 1 has 3; fix it"),
        (GOOD + "u0,i0,2024-01-01,5\n", "line 22 has 4 fields, line 1 has 3; fix it"),
        (GOOD + '"u0,i0,2024-01-01\n', "line 22 starts a quoted value that never ends; fix it"),
        (
            GOOD + "u0,i0,soon\nu0,i1,later\n",
            "column 'timestamp': 2 values (first: 'soon' in row 21, line 22)",
        ),
        (
            GOOD + "u0,i0,infinity\n",
            "1 value (first: 'infinity' in row 21, line 22) cannot be read as iso times",
        ),
        (GOOD + "u0,i0,1700000000\n", "set timestamp_unit to epoch_s, or fix them"),
    ],
)
def test_csv(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    sentence = complaint(with_file(tmp_path, "bad.csv"), tmp_path / "out")
    assert message in sentence
    assert "bad.csv" in sentence


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes(GOOD.encode() + b"caf\xe9,i0,2024-01-01\n")
    assert "not UTF-8" in complaint(with_file(tmp_path, "latin.csv"), tmp_path / "out")


@pytest.mark.parametrize(
    ("unit", "value", "message"),
    [
        ("epoch_s", "1700000000000", "epoch_s times; set timestamp_unit to epoch_ms"),
        ("epoch_ms", "1700000000000000", "set timestamp_unit to epoch_us"),
        ("epoch_us", "1700000000000000000", "set timestamp_unit to epoch_ns"),
        ("epoch_s", "nan", "set timestamp_unit to iso, epoch_s, epoch_ms, epoch_us, epoch_ns"),
        ("epoch_ms", "2024-01-01", "epoch_ms"),
    ],
)
def test_times_in_the_wrong_unit(tmp_path: Path, unit: str, value: str, message: str) -> None:
    (tmp_path / "bad.csv").write_text(f"user_id,item_id,timestamp\nu0,i0,{value}\n")
    sentence = complaint(with_file(tmp_path, "bad.csv", timestamp_unit=unit), tmp_path / "out")
    assert f"(first: '{value}' in row 1, line 2)" in sentence
    assert message in sentence


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("position", "1.5", "whole numbers"), ("position", "x", "whole numbers"), ("action", "good", "numbers")],
)
def test_numbers_that_are_none(tmp_path: Path, column: str, value: str, message: str) -> None:
    columns = ("user_id", "item_id", "timestamp", column)
    rows = [(*row, 1) for row in INTERACTIONS] + [("u0", "i0", "2024-01-01", value)]
    sentence = complaint(dataset(tmp_path, rows, columns=columns), tmp_path / "out")
    assert (
        f"column '{column}': 1 value (first: '{value}' in row 21, line 22) cannot be read as {message}"
        in sentence
    )


def test_a_missing_file(tmp_path: Path) -> None:
    assert "gone.csv does not exist" in complaint(with_file(tmp_path, "gone.csv"), tmp_path / "out")
    assert "items.csv has no column 'user_id'" in complaint(
        with_file(tmp_path, "", format="csv"), tmp_path / "out"
    )


def test_an_empty_catalogue(tmp_path: Path) -> None:
    config = dataset(tmp_path)
    (tmp_path / "items.csv").write_text("item_id,title\n")
    assert "items.csv has no rows" in complaint(config, tmp_path / "out")


def _broken_line(path: Path) -> None:
    write_jsonl(path, RECORDS)
    path.write_text(path.read_text() + "{broken\n")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_broken_line, "line 21 is not a JSON object"),
        (lambda path: path.write_text("\n\n"), "has no rows"),
        (lambda path: path.write_text("[1, 2]\n"), "line 1 holds a list; write one object a line"),
        (lambda path: write_jsonl(path, [{"user_id": "a", "item_id": "b"}]), "no column 'timestamp'"),
        (
            lambda path: write_jsonl(
                path, [{"user_id": {"a": 1}, "item_id": "b", "timestamp": "2024-01-01"}]
            ),
            "column 'user_id', holds nested values",
        ),
    ],
)
def test_jsonl(tmp_path: Path, write: Callable[[Path], object], message: str) -> None:
    write(tmp_path / "bad.jsonl")
    sentence = complaint(with_file(tmp_path, "bad.jsonl"), tmp_path / "out")
    assert message in sentence
    assert "bad.jsonl" in sentence


def test_damaged_gzip(tmp_path: Path) -> None:
    (tmp_path / "short.csv.gz").write_bytes(gzip.compress(GOOD.encode())[:-30])
    assert "cannot be read as csv" in complaint(with_file(tmp_path, "short.csv.gz"), tmp_path / "out")


def test_parquet(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_text("not parquet at all")
    assert "cannot be read as parquet" in complaint(with_file(tmp_path, "bad.parquet"), tmp_path / "out")
    table = pa.table(
        {"user_id": [1.0, None], "item_id": ["i0", "i1"], "timestamp": ["2024-01-01", "2024-01-02"]}
    )
    pq.write_table(table, tmp_path / "floats.parquet")
    sentence = complaint(with_file(tmp_path, "floats.parquet"), tmp_path / "out")
    assert "column 'user_id', holds ids as floating-point numbers" in sentence
    assert '{"user_id": "int64"}' in sentence


def test_a_cast_that_would_change_values(tmp_path: Path) -> None:
    table = pa.table(
        {"user_id": [1.0, 2.5], "item_id": ["i0", "i1"], "timestamp": ["2024-01-01", "2024-01-02"]}
    )
    pq.write_table(table, tmp_path / "floats.parquet")
    config = with_file(tmp_path, "floats.parquet", casts={"user_id": "int64"})
    sentence = complaint(config, tmp_path / "out")
    assert "column 'user_id', row 2: '2.5' cannot be read as int64; fix it, or drop 'user_id'" in sentence


def test_nothing_left_says_which_rule_took_it(tmp_path: Path) -> None:
    sentence = complaint(dataset(tmp_path, items=[("other", "Other")]), tmp_path / "out")
    assert "item not in the catalogue: 20" in sentence
    assert "same item ids" in sentence


def test_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(IngestError, match="is a file"):
        ingest(dataset(tmp_path / "in"), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"
