"""Spark gives the tables that DuckDB gives, row for row."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.config import DatasetConfig, IngestError, SparkSettings
from ingestion.engines.spark import open_spark
from ingestion.ingest import ingest
from ingestion.sources import resolve, source_digest
from tests.ingestion.ingest_data import dataset, write_jsonl
from tests.ingestion.sources.test_sources import AMAZON, REAL
from tests.ingestion.test_bad_input import GOOD, RECORDS, complaint, with_file
from tests.ingestion.test_properties import FEW, MESSY, THINGS

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not shutil.which("java"), reason="Spark needs Java 17 or newer"),
]

ROOT = Path(__file__).parents[3]
TABLES = ("source_interactions", "source_items", "interactions", "items")
EXAMPLE = ["custom", "--data-dir", str(Path(__file__).parents[1] / "example")]
SMALL = SparkSettings(
    master="local[2]", settings={"spark.sql.shuffle.partitions": "2", "spark.driver.memory": "1g"}
)


@pytest.fixture(scope="module", autouse=True)
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One Spark session, which every ingest of this file finds there."""
    with open_spark(SMALL, tmp_path_factory.mktemp("spark")):
        yield


def on_spark(config: DatasetConfig) -> DatasetConfig:
    return config.model_copy(update={"engine": "spark", "spark": SMALL})


def assert_equal_on_both(config: DatasetConfig, folder: Path) -> None:
    """Tables, counts and digests of both engines."""
    duck, spark = ingest(config, folder / "duck"), ingest(on_spark(config), folder / "spark")
    assert duck.model_dump(exclude={"config"}) == spark.model_dump(exclude={"config"})
    for name in TABLES:
        assert_same_file(folder / "duck" / f"{name}.parquet", folder / "spark" / f"{name}.parquet")


def assert_same_file(first: Path, second: Path) -> None:
    left, right = pq.read_table(first), pq.read_table(second)
    assert left.schema == right.schema
    assert left.equals(right), f"{first.stem}: {left.num_rows} and {right.num_rows} rows"


def test_movielens(tmp_path: Path) -> None:
    assert_equal_on_both(resolve("movielens", None, tmp_path / "cache"), tmp_path)


@pytest.mark.skipif(not AMAZON, reason="set CAR_AMAZON2014_DIR to the folder of the three sets")
@pytest.mark.parametrize("name", list(REAL))
def test_amazon(tmp_path: Path, name: str) -> None:
    assert_equal_on_both(resolve("amazon2014", f"{AMAZON}/{name}", tmp_path / "cache"), tmp_path)


def test_two_executors_that_are_processes_of_their_own(tmp_path: Path) -> None:
    ran("--output", str(tmp_path / "duck"), *EXAMPLE)
    cluster = ["--engine", "spark", "--master", "local-cluster[2,1,1024]"]
    ran("--output", str(tmp_path / "spark"), *EXAMPLE, *cluster)
    for name in TABLES:
        assert_same_file(tmp_path / "duck" / f"{name}.parquet", tmp_path / "spark" / f"{name}.parquet")


@settings(parent=FEW, max_examples=3)
@given(rows=MESSY, rule=st.sampled_from(["first", "last", "all"]), core=st.integers(0, 3))
def test_any_rows(rows: list[tuple[str | None, ...]], rule: str, core: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = [(item, item.upper()) for item in THINGS]
        config = dataset(folder, rows, items, duplicates=rule, user_core=core, item_core=core)
        try:
            ingest(config, folder / "duck")
        except IngestError as refused:
            assert complaint(on_spark(config), folder / "spark") == str(refused)
        else:
            assert_equal_on_both(config, folder / "both")


VALUES = ["1", " 2 ", "-3.0", "1e3", ".5", "0x10", "1_000", "NaN", "inf", "", "9007199254740993", "1.5", "+7"]
TIMES = ["2024-1-2", "2024-01-02T03:04:05.123456Z", "2024-01-02 03:04+02:00", "2024-01-02T03:04:05 UTC"]


def test_ways_to_write_numbers_and_times(tmp_path: Path) -> None:
    """A value that one engine reads and the other refuses would show; one read otherwise would differ."""
    columns = ("user_id", "item_id", "timestamp", "action")
    good = [(f"u{n}", f"i{n % 5}", time, 1) for n, time in enumerate(TIMES)]
    for value in [*VALUES, None]:
        config = dataset(tmp_path, [*good, ("u0", "i1", TIMES[0], value)], columns=columns, user_core=0)
        outcomes = [outcome(config, tmp_path / "duck"), outcome(on_spark(config), tmp_path / "spark")]
        assert outcomes[0] == outcomes[1], value


def outcome(config: DatasetConfig, output: Path) -> object:
    """The rows that come out, or the sentence that refuses them."""
    shutil.rmtree(output, ignore_errors=True)
    try:
        ingest(config, output)
    except IngestError as refused:
        return str(refused)
    return pq.read_table(output / "interactions.parquet").to_pylist()


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv.gz", "tsv"])
def test_formats(tmp_path: Path, kind: str) -> None:
    config = with_file(tmp_path, f"other.{kind}")
    table, path = pa.Table.from_pylist(RECORDS), tmp_path / f"other.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "jsonl":
        write_jsonl(path, RECORDS)
    elif kind == "tsv":
        path.write_text(GOOD.replace(",", "\t"))
    else:
        path.write_bytes(gzip.compress(GOOD.encode()))
    assert_equal_on_both(config, tmp_path)


def test_fields_with_quotes_commas_and_line_breaks(tmp_path: Path) -> None:
    config = dataset(tmp_path)
    titles = ['"a, ""b"""', '"two\nlines"', "\u00e9t\u00e9", '""', '" padded "']
    rows = "".join(f"i{number},{title}\n" for number, title in enumerate(titles))
    (tmp_path / "items.csv").write_text("item_id,title\n" + rows)
    assert_equal_on_both(config, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("short.csv", GOOD + "u0,i0\n", "line 22 has 2 fields, line 1 has 3"),
        ("long.csv", GOOD + "u0,i0,2024-01-01,5\n", "line 22 has 4 fields"),
        ("quote.csv", GOOD + '"u0,i0,2024-01-01\n', "line 22 starts a quoted value"),
        ("empty.csv", "", "is empty"),
        ("soon.csv", GOOD + "u0,i0,soon\n", "(first: 'soon' in row 21, line 22)"),
        ("time.csv", GOOD.replace("timestamp", "time"), "no column 'timestamp'"),
        ("latin.csv", GOOD.encode() + b"caf\xe9,i0,2024-01-01\n", "is not UTF-8"),
        ("short.csv.gz", gzip.compress(GOOD.encode())[:-30], "compressed content is damaged"),
        ("broken.jsonl", '{"user_id": "a"}\n{broken\n', "line 2 is not a JSON object"),
        ("list.jsonl", "[1, 2]\n", "line 1 holds a list; write one object a line"),
        ("nested.jsonl", '{"user_id": {"a": 1}, "item_id": "b", "timestamp": ""}\n', "holds nested values"),
        ("text.parquet", "no Parquet", "cannot be read as parquet"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    """Spark's sentence names the same trouble as DuckDB's."""
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    config = with_file(tmp_path, name)
    for first in (config, on_spark(config)):
        sentence = complaint(first, tmp_path / "out")
        assert message in sentence
        assert name in sentence


def test_units_stored_times_and_odd_names(tmp_path: Path) -> None:
    config = dataset(tmp_path)
    names = ["title", "Title", "_rank", "a.b", "`", "source_row"]
    rows = "".join(f"i{number},{','.join(f'{name} {number}' for name in names)}\n" for number in range(5))
    (tmp_path / "items.csv").write_text(f"item_id,{','.join(names)}\n{rows}")
    items = config.items.model_copy(update={"columns": {name: name for name in ("item_id", *names)}})
    stored = pa.array([1_704_110_400_123_456_789 + 1000 * number for number in range(20)])
    for name, times, unit in (
        ("us", pc.divide(stored, 1000), "epoch_us"),
        ("ns", stored, "epoch_ns"),
        ("stored", stored.cast(pa.timestamp("ns", "Asia/Tokyo")), "iso"),
        ("wrong", pc.divide(stored, 1_000_000_000), "epoch_ms"),
    ):
        columns = {column: [row[column] for row in RECORDS] for column in ("user_id", "item_id")}
        pq.write_table(pa.table({**columns, "timestamp": times}), tmp_path / f"{name}.parquet")
        changed = with_file(tmp_path, f"{name}.parquet", timestamp_unit=unit).model_copy(
            update={"items": items}
        )
        (tmp_path / "items.csv").write_text(f"item_id,{','.join(names)}\n{rows}")
        if name == "wrong":
            sentence = complaint(changed, tmp_path / "duck")
            assert complaint(on_spark(changed), tmp_path / "spark") == sentence
            assert "set timestamp_unit to epoch_s" in sentence
        else:
            assert_equal_on_both(changed, tmp_path)


def test_the_engine_is_no_part_of_what_is_named(tmp_path: Path) -> None:
    config = dataset(tmp_path)
    assert source_digest(config) == source_digest(on_spark(config))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "spark", "--master", "spark://127.0.0.1:9"], "does not answer at spark://127.0.0.1:9"),
        (["--engine", "spark", "--master", "nonsense"], "check spark.master"),
        (["--master", "local[2]"], "needs --engine spark"),
    ],
)
def test_a_master_that_is_none(tmp_path: Path, arguments: list[str], message: str) -> None:
    example = [*EXAMPLE, "--output", str(tmp_path / "out")]
    assert message in ran(*example, *arguments, status=1)
    assert not list((tmp_path / "out").glob("*"))


def test_without_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    example = [*EXAMPLE, "--output", str(tmp_path / "out")]
    assert "needs Java 17 or newer" in ran(*example, "--engine", "spark", status=1)


def ran(*arguments: str, status: int = 0) -> str:
    """`python -m ingestion` in a process of its own; what it wrote, whitespace made even."""
    command = [sys.executable, "-m", "ingestion", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return " ".join((done.stdout + done.stderr).split())
