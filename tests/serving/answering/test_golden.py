import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.answering.golden import Golden, first_difference
from serving.errors import ServingError
from serving.torchserve.replay import GoldenReport

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(values)
def test_a_value_equals_itself(value: Any) -> None:
    assert first_difference(value, copy.deepcopy(value)) is None


@given(values, values)
def test_no_difference_means_equal_json(one: Any, two: Any) -> None:
    assert (first_difference(one, two) is None) <= (one == two)
    assert (one != two) <= (first_difference(one, two) is not None)


@pytest.mark.parametrize(
    ("expected", "actual", "sentence"),
    [
        (
            {"items": [{"score": 0.5}]},
            {"items": [{"score": 0.6}]},
            "answer.items[0].score is 0.6, expected 0.5",
        ),
        ({"items": [1, 2]}, {"items": [1]}, "answer.items has 1 entries, expected 2"),
        ({"a": 1}, {}, "answer lacks a"),
        ({}, {"a": 1}, "answer has the unexpected a"),
        ({"a": 1}, {"a": True}, "answer.a is true, expected 1"),
        ({"a": 1.0}, {"a": 1}, "answer.a is 1, expected 1.0"),
        ({"a": None}, {"a": "popular"}, 'answer.a is "popular", expected null'),
    ],
)
def test_the_first_difference_is_named(expected: Any, actual: Any, sentence: str) -> None:
    assert first_difference(expected, actual) == sentence


def test_a_report_reads_as_a_sentence() -> None:
    assert GoldenReport(2, 0, (), 1.0, 2.0).sentence() == "all 2 golden requests gave the expected answer"
    bad = GoldenReport(2, 1, ("request 0: answer lacks a",), 0.0, 0.0)
    assert not bad.passed
    assert bad.sentence() == "1 of 2 golden requests gave another answer: request 0: answer lacks a"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "is not a golden file"),
        ("{", "is not a golden file"),
        ('{"requests": []}', "is not a golden file"),
        ('{"requests": [], "answers": []}', "0 requests and 0 answers: it proves nothing"),
        ('{"requests": [{}], "answers": []}', "1 requests and 0 answers: it proves nothing"),
    ],
)
def test_a_golden_file_that_proves_nothing_is_refused(
    tmp_path: Path, content: str | None, sentence: str
) -> None:
    path = tmp_path / "golden.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ServingError, match=sentence):
        Golden.read(path)
