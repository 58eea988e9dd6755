"""Golden requests: read, replayed, and compared value for value."""

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.answering.golden import GoldenRequests, ReplayReport, first_difference, replay
from serving.errors import RequestRefusedError, ServingError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
GOLDEN = GoldenRequests([{"k": 1}, {"k": 2}], [{"items": ["a"]}, {"items": ["a", "b"]}])


@given(values)
def test_a_value_equals_itself(value: Any) -> None:
    assert first_difference(value, copy.deepcopy(value)) is None


@given(values, values)
def test_no_difference_means_equal_json(left: Any, right: Any) -> None:
    assert (first_difference(left, right) is None) <= (left == right)
    assert (left != right) <= (first_difference(left, right) is not None)


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
    assert ReplayReport(2, 0, (), 1.0, 2.0).sentence() == "all 2 golden requests gave the expected answer"
    failure = ReplayReport(2, 1, ("request 0: answer lacks a",))
    assert not failure.passed
    assert failure.sentence() == "1 of 2 golden requests gave another answer: request 0: answer lacks a"


def test_a_replay_compares_answers_under_the_release_that_answers() -> None:
    answers = [{"items": ["a"], "release": "r"}, {"items": ["a", "b"], "release": "r"}]
    report = replay(GOLDEN, "r", lambda request: answers[request["k"] - 1])
    assert report.passed
    assert (report.requests, report.p50_ms) == (2, 0)
    mismatch = replay(GOLDEN, "s", lambda request: answers[request["k"] - 1])
    assert mismatch.differing == 2
    assert mismatch.differences[1] == 'request 1: answer.release is "r", expected "s"'


def test_a_refused_request_is_a_difference_and_a_server_error_ends_the_replay() -> None:
    def refuse(status: int) -> Any:
        def predict(request: dict[str, Any]) -> dict[str, Any]:
            raise RequestRefusedError(status, "'k' is wrong.")

        return predict

    report = replay(GOLDEN, "r", refuse(400))
    assert report.differences == tuple(f"request {i}: refused with 400: 'k' is wrong." for i in (0, 1))
    with pytest.raises(RequestRefusedError):
        replay(GOLDEN, "r", refuse(500))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "does not exist"),
        ("{", "is not valid JSON"),
        ("[]", "must hold a JSON object"),
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
        GoldenRequests.read(path)
