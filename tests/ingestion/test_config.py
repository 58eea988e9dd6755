from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from ingestion.config import DatasetConfig, IngestError, parse_config

MINIMAL = {"interactions": {"location": "a.csv"}, "items": {"location": "gs://b/items.parquet"}}


def changed(path: str, value: object) -> str:
    """MINIMAL as JSON with one setting replaced; `path` is dotted."""
    config = json.loads(json.dumps(MINIMAL))
    *parents, name = path.split(".")
    target = config
    for parent in parents:
        target = target[parent]
    target[name] = value
    return json.dumps(config)


def test_json_round_trip_and_defaults() -> None:
    config = DatasetConfig.model_validate_json(json.dumps(MINIMAL))
    assert DatasetConfig.model_validate_json(config.model_dump_json()) == config
    assert (config.user_core, config.item_core, config.duplicates) == (5, 5, "first")
    assert config.ordered_text() == ("title",)


def test_text_order_puts_title_first() -> None:
    columns = {"item_id": "id", "brand": "b", "title": "t", "year": "y"}
    config = parse_config(changed("items.columns", columns))
    assert config.ordered_text() == ("title", "brand", "year")
    reordered = config.model_copy(update={"text_columns": ("year", "title")})
    assert reordered.ordered_text() == ("title", "year")


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("a.csv", "csv"),
        ("a.TSV", "tsv"),
        ("gs://b/x.jsonl.gz", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.pq", "parquet"),
    ],
)
def test_format_is_told_by_the_suffix(location: str, expected: str) -> None:
    config = parse_config(changed("interactions.location", location))
    assert config.interactions.resolved_format() == expected


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("user_cores", 3, "unknown setting 'user_cores'; did you mean 'user_core'"),
        ("interactions.colums", {}, "'interactions': unknown setting 'colums'; did you mean 'columns'?."),
        ("zzz", 3, "unknown setting 'zzz'; known: name, interactions"),
        ("user_core", 10**30, "'user_core' is 1000000000000000000000000000000: "),
        ("user_core", -1, "'user_core' is -1: input should be greater than or equal to 0"),
        ("duplicates", "some", "'duplicates' is 'some': input should be 'first', 'last' or 'all'"),
        ("interactions.location", "a.xls", "format of a.xls does not follow"),
        ("interactions.location", "", "interactions.location"),
        ("interactions.timestamp_unit", "s", "timestamp_unit"),
        ("interactions.columns", {"user_id": "u", "item_id": "i"}, "must map 'timestamp' or 'position'"),
        ("interactions.columns", {"user_id": "u", "timestamp": "t"}, "must map 'item_id'"),
        ("interactions.columns", {"user": "u"}, "maps 'user'; it can map user_id, item_id"),
        ("interactions.casts", {"action": "int64"}, "casts names 'action'"),
        ("items.columns", {"title": "t"}, "must map 'item_id'"),
        ("items.columns", {"item_id": "i", "a; b": "r"}, "cannot map 'a; b'"),
        ("text_columns", ["brand"], "text_columns names 'brand'"),
        ("action_min", 1, "need 'action' mapped"),
    ],
)
def test_wrong_settings_are_named_in_one_sentence(path: str, value: object, message: str) -> None:
    with pytest.raises(IngestError) as caught:
        parse_config(changed(path, value), "dataset.json")
    sentence = str(caught.value)
    assert message in sentence
    assert sentence.startswith("dataset.json") and sentence.endswith(".") and "\n" not in sentence


def test_action_range_must_not_be_empty() -> None:
    columns = {"user_id": "u", "item_id": "i", "position": "p", "action": "a"}
    text = json.loads(changed("interactions.columns", columns)) | {"action_min": 5, "action_max": 1}
    with pytest.raises(IngestError, match=r"action_min 5\.0 is above action_max 1\.0"):
        parse_config(json.dumps(text))


def test_broken_json_is_said_so() -> None:
    with pytest.raises(IngestError, match=r"my\.json is not valid JSON \(Expecting property name"):
        parse_config("{", "my.json")


def test_the_model_itself_refuses_unknown_settings() -> None:
    with pytest.raises(ValidationError, match="unknown setting 'cores'"):
        DatasetConfig.model_validate_json(changed("cores", 3))
