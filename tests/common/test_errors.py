"""Sentences about settings that pydantic refuses."""

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.errors import first_problem, problems


class Retries(BaseModel):
    """Settings for the tests."""

    model_config = ConfigDict(extra="forbid")
    count: int = Field(ge=0)
    names: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_names(self):
        if self.count > 8 and not self.names:
            raise ValueError("more than 8 retries need names.")
        return self


class Cluster(BaseModel):
    """Settings that hold settings."""

    retries: Retries


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "'retries' is missing."),
        ({"retries": {"count": -1}}, "'retries.count' is -1: input should be greater than or equal to 0."),
        ({"retries": {"count": 1, "name": "a"}}, "there is no setting 'retries.name'; there are: retries."),
        ({"retries": {"count": 1, "names": ["a", {}]}}, "'retries.names.1': input should be a valid string."),
        ({"retries": {"count": 9}}, "'retries': more than 8 retries need names."),
        ({"retries": {"count": None}}, "'retries.count' is None: input should be a valid integer."),
    ],
)
def test_a_problem_is_a_sentence_with_the_path_and_the_value(settings, sentence):
    with pytest.raises(ValidationError) as caught:
        Cluster.model_validate(settings)
    assert first_problem(caught.value, Cluster.model_fields) == sentence


def test_a_long_value_is_escaped_and_cut():
    with pytest.raises(ValidationError) as caught:
        Retries.model_validate({"count": "a\n" * 60})
    assert first_problem(caught.value).startswith(r"'count' is 'a\na\na\n")
    assert len(first_problem(caught.value)) < 200


def test_a_rule_about_the_whole_stands_alone_and_all_problems_are_listed():
    with pytest.raises(ValidationError) as caught:
        Retries(count=9)
    assert problems(caught.value) == ["more than 8 retries need names."]
    with pytest.raises(ValidationError) as caught:
        Retries.model_validate({"count": -1, "other": 1})
    assert problems(caught.value) == [
        "'count' is -1: input should be greater than or equal to 0.",
        "there is no setting 'other'.",
    ]
