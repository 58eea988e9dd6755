"""The same data in any format is the same dataset."""

from __future__ import annotations

import datetime
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.config import DatasetConfig, ItemSource
from ingestion.ingest import ingest
from tests.ingestion.ingest_data import INTERACTIONS, dataset, histories, rows_of, write_jsonl

pytestmark = pytest.mark.integration  # many whole ingests

NAMES = ("user_id", "item_id", "timestamp")
RECORDS = [dict(zip(NAMES, row, strict=True)) for row in INTERACTIONS]
CSV = "\n".join(",".join(row) for row in [NAMES, *INTERACTIONS]) + "\n"
TIMES = [datetime.datetime.fromisoformat(row[2]) for row in INTERACTIONS]


def written(folder: Path, name: str) -> Path:
    """INTERACTIONS in the format that the name asks for."""
    path = folder / name
    if name.endswith(".parquet"):
        columns = list(zip(*INTERACTIONS, strict=True))
        pq.write_table(pa.table({"user_id": columns[0], "item_id": columns[1], "timestamp": TIMES}), path)
    elif "jsonl" in name:
        write_jsonl(path, RECORDS)
    else:
        path.write_text(CSV.replace(",", "\t" if ".tsv" in name else ","))
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    return path


def reading(config: DatasetConfig, location: Path, **settings: object) -> DatasetConfig:
    source = config.interactions.model_copy(update={"location": str(location), **settings})
    return config.model_copy(update={"interactions": source})


@pytest.mark.parametrize("name", ["a.tsv", "a.jsonl", "a.parquet", "a.csv.gz", "a.jsonl.gz", "a.tsv.gz"])
def test_every_format_gives_the_same_dataset(tmp_path: Path, name: str) -> None:
    config = dataset(tmp_path)
    expected = ingest(config, tmp_path / "csv").dataset_digest
    assert ingest(reading(config, written(tmp_path, name)), tmp_path / "out").dataset_digest == expected


@pytest.mark.parametrize(
    "text",
    ["\ufeff" + CSV, CSV.replace("\n", "\r\n"), CSV + "\n\n", CSV.replace("u0", '"u0"'), CSV.rstrip("\n")],
)
def test_csv_as_spreadsheets_write_it(tmp_path: Path, text: str) -> None:
    config = dataset(tmp_path)
    expected = ingest(config, tmp_path / "plain").dataset_digest
    (tmp_path / "sheet.csv").write_bytes(text.encode())
    assert ingest(reading(config, tmp_path / "sheet.csv"), tmp_path / "out").dataset_digest == expected


@pytest.mark.parametrize(
    ("unit", "write"),
    [
        ("epoch_s", lambda time: str(int(time.timestamp()))),
        ("epoch_s", lambda time: f"{time.timestamp():.3f}"),
        ("epoch_ms", lambda time: str(int(time.timestamp() * 1000))),
        ("iso", lambda time: time.strftime("%Y-%m-%d %H:%M:%S")),
        ("iso", lambda time: (time + datetime.timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S+02:00")),
    ],
)
def test_times_in_every_unit(tmp_path: Path, unit: str, write: object) -> None:
    expected = ingest(dataset(tmp_path / "iso"), tmp_path / "out").dataset_digest
    rows = [(user, item, write(time)) for (user, item, _), time in zip(INTERACTIONS, TIMES, strict=True)]
    config = dataset(tmp_path / "other", rows)
    config = reading(config, Path(config.interactions.location), timestamp_unit=unit)
    assert ingest(config, tmp_path / "out").dataset_digest == expected


def test_milliseconds_are_kept(tmp_path: Path) -> None:
    rows = [("a", "i0", "1700000000.125"), ("a", "i1", "1700000000.124")]
    config = dataset(tmp_path, rows, user_core=0, item_core=0)
    config = reading(config, Path(config.interactions.location), timestamp_unit="epoch_s")
    ingest(config, tmp_path / "out")
    assert histories(tmp_path / "out") == {"a": ["i1", "i0"]}
    assert rows_of(tmp_path / "out" / "interactions.parquet")[1]["timestamp"].microsecond == 125_000


def test_ids_are_text_however_they_are_stored(tmp_path: Path) -> None:
    records = [
        {"user_id": u, "item_id": str(i), "timestamp": f"2024-01-0{i + 1}"}
        for u in (1, "01")
        for i in range(3)
    ]
    items = [(0, "A"), (1, "B"), (2, "C")]
    config = reading(dataset(tmp_path, items=items), write_jsonl(tmp_path / "ids.jsonl", records))
    ingest(config, tmp_path / "out")
    assert histories(tmp_path / "out") == {"01": ["0", "1", "2"], "1": ["0", "1", "2"]}


def test_a_cast_mends_integers_that_a_data_frame_made_floats(tmp_path: Path) -> None:
    users, items = [1.0, 1.0, None], ["i0", "i1", "i2"]
    table = pa.table({"user_id": users, "item_id": items, "timestamp": TIMES[:3]})
    pq.write_table(table, tmp_path / "floats.parquet")
    config = dataset(tmp_path, user_core=0, item_core=0)
    config = reading(config, tmp_path / "floats.parquet", casts={"user_id": "int64"})
    report = ingest(config, tmp_path / "out")
    assert histories(tmp_path / "out") == {"1": ["i0", "i1"]}
    assert report.dropped.interactions["missing id"] == 1


def test_lists_of_text_are_joined(tmp_path: Path) -> None:
    records = [
        {"item_id": f"i{i}", "title": f"T{i}", "tags": ["green", "tea"] if i else [], "new": bool(i)}
        for i in range(5)
    ]
    columns = {name: name for name in ("item_id", "title", "tags", "new")}
    source = ItemSource(location=str(write_jsonl(tmp_path / "items.jsonl", records)), columns=columns)
    ingest(dataset(tmp_path).model_copy(update={"items": source}), tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "items.parquet")
    assert rows[0] == {"item_id": "i0", "title": "T0", "tags": "", "new": "false"}
    assert rows[1]["tags"] == "green, tea"


def test_text_with_separators_quotes_and_line_breaks(tmp_path: Path) -> None:
    title = 'Tea, "green"\nand fresh'
    config = dataset(tmp_path)
    quoted = title.replace('"', '""')
    lines = [f'i{i},"{quoted}"' for i in range(5)]
    (tmp_path / "items.csv").write_text("item_id,title\n" + "\n".join(lines) + "\n")
    as_written = config.model_copy(update={"items": config.items.model_copy(update={"markup": "keep"})})
    for read, expected in ((config, title.replace("\n", " ")), (as_written, title)):
        ingest(read, tmp_path / "out")
        assert {row["title"] for row in rows_of(tmp_path / "out" / "items.parquet")} == {expected}


def test_other_delimiters_and_stray_quotes(tmp_path: Path) -> None:
    config = dataset(tmp_path)
    path = tmp_path / "items.txt"
    path.write_text("item_id|title\n" + "".join(f'i{i}|"Tea {i}\n' for i in range(5)))
    source = ItemSource(location=str(path), format="csv", delimiter="|", quote="")
    ingest(config.model_copy(update={"items": source}), tmp_path / "out")
    assert rows_of(tmp_path / "out" / "items.parquet")[0]["title"] == '"Tea 0'


@pytest.mark.parametrize("name", ["[a]*.csv", "[a]*.jsonl", "[a]*.parquet", "[a].csv.gz"])
def test_wildcards_in_a_path_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    ingest(reading(dataset(tmp_path), written(tmp_path, name)), tmp_path / "out")
    assert len(histories(tmp_path / "out")) == 4


def test_source_names_with_quotes_and_spaces(tmp_path: Path) -> None:
    records = [json.loads(json.dumps(r).replace("user_id", "the 'user' ; id")) for r in RECORDS]
    columns = {"user_id": "the 'user' ; id", "item_id": "item_id", "timestamp": "timestamp"}
    config = dataset(tmp_path)
    expected = ingest(config, tmp_path / "plain").dataset_digest
    path = write_jsonl(tmp_path / "it's [my] data*?.jsonl", records)
    assert ingest(reading(config, path, columns=columns), tmp_path / "out").dataset_digest == expected
