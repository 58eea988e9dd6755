import json
import math
import re
from typing import ClassVar

import pytest
from pydantic import Field

from car_model.evidence.base import Evidence, EvidenceError, EvidenceFile, number_range
from car_model.evidence.evaluation import (
    ChampionComparison,
    Evaluation,
    Interval,
)
from car_model.evidence.schemas import FILES


class Part(Evidence):
    value: float
    note: str | None = None


class Report(EvidenceFile):
    step: ClassVar[str] = "measure"

    part: Part | None = None
    parts: dict[str, Part] = Field(default={})
    values: tuple[float, ...] = ()
    recall: float | None = Field(default=None, validation_alias="recall@5", serialization_alias="recall@5")


FULL = {
    "part": {"value": 1.0, "note": "n"},
    "parts": {"a": {"value": 2.0, "note": None}},
    "values": [1.0, 2.0],
    "recall@5": 0.5,
}


def test_evidence_survives_its_file(tmp_path):
    report = Report(part=Part(value=1.0, note="n"), parts={"a": Part(value=2)}, values=(1, 2), recall=0.5)
    report.write(tmp_path / "deep" / "report.json")
    assert json.loads((tmp_path / "deep" / "report.json").read_text()) == FULL
    assert Report.read(tmp_path / "deep" / "report.json") == report
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.json"]


@pytest.mark.parametrize("content", [None, "", "{", "[]", "null", "\xff", "[" * 100_000, '{"extra": 1}'])
def test_a_file_that_is_no_evidence_is_an_error_in_one_sentence(tmp_path, content):
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(EvidenceError, match=r"report\.json .*run the measure step again\.$"):
        Report.read(path)


@pytest.mark.parametrize("value", ["true", '"0.5"', "NaN", "Infinity", "1" + 400 * "0", "null"])
def test_a_number_is_a_finite_number(tmp_path, value):
    path = tmp_path / "report.json"
    path.write_text(f'{{"part": {{"value": {value}}}}}')
    with pytest.raises(EvidenceError, match=r"part\.value|is not a finite number"):
        Report.read(path)


@pytest.mark.parametrize(
    ("damage", "rest"),
    [
        ({"part": 3}, {"part": None}),
        ({"part": {"value": True}}, {"part": None}),
        ({"part": {"value": 1.0, "note": 3}}, {"part": {"value": 1.0, "note": None}}),
        ({"part": {}}, {"part": None}),
        ({"parts": {"a": {"value": 2.0}, "b": {"value": float("nan")}}}, {}),
        ({"parts": []}, {"parts": {}}),
        ({"values": [1.0, "x"]}, {"values": []}),
        ({"recall@5": 10**400}, {"recall@5": None}),
        ({"extra": 1}, {}),
    ],
)
def test_salvaging_leaves_out_what_is_damaged_and_nothing_else(damage, rest):
    assert Report.salvage(FULL | damage).to_json() == FULL | rest


def test_what_cannot_be_left_out_cannot_be_salvaged():
    with pytest.raises(EvidenceError, match="beyond repair"):
        FILES["verdict"].salvage({"blessed": True})


def test_only_a_written_null_says_that_there_is_no_champion():
    assert Evaluation.salvage({"champion": {"release": None}}).champion == ChampionComparison(release=None)
    for champion in ({}, {"release": ""}, {"release": " "}, {"release": 0}, {"release": False}, None):
        assert Evaluation.salvage({"champion": champion}).champion is None


def test_what_was_not_measured_has_a_known_name_and_a_reason():
    stated = {"action": "no interaction has an action.", "cold": " ", "paired.popularity": "why not"}
    assert Evaluation.salvage({"not_measured": {"action": "w"}}).not_measured == {"action": "w"}
    with pytest.raises(EvidenceError, match="not_measured"):
        Evaluation.from_object({"not_measured": stated}, "evaluation.json")
    for action in ({"architecture": "lfa"}, {"why": "w"}, {}):
        assert Evaluation.salvage({"action": action}).action is None


@pytest.mark.parametrize(
    ("path", "limits"),
    [
        ("paired.any name.ndcg@10.low", (-1, 1)),
        ("paired.any name.ndcg@10.relative_low", (-1, math.inf)),
        ("models.any name.ndcg@10.mean", (0, 1)),
        ("cold.recall@50", (0, 1)),
        ("codebook.churn.unasked", (0, 1)),
        ("action.normalised_entropy.high", (0, math.inf)),
        ("action.ndcg.liked.paired.ndcg@10.high", (-1, 1)),
        ("holdout.users", (0, math.inf)),
        ("slices.tail items.models.sasrec.recall@5", (0, 1)),
        ("drift.activity.distance", (0, 1)),
        ("drift.newest.days_back", (-math.inf, math.inf)),
    ],
)
def test_a_number_has_the_limits_of_its_type(path, limits):
    assert number_range(Evaluation, tuple(path.split("."))) == limits


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("codebok.usage_min", "an evaluation has no 'codebok' (it has holdout, models, "),
        ("paired.sasrec.ndgc@10.low", "'paired.sasrec' has no 'ndgc@10' (it has recall@5, ndcg@5, "),
        ("latency.p99_ms.mean", "'latency.p99_ms' has no 'mean' (it has no parts)"),
        ("champion.release", "'champion.release' is not a number"),
        ("codebook.churn", "'codebook.churn' is not a number"),
        ("codebook.usage", "'codebook.usage' is not a number"),
    ],
)
def test_a_path_to_anything_else_is_explained(path, problem):
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}"):
        number_range(Evaluation, tuple(path.split(".")))


def test_every_field_of_every_evidence_file_is_documented():
    for name, model in FILES.items():
        schema = model.model_json_schema(mode="serialization")
        for part in (schema, *schema.get("$defs", {}).values()):
            fields = part.get("properties", {})
            assert part.get("description"), (name, part["title"])
            undocumented = [field for field, value in fields.items() if not value.get("description")]
            assert not undocumented, (name, part["title"], undocumented)


def test_metrics_are_named_as_policies_name_them():
    metrics = {"ndcg@10": Interval(mean=0.1, low=0.0, high=0.2)}
    written = Evaluation(models={"challenger": metrics}).to_json()
    assert written["models"] == {"challenger": {"ndcg@10": {"mean": 0.1, "low": 0.0, "high": 0.2}}}
    with pytest.raises(ValueError, match="recall@7"):
        Evaluation.model_validate({"models": {"challenger": {"recall@7": metrics["ndcg@10"]}}})
