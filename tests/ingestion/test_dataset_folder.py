from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from common.digests import tree_files
from ingestion.__main__ import app
from ingestion.config import IngestError
from ingestion.ingest import ingest
from ingestion.report import IngestReport
from tests.ingestion.ingest_data import INTERACTIONS, ITEMS, dataset, histories, rows_of

FILES = {
    "source_interactions.parquet",
    "source_items.parquet",
    "interactions.parquet",
    "items.parquet",
    "report.json",
}
ACTION = ("user_id", "item_id", "timestamp", "action")


def test_the_folder_has_the_agreed_files_and_columns(tmp_path: Path) -> None:
    report = ingest(dataset(tmp_path), tmp_path / "out")
    assert set(tree_files(tmp_path / "out")) == FILES
    schema = pq.read_schema(tmp_path / "out" / "interactions.parquet")
    assert schema.equals(
        pa.schema(
            [
                ("user_id", pa.string()),
                ("item_id", pa.string()),
                ("position", pa.int64()),
                ("timestamp", pa.timestamp("us", tz="UTC")),
                ("action", pa.float64()),
                ("split", pa.string()),
            ]
        )
    )
    assert pq.read_schema(tmp_path / "out" / "items.parquet").names == ["item_id", "title"]
    assert IngestReport.model_validate_json((tmp_path / "out" / "report.json").read_text()) == report


def test_split_and_positions_of_one_user(tmp_path: Path) -> None:
    ingest(dataset(tmp_path), tmp_path / "out")
    rows = [row for row in rows_of(tmp_path / "out" / "interactions.parquet") if row["user_id"] == "u2"]
    assert [row["position"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["split"] for row in rows] == ["train", "train", "train", "valid", "test"]
    assert [row["item_id"] for row in rows] == ["i0", "i1", "i2", "i3", "i4"]


def test_ids_that_differ_by_blanks_are_different(tmp_path: Path) -> None:
    rows = [
        (user, item, f"2024-01-0{day}")
        for user in ("a", " a", "a ")
        for day, item in enumerate(("i0", " i0"), 1)
    ]
    items = [("i0", "Tea"), (" i0", "Other tea")]
    ingest(dataset(tmp_path, rows, items, user_core=0, item_core=0), tmp_path / "out")
    assert histories(tmp_path / "out") == {user: ["i0", " i0"] for user in ("a", " a", "a ")}


def test_short_histories_only_train(tmp_path: Path) -> None:
    rows = [("a", "i0", "2024-01-01"), ("a", "i1", "2024-01-02"), ("b", "i0", "2024-01-01")]
    report = ingest(dataset(tmp_path, rows, user_core=0, item_core=0), tmp_path / "out")
    assert report.splits == {"train": 3, "valid": 0, "test": 0}


def test_ties_keep_the_order_of_the_file(tmp_path: Path) -> None:
    rows = [("a", item, "2024-01-01") for item in ("i3", "i0", "i4", "i1")]
    ingest(dataset(tmp_path, rows, user_core=0, item_core=0), tmp_path / "out")
    assert histories(tmp_path / "out") == {"a": ["i3", "i0", "i4", "i1"]}


def test_position_is_the_order_where_it_is_mapped(tmp_path: Path) -> None:
    rows = [("a", "i0", 2, "2024-01-01"), ("a", "i1", 0, None), ("a", "i2", 1, "2024-01-03")]
    columns = ("user_id", "item_id", "position", "timestamp")
    report = ingest(dataset(tmp_path, rows, columns=columns, user_core=0, item_core=0), tmp_path / "out")
    assert histories(tmp_path / "out") == {"a": ["i1", "i2", "i0"]}
    assert report.order == ("position", "source_row", "item_id")


def test_every_dropped_row_is_counted_by_its_rule(tmp_path: Path) -> None:
    broken = [
        (None, "i0", "2024-02-01", 5),
        ("u0", None, "2024-02-01", 5),
        ("u0", "i0", None, 5),
        ("u0", "unknown", "2024-02-01", 5),
        ("u0", "i0", "2024-02-01", 1),
        ("u1", "i0", "2024-02-02", None),
        ("u0", "i0", "2024-02-03", 4),
        ("lonely", "i0", "2024-02-03", 4),
    ]
    good = [(*row, 4) for row in INTERACTIONS]
    items = [*ITEMS, ("i0", "Twice"), (None, "Nameless"), ("i8", None), ("i7", "Never met")]
    config = dataset(tmp_path, good + broken, items, ACTION, positive_action=3)
    report = ingest(config, tmp_path / "out")
    assert report.dropped.interactions == {
        "missing id": 2,
        "missing timestamp": 1,
        "item not in the catalogue": 1,
        "action too low": 2,
        "duplicate of user and item": 1,
        "k-core 2/2": 1,
    }
    dropped = {"missing id": 1, "duplicate item_id": 1}
    assert report.dropped.items == {**dropped, "neither interactions nor text": 1}
    assert (report.read.interactions, report.kept.interactions) == (28, 20)
    assert (report.read.items, report.kept.items, report.users) == (9, 6, 4)
    assert (report.items, report.cold_items, report.density) == (5, 1, 1.0)
    report = ingest(config.model_copy(update={"cold_items": "drop"}), tmp_path / "out")
    assert report.dropped.items == {**dropped, "no kept interaction": 2}
    assert (report.kept.items, report.items, report.cold_items) == (5, 5, 0)


def test_items_without_interactions_are_offered_after_the_others(tmp_path: Path) -> None:
    """However an item lost its interactions: nobody met it, or too few people did."""
    rows = [*INTERACTIONS, ("u0", "h", "2024-03-01")]
    items = [("h", "Met once"), *ITEMS, ("g", "Never met")]
    ingest(dataset(tmp_path, rows, items), tmp_path / "out")
    expected = ["i0", "i1", "i2", "i3", "i4", "g", "h"]
    assert [row["item_id"] for row in rows_of(tmp_path / "out" / "items.parquet")] == expected


def test_broken_rows_stay_visible_for_validation(tmp_path: Path) -> None:
    rows = [
        *[(*row, 4) for row in INTERACTIONS],
        (None, "i0", "2999-01-01", 77),
        ("u0", "nowhere", None, None),
    ]
    items = [*ITEMS, ("i0", "Twice"), (None, None)]
    ingest(dataset(tmp_path, rows, items, ACTION, action_min=1, action_max=5), tmp_path / "out")
    source = rows_of(tmp_path / "out" / "source_interactions.parquet")
    assert len(source) == len(rows)
    assert source[-2]["user_id"] is None
    assert (source[-2]["timestamp"].year, source[-2]["action"]) == (2999, 77)
    assert source[-1] == {"user_id": "u0", "item_id": "nowhere", "timestamp": None, "action": None}
    catalogue = rows_of(tmp_path / "out" / "source_items.parquet")
    assert catalogue[-2:] == [{"item_id": "i0", "title": "Twice"}, {"item_id": None, "title": None}]


def test_out_of_range_and_future_rows_are_left_to_validation(tmp_path: Path) -> None:
    rows = [(*row, 4) for row in INTERACTIONS] + [
        ("u0", "i5", "2999-01-01", 77),
        ("u1", "i5", "2024-03-01", 4),
    ]
    config = dataset(tmp_path, rows, [*ITEMS, ("i5", "Six")], ACTION, action_min=1, action_max=5)
    report = ingest(config, tmp_path / "out")
    assert report.kept.interactions == len(rows)
    assert report.last_time == "2999-01-01T00:00:00Z"


@pytest.mark.parametrize(("rule", "expected"), [("first", [0, 1]), ("last", [1, 2]), ("all", [0, 1, 2])])
def test_duplicate_rule(tmp_path: Path, rule: str, expected: list[int]) -> None:
    visits = [("a", "i0", "2024-01-01"), ("a", "i1", "2024-01-02"), ("a", "i0", "2024-01-03")]
    config = dataset(tmp_path, visits, user_core=0, item_core=0, duplicates=rule)
    ingest(config, tmp_path / "out")
    times = [row["timestamp"].day - 1 for row in rows_of(tmp_path / "out" / "interactions.parquet")]
    assert times == expected


def test_text_falls_back_and_is_never_null(tmp_path: Path) -> None:
    items = [("i1", None, "  "), ("i0", " Tea ", "Leaf")]
    rows = [("a", "i0", "2024-01-01"), ("a", "i1", "2024-01-02")]
    config = dataset(
        tmp_path, rows, items, item_columns=("item_id", "title", "brand"), user_core=0, item_core=0
    )
    report = ingest(config, tmp_path / "out")
    assert rows_of(tmp_path / "out" / "items.parquet") == [
        {"item_id": "i0", "title": "Tea", "brand": "Leaf"},
        {"item_id": "i1", "title": "i1", "brand": ""},
    ]
    assert report.text_columns == ("title", "brand")


def test_a_catalogue_without_titles_shows_ids(tmp_path: Path) -> None:
    items = [(f"i{i}", f"brand {i}") for i in range(5)]
    ingest(dataset(tmp_path, items=items, item_columns=("item_id", "brand")), tmp_path / "out")
    assert rows_of(tmp_path / "out" / "items.parquet")[3] == {
        "item_id": "i3",
        "title": "i3",
        "brand": "brand 3",
    }


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    config = dataset(tmp_path)
    ingest(config, tmp_path / "one")
    ingest(config, tmp_path / "two")
    assert tree_files(tmp_path / "one") == tree_files(tmp_path / "two")


def test_the_dataset_digest_names_the_result_not_the_way_to_it(tmp_path: Path) -> None:
    here = ingest(dataset(tmp_path / "here"), tmp_path / "one")
    moved = ingest(dataset(tmp_path / "moved", list(reversed(INTERACTIONS))), tmp_path / "two")
    shortened = ingest(dataset(tmp_path / "other", INTERACTIONS[1:]), tmp_path / "three")
    retitled = ingest(dataset(tmp_path / "retitled", items=[*ITEMS[:4], ("i4", "New")]), tmp_path / "four")
    later = [(user, item, time.replace("T03", "T04")) for user, item, time in INTERACTIONS]
    shifted = ingest(dataset(tmp_path / "later", later), tmp_path / "five")
    assert here.dataset_digest == moved.dataset_digest
    assert here.source_digest != moved.source_digest
    assert len({report.dataset_digest for report in (here, shortened, retitled, shifted)}) == 4


def test_a_failed_run_leaves_no_report(tmp_path: Path) -> None:
    ingest(dataset(tmp_path), tmp_path / "out")
    hopeless = dataset(tmp_path, user_core=50)
    with pytest.raises(IngestError, match="No interaction"):
        ingest(hopeless, tmp_path / "out")
    assert not (tmp_path / "out" / "report.json").exists()
    assert not list((tmp_path / "out").glob(".*")), "temporary files are left"


def test_report_carries_what_later_steps_read(tmp_path: Path) -> None:
    ingest(dataset(tmp_path), tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["text_columns"] == ["title"]
    assert report["config"]["user_core"] == 2
    assert report["first_time"] == "2024-01-01T00:00:00Z"
    assert len(report["dataset_digest"]) == len(report["source_digest"]) == 64


@pytest.mark.parametrize("option", ["--output", "--cache-dir"])
def test_the_command_names_a_place_that_cannot_be_used(tmp_path: Path, option: str) -> None:
    (tmp_path / "file").touch()
    options = {"--output": "out", "--cache-dir": "cache"} | {option: "file/x"}
    places = [part for name, place in options.items() for part in (name, str(tmp_path / place))]
    ended = CliRunner().invoke(app, ["movielens", *places])
    assert ended.exit_code == 1
    assert f"{tmp_path}/file/x" in ended.output and "cannot be used: Not a directory." in ended.output
