"""Every kind of broken row, through Great Expectations itself, on a small dataset folder."""

import json
import re
from datetime import UTC, datetime

import great_expectations.expectations as gxe
import pyarrow as pa
import pytest

from tests.validation.data.dataset_folder import ITEMS, LENGTH, USERS, cast, drop, edit, write_dataset
from validation.data import run_checks
from validation.data.findings import ValidationError
from validation.data.policy import DataPolicy, DriftPolicy
from validation.data.rules import Rule
from validation.data.validate import validate_dataset

POLICY = DataPolicy(action_min=1, action_max=5, max_missing_title_share=0.2)
FUTURE = datetime(2999, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """One run over sound data: the folder, the report and the paths written."""
    folder = tmp_path_factory.mktemp("sound")
    dataset = write_dataset(folder / "dataset")
    docs, profile = folder / "docs.html", folder / "data_profile.json"
    return dataset, validate_dataset(dataset, POLICY, docs, profile=profile), docs, profile


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "dataset")


def problems(dataset, policy=POLICY):
    """The sentences of a run that must fail; its docs must tell the same and its profile stay unwritten."""
    docs, profile = dataset.parent / "docs.html", dataset.parent / "data_profile.json"
    with pytest.raises(ValidationError) as caught:
        validate_dataset(dataset, policy, docs, profile=profile)
    assert docs.read_text().count('class="badge bad"') == len(caught.value.report.problems)
    assert not profile.exists()
    return str(caught.value).splitlines()


def test_sound_data_passes_and_every_table_is_checked(sound):
    _, report, _, _ = sound
    assert report.ok and not report.warnings
    assert {finding.table for finding in report.findings} == {
        "source_interactions", "source_items", "interactions", "items",
    }  # fmt: skip
    assert all(finding.check.startswith("expect_") for finding in report.findings)


def test_the_profile_counts_what_is_kept(sound):
    _, report, _, path = sound
    assert json.loads(path.read_text()) == report.profile.to_json()
    assert (report.profile.users, report.profile.items) == (USERS, ITEMS)
    assert report.profile.interactions == USERS * LENGTH
    assert report.profile.median_interactions == LENGTH


def test_the_docs_are_one_file_without_references(sound):
    page = sound[2].read_text()
    assert "The data is fit to train on" in page
    assert 'class="badge bad"' not in page
    assert not re.search(r"<script|<link|<iframe|\bsrc=|\bhref=|@import|url\(", page)


def test_validation_leaves_the_dataset_alone(sound):
    assert sorted(path.name for path in sound[0].iterdir()) == [
        "interactions.parquet", "items.parquet", "source_interactions.parquet", "source_items.parquet",
    ]  # fmt: skip


def set_value(column, value, rows=(3,)):
    def change(table):
        for row in rows:
            table[row][column] = value

    return change


BROKEN = {
    "null user": ("source_interactions", set_value("user_id", None, (3, 9)),
                  ["source_interactions, column user_id", "user_id is null in 2 of 30 rows", "rows 4, 10"]),
    "null item": ("source_interactions", set_value("item_id", None),
                  ["source_interactions, column item_id", "item_id is null in 1 of 30 rows", "row 4"]),
    "blank user": ("source_interactions", set_value("user_id", "  "),
                   ["column user_id: user_id is blank in 1 of 30 rows"]),
    "null time": ("source_interactions", set_value("timestamp", None),
                  ["column timestamp: timestamp is null in 1 of 30 rows"]),
    "future": ("source_interactions", set_value("timestamp", FUTURE),
               ["column timestamp", "in the future", "1 of 30 rows", "'2999-01-01", "row 4"]),
    "before the epoch": ("source_interactions", set_value("timestamp", datetime(1969, 1, 1, tzinfo=UTC)),
                         ["column timestamp", "before 1970-01-01", "1 of 30 rows"]),
    "rating too high": ("source_interactions", set_value("action", 6.0, (3, 4)),
                        ["column action: action is not at least 1 and at most 5 in 2 of 30 rows", "'6.0'"]),
    "rating too low": ("source_interactions", set_value("action", 0.5),
                       ["column action: action is not at least 1 and at most 5 in 1 of 30 rows"]),
    "rating infinite": ("source_interactions", set_value("action", float("inf")),
                        ["column action", "1 of 30 rows", "'inf' in row 4"]),
    "orphan": ("source_interactions", set_value("item_id", "ghost"),
               ["column item_id: the item is not in the catalogue in 1 of 30 rows", "'ghost' in row 4"]),
    "empty interactions": ("source_interactions", list.clear,
                           ["Table source_interactions: the table is empty (found 0)"]),
    "duplicate item": ("source_items", set_value("item_id", "i0"),
                       ["source_items, column item_id", "in 2 of 8 rows", "'i0' in rows 1, 4"]),
    "null catalogue item": ("source_items", set_value("item_id", None),
                            ["source_items, column item_id: item_id is null in 1 of 8 rows"]),
    "titles missing": ("source_items", set_value("title", " ", (1, 2)),
                       ["column title: the title is empty in 2 of 8 rows", "'i1' in row 2; 'i2' in row 3"]),
    "empty catalogue": ("source_items", list.clear, ["Table source_items: the table is empty"]),
    "position gap": ("interactions", set_value("position", 7),
                     ["interactions, column position", "1 of 30 rows", "'u0'"]),
    "position twice": ("interactions", set_value("position", 2),
                       ["interactions, column position", "1 of 30 rows", "'u0'"]),
    "two test rows": ("interactions", set_value("split", "test"),
                      ["interactions, column split", "1 of 30 rows", "'u0'"]),
    "no test row": ("interactions", set_value("split", "train", (4,)),
                    ["interactions, column split", "1 of 30 rows", "'u0'"]),
    "unknown split": ("interactions", set_value("split", "holdout", (0,)),
                      ["interactions, column split", "1 of 30 rows"]),
    "null kept user": ("interactions", set_value("user_id", None), ["interactions, column user_id"]),
    "kept orphan": ("interactions", set_value("item_id", "ghost"),
                    ["interactions, column item_id: the item is not in items", "'ghost'"]),
    "too few rows": ("interactions", lambda rows: rows.__delitem__(slice(5, None)),
                     ["at least 10 rows are needed (found 5)"]),
    "duplicate kept item": ("items", set_value("item_id", "i0"), ["items, column item_id", "'i0'"]),
    "null kept title": ("items", set_value("title", None), ["items, column title: title is null in 1 of 8"]),
}  # fmt: skip


FAST = (
    "null user",
    "duplicate item",
    "rating too high",
    "orphan",
    "kept orphan",
    "future",
    "empty interactions",
    "position gap",
)


@pytest.mark.parametrize(
    "case", [case if case in FAST else pytest.param(case, marks=pytest.mark.integration) for case in BROKEN]
)
def test_a_broken_row_stops_the_run_and_is_named(dataset, case):
    table, change, expected = BROKEN[case]
    edit(dataset, table, change)
    sentences = problems(dataset)
    assert any(all(part in sentence for part in expected) for sentence in sentences), sentences
    assert all(sentence.endswith(".") for sentence in sentences)


def test_a_check_that_raises_has_failed(dataset, monkeypatch):
    """Great Expectations reports an error as a result among the others."""
    expectation = gxe.ExpectColumnValuesToNotBeNull(column="no such column")
    rule = Rule("It is checked.", "it is broken", "look at it", expectation, "user_id")
    monkeypatch.setattr(run_checks, "table_rules", lambda *_: [rule])
    sentences = problems(dataset)
    assert len(sentences) == 4
    assert all("'It is checked.' could not be checked: " in sentence for sentence in sentences)


def test_all_problems_are_told_at_once(dataset):
    for table, change, _ in (BROKEN["null user"], BROKEN["titles missing"], BROKEN["position gap"]):
        edit(dataset, table, change)
    assert len(problems(dataset)) == 3


def test_a_null_item_is_not_told_again_as_an_orphan(dataset):
    edit(dataset, "source_interactions", set_value("item_id", None))
    assert len(problems(dataset)) == 1


@pytest.mark.parametrize("name", ["source_interactions", "source_items", "interactions", "items"])
def test_a_missing_file_is_named(dataset, name):
    (dataset / f"{name}.parquet").unlink()
    assert problems(dataset) == [f"Table {name}: the file {name}.parquet is missing; run ingest again."]


@pytest.mark.parametrize("content", [b"", b"PAR1 not really"])
def test_an_unreadable_file_is_named(dataset, content):
    (dataset / "items.parquet").write_bytes(content)
    (sentence,) = problems(dataset)
    assert sentence.startswith("Table items: the file items.parquet cannot be read (")


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("source_interactions", "user_id"),
        ("source_items", "item_id"),
        ("interactions", "split"),
        ("items", "title"),
    ],
)
def test_a_missing_column_is_named(dataset, table, column):
    drop(dataset, table, column)
    assert any(
        f"Table {table}: columns are missing (found missing: {column})" in sentence
        for sentence in problems(dataset)
    )


@pytest.mark.parametrize(
    ("table", "column", "kind"),
    [
        ("source_interactions", "timestamp", pa.string()),
        ("source_interactions", "action", pa.string()),
        ("interactions", "position", pa.float64()),
    ],
)
def test_a_column_of_the_wrong_type_is_named_once(dataset, table, column, kind):
    cast(dataset, table, column, kind)
    sentences = [
        sentence
        for sentence in problems(dataset)
        if f"Table {table}, column {column}: the type is {kind}" in sentence
    ]
    assert len(sentences) == 1


def test_a_source_without_any_order_is_refused(dataset):
    drop(dataset, "source_interactions", "timestamp")
    assert any("neither a timestamp nor a position" in sentence for sentence in problems(dataset))


def test_a_source_ordered_by_position_needs_no_timestamp(dataset, tmp_path):
    source = (dataset / "interactions.parquet").read_bytes()
    (dataset / "source_interactions.parquet").write_bytes(source)
    drop(dataset, "source_interactions", "timestamp")
    edit(dataset, "interactions", set_value("timestamp", None, range(USERS * LENGTH)))
    report = validate_dataset(dataset, POLICY, tmp_path / "docs.html")
    assert report.profile.last is None

    edit(dataset, "source_interactions", set_value("position", None))
    assert any("position is null in 1 of 30 rows" in sentence for sentence in problems(dataset))


def test_repeated_interactions_have_their_own_threshold(dataset, tmp_path):
    edit(dataset, "source_interactions", lambda rows: rows.extend(rows[:10]))
    assert validate_dataset(dataset, POLICY, tmp_path / "docs.html").ok
    strict = POLICY.model_copy(update={"max_duplicate_share": 0.1})
    (sentence,) = problems(dataset, strict)
    assert "appear more than once in 20 of 40 rows" in sentence
    assert "in rows 1, 31; 'u0 " in sentence  # both rows of a pair, though 30 rows are between them
    assert sentence.endswith(
        "raise max_duplicate_share in the data policy (data_policy in dataset.json, or --data-policy FILE)."
    )


def test_blanks_around_an_id_are_named(dataset):
    edit(dataset, "source_interactions", set_value("item_id", "i3 "))
    (sentence,) = problems(dataset)
    assert "'i3 ' in row 4); remove the blanks around ids, add the items to the catalogue" in sentence


def test_thresholds_can_allow_orphans_and_missing_titles(dataset, tmp_path):
    edit(dataset, "source_interactions", set_value("item_id", "ghost"))
    edit(dataset, "source_items", set_value("title", None, range(4)))
    loose = POLICY.model_copy(update={"max_orphan_share": 0.1, "max_missing_title_share": 0.5})
    assert validate_dataset(dataset, loose, tmp_path / "docs.html").ok


def test_hostile_ids_are_shown_not_run(dataset):
    edit(dataset, "source_interactions", set_value("item_id", "<script>alert(1)</script>"))
    problems(dataset)
    page = (dataset.parent / "docs.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_drift_against_production_stops_the_run(sound, tmp_path):
    dataset, report, _, _ = sound
    same = validate_dataset(
        dataset, POLICY, tmp_path / "same.html", report.profile.to_json(), release="c" * 64
    )
    assert same.ok and any(finding.check == "drift" for finding in same.findings)

    previous = report.profile.to_json() | {"interactions": 1_000}
    with pytest.raises(ValidationError, match=r"Drift against production: 30 interactions are 0\.03 times"):
        validate_dataset(dataset, POLICY, tmp_path / "drift.html", previous, release="c" * 64)


def test_a_catalogue_that_lost_most_of_productions_items_stops_the_run(sound, tmp_path):
    """Interactions alone would not show it: the items that are lost have none."""
    cold = {f"cold{number}" for number in range(72)}
    items = {f"i{number}" for number in range(ITEMS)}
    with pytest.raises(ValidationError, match="72 of the 80 items that production offers are no longer"):
        validate_dataset(sound[0], DataPolicy(), tmp_path / "docs.html", None, items | cold)
    policy = DataPolicy(drift=DriftPolicy(max_retired_share=0.9))
    report = validate_dataset(sound[0], policy, tmp_path / "docs.html", None, items | cold)
    assert report.drift.retired.model_dump() == {"items": 72, "before": 80, "share": 0.9}
    kept = validate_dataset(sound[0], DataPolicy(), tmp_path / "docs.html", None, items)
    assert (kept.drift.retired.items, kept.ok) == (0, True)


@pytest.mark.parametrize(
    ("titles", "expected"),
    [
        (["Tea, green", "tea GREEN"], "items have the title of another item in 2 of 8 rows"),
        (["Beauty"] * 6, "items have a title that over 5 items have in 6 of 8 rows"),
        (["<b>Tea</b> pot"], "the title holds HTML in 1 of 8 rows"),
        (["Tea &amp; cake"], 'set items.markup to "strip" in dataset.json'),
    ],
)
def test_titles_that_tell_items_badly_apart_are_warned_of(tmp_path, titles, expected):
    dataset = write_dataset(tmp_path / "dataset")

    def rename(rows):
        for row, title in zip(rows, titles, strict=False):
            row["title"] = title

    edit(dataset, "source_items", rename)
    report = validate_dataset(dataset, DataPolicy(), tmp_path / "docs.html")
    assert report.ok
    assert any(expected in warning for warning in report.warnings)
