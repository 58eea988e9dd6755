"""Times in the wrong unit are questioned, order may come from the file, and any name of a column works."""

from __future__ import annotations

import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.config import DatasetConfig, IngestError, ItemSource
from ingestion.ingest import ingest
from tests.ingestion.ingest_data import ITEMS, dataset, histories, rows_of

NOW = 1_704_110_400  # 2024-01-01 12:00


def timed(folder: Path, times: list[str], unit: str = "iso", **settings: object) -> DatasetConfig:
    """One user's items at these times."""
    rows = [("a", f"i{number}", time) for number, time in enumerate(times)]
    config = dataset(folder, rows, user_core=0, item_core=0)
    source = config.interactions.model_copy(update={"timestamp_unit": unit, **settings})
    return config.model_copy(update={"interactions": source})


@pytest.mark.parametrize(("unit", "scale"), [("epoch_us", 10**6), ("epoch_ns", 10**9)])
def test_microseconds_are_kept(tmp_path: Path, unit: str, scale: int) -> None:
    times = [str(NOW * scale + micros * scale // 10**6) for micros in (2, 1, 0)]
    ingest(timed(tmp_path, times, unit), tmp_path / "out")
    assert histories(tmp_path / "out") == {"a": ["i2", "i1", "i0"]}
    last = rows_of(tmp_path / "out" / "interactions.parquet")[-1]["timestamp"]
    assert last == datetime.datetime(2024, 1, 1, 12, 0, 0, 2, datetime.UTC)


@pytest.mark.parametrize("unit", ["epoch_s", "epoch_ms", "epoch_us", "epoch_ns"])
def test_times_before_1970(tmp_path: Path, unit: str) -> None:
    scale = {"epoch_s": 1, "epoch_ms": 10**3, "epoch_us": 10**6, "epoch_ns": 10**9}[unit]
    ingest(timed(tmp_path, [str(-scale)], unit), tmp_path / "out")
    time = rows_of(tmp_path / "out" / "interactions.parquet")[0]["timestamp"]
    assert time == datetime.datetime(1969, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


def test_epochs_that_a_data_frame_wrote_as_floats(tmp_path: Path) -> None:
    ingest(timed(tmp_path, ["1.7041104e+18", "1704110400000000000.0"], "epoch_ns"), tmp_path / "ns")
    ingest(timed(tmp_path, ["1.7041104e+15", "1704110400000000.0"], "epoch_us"), tmp_path / "us")
    for unit in ("ns", "us"):
        times = {row["timestamp"] for row in rows_of(tmp_path / unit / "interactions.parquet")}
        assert times == {datetime.datetime(2024, 1, 1, 12, tzinfo=datetime.UTC)}


def test_blanks_around_a_time_do_not_matter(tmp_path: Path) -> None:
    ingest(timed(tmp_path, ["2024-03-01 09:00:00 ", " 2024-03-01", "2024-03-02\u00a0"]), tmp_path / "out")
    assert histories(tmp_path / "out") == {"a": ["i1", "i0", "i2"]}


@pytest.mark.parametrize("time", ["2016-12-31T23:59:60Z", "2024-W05-1", "20240101", "2024-02-30", "١٢"])
def test_what_is_no_time(tmp_path: Path, time: str) -> None:
    with pytest.raises(IngestError, match=r"1 value \(first: '.*' in row 1, line 2\) cannot be read as iso"):
        ingest(timed(tmp_path, [time, ""]), tmp_path / "out")


@pytest.mark.parametrize(
    ("number", "unit", "advice"),
    [
        (NOW, "epoch_ms", "set timestamp_unit to epoch_s"),
        (NOW, "epoch_us", "set timestamp_unit to epoch_s"),
        (NOW * 1000, "epoch_us", "set timestamp_unit to epoch_ms"),
        (NOW, "epoch_ns", "set timestamp_unit to epoch_s"),
        (NOW * 10**6, "epoch_ns", "set timestamp_unit to epoch_us"),
    ],
)
def test_numbers_that_are_too_small_for_their_unit(
    tmp_path: Path, number: int, unit: str, advice: str
) -> None:
    times = [str(number + more) for more in range(4)] + ["0", ""]
    with pytest.raises(IngestError, match=rf"4 of 5 times are in 1970 \(the first .*\); .*: {advice}\.$"):
        ingest(timed(tmp_path, times[:5], unit), tmp_path / "out")


def test_stored_times_that_were_converted_in_the_wrong_unit(tmp_path: Path) -> None:
    config = dataset(tmp_path, user_core=0, item_core=0)
    times = pa.array([NOW + number for number in range(5)]).cast(
        pa.timestamp("ns")
    )  # pd.to_datetime(seconds)
    table = pa.table({"user_id": ["a"] * 5, "item_id": [item for item, _ in ITEMS], "timestamp": times})
    pq.write_table(table, tmp_path / "a.parquet")
    source = config.interactions.model_copy(update={"location": str(tmp_path / "a.parquet")})
    with pytest.raises(IngestError, match=r"5 of 5 times are in 1970 .*: convert them again\.$"):
        ingest(config.model_copy(update={"interactions": source}), tmp_path / "out")


@pytest.mark.parametrize("times", [["3", "1", "2"], [f"1970-01-01 00:00:0{n}" for n in (3, 1, 2)]])
def test_times_that_only_count_are_left_alone(tmp_path: Path, times: list[str]) -> None:
    ingest(timed(tmp_path, times, "iso" if len(times[0]) > 1 else "epoch_s"), tmp_path / "out")
    assert histories(tmp_path / "out") == {"a": ["i1", "i2", "i0"]}


def test_the_order_of_the_file(tmp_path: Path) -> None:
    rows = [("a", "i2"), ("b", "i1"), ("a", "i0"), ("a", "i1")]
    config = dataset(
        tmp_path, rows, user_core=0, item_core=0, columns=("user_id", "item_id"), file_order=True
    )
    report = ingest(config, tmp_path / "out")
    assert histories(tmp_path / "out") == {"a": ["i2", "i0", "i1"], "b": ["i1"]}
    assert report.order == ("position", "source_row", "item_id")
    assert rows_of(tmp_path / "out" / "source_interactions.parquet")[2]["position"] == 2


def test_any_name_of_a_text_column(tmp_path: Path) -> None:
    names = [
        "_rank",
        "title",
        "Title",
        "source_row",
        "text_0",
        "text_1",
        "user_id",
        "TITLE",
        "",
        " ",
        "a.b",
        "`",
    ]
    names.remove("")
    path = tmp_path / "odd.csv"
    cells = {item: [f"{item} {number}" for number in range(len(names))] for item, _ in ITEMS}
    lines = [",".join(["id", *names]), *(",".join([item, *texts]) for item, texts in cells.items())]
    path.write_text("\n".join(lines) + "\n")
    source = ItemSource(location=str(path), columns={"item_id": "id"} | {name: name for name in names})
    config = dataset(tmp_path).model_copy(update={"items": source})
    ingest(config, tmp_path / "out")
    for name in ("items", "source_items"):
        row = rows_of(tmp_path / "out" / f"{name}.parquet")[3]
        assert {name: row[name] for name in names} == dict(zip(names, cells["i3"], strict=True))
