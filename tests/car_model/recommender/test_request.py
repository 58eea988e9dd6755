"""Requests: anything at all gets a request or one sentence that says what to change."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from car_model.recommender.recommender import Recommender
from car_model.recommender.request import Request, RequestError, batch_of, parse
from common.limits import MAX_BATCH, MAX_HISTORY, MAX_ID, MAX_K

LEVELS = 3
WILD_TEXT = st.text(st.characters(), max_size=20)  # lone surrogates, controls and NUL among them
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | WILD_TEXT
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WILD_TEXT, inner, max_size=4),
    max_leaves=10,
)
ITEM = st.sampled_from(["i1", "i2", "i47", "i48", "none such", "Ünknown"])
NEARLY = st.fixed_dictionaries(
    {"history": st.lists(ITEM, max_size=5) | JSON},
    optional={
        "k": st.integers(-2, 120) | JSON,
        "thinking": st.integers(-1, 5) | JSON,
        "exclude": st.lists(ITEM, max_size=5) | JSON,
        "candidates": st.lists(ITEM, max_size=5) | JSON,
        "explain": st.booleans() | JSON,
    },
)
BODIES = (
    JSON
    | NEARLY
    | st.tuples(NEARLY, st.dictionaries(WILD_TEXT, JSON, max_size=2)).map(lambda pair: {**pair[0], **pair[1]})
)


def nested(depth: int, kind: type = list) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value] if kind is list else {"history": value}
    return value


def one_sentence(error: RequestError) -> None:
    message = str(error)
    message.encode()  # fit for an HTTP answer
    assert message.endswith(".")
    assert len(message) < 300
    assert message.isprintable()


def answer_or_refuse(recommender: Recommender, body: Any) -> None:
    try:
        answer = recommender.recommend(body)
    except RequestError as error:
        assert type(error) is RequestError
        one_sentence(error)
    else:
        json.dumps(answer, allow_nan=False).encode()


@settings(max_examples=300)
@given(BODIES)
def test_any_body_is_answered_or_refused_in_one_sentence(recommender: Recommender, body: Any) -> None:
    answer_or_refuse(recommender, body)


HOSTILE = {
    "huge thinking": {"history": ["i1"], "thinking": 10**5000},
    "huge negative k": {"history": ["i1"], "k": -(10**5000)},
    "k beyond float": {"history": ["i1"], "k": 10**400},
    "deep lists": {"history": nested(50_000)},
    "deep objects": nested(50_000, dict),
    "surrogate field": {"history": ["i1"], "\ud800": 1},
    "surrogate item": {"history": ["\udfff"]},
    "field of two sentences": {"history": ["i1"], "two\nlines. And more": 1},
    "long field": {"history": ["i1"], "x" * 100_000: 1},
    "field of escapes": {"history": ["i1"], "\x1b[31m\u202e": 1},
    "number for a field": {"history": ["i1"], 7: 1},
    "bytes for a field": {"history": ["i1"], b"k": 1},
    "NaN": {"history": ["i1"], "k": math.nan},
    "infinity": float("inf"),
    "object in a list": {"history": ["i1", object()]},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_are_refused_in_one_sentence(recommender: Recommender, name: str) -> None:
    with pytest.raises(RequestError) as caught:
        recommender.recommend(HOSTILE[name])
    one_sentence(caught.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "must be a JSON object"),
        (None, "must be a JSON object"),
        ('{"history": []}', "must be a JSON object"),
        ({}, "'history' is missing"),
        ({"k": 5}, "'history' is missing"),
        ({"history": "50"}, "'history': input should be a valid list"),
        ({"history": None}, "'history': input should be a valid list"),
        ({"history": [50]}, r"'history\[0\]': input should be a valid string"),
        ({"history": ["1", ""]}, r"'history\[1\]': string should have at least 1 character"),
        ({"history": ["x" * (MAX_ID + 1)]}, r"'history\[0\]': string should have at most 256 characters"),
        ({"history": ["1"] * (MAX_HISTORY + 1)}, "'history': list should have at most 10000 items"),
        ({"history": [], "k": 0}, "'k': input should be greater than or equal to 1"),
        ({"history": [], "k": MAX_K + 1}, "'k': input should be less than or equal to 100"),
        ({"history": [], "k": "10"}, "'k': input should be a valid integer"),
        ({"history": [], "k": 10.5}, "'k': input should be a valid integer"),
        ({"history": [], "k": 1e300}, "'k': input should be less than or equal to 100"),
        ({"history": [], "k": math.inf}, "'k': input should be a valid integer"),
        ({"history": [], "k": True}, "'k': input should be a valid integer"),
        ({"history": [], "k": None}, "'k': input should be a valid integer"),
        ({"history": [], "thinking": -1}, "'thinking': input should be greater than or equal to 0"),
        ({"history": [], "thinking": 4}, "'thinking' must be from 0 to 3"),
        ({"history": [], "explain": 1}, "'explain': input should be a valid boolean"),
        ({"history": [], "exclude": {"1": 1}}, "'exclude': input should be a valid list"),
        ({"history": [], "candidates": "1"}, "'candidates': input should be a valid list"),
        ({"history": [], "candidates": ["1", None]}, r"'candidates\[1\]': input should be a valid string"),
        ({"history": [], "candidates": [""]}, r"'candidates\[0\]': string should have at least 1 character"),
        ({"history": [], "candidates": ["1"] * (MAX_HISTORY + 1)}, "'candidates': list should have at most"),
        ({"history": [], "top": 5}, "'top' is not a field of the request; there are: history, k, thinking"),
    ],
)
def test_what_is_wrong_is_named(body: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        parse(body, LEVELS)
    one_sentence(caught.value)


def test_defaults_and_bounds_are_accepted() -> None:
    assert parse({"history": []}, LEVELS) == Request(
        history=[], k=10, thinking=None, exclude=[], candidates=None, explain=True
    )
    assert parse({"history": [], "k": 10.0, "thinking": 2.0}, LEVELS).k == 10  # to JSON, 10.0 is an integer
    assert parse({"history": [], "candidates": None}, LEVELS).candidates is None
    widest = {"history": ["x" * MAX_ID] * MAX_HISTORY, "k": MAX_K, "thinking": LEVELS, "exclude": ["é"]}
    assert parse({**widest, "explain": False}, LEVELS).k == MAX_K
    assert parse({"history": ["1"], "k": 1, "thinking": 0}, LEVELS).thinking == 0


def test_the_default_list_is_not_shared() -> None:
    parse({"history": []}, LEVELS).exclude.append("i1")
    assert parse({"history": []}, LEVELS).exclude == []


@pytest.mark.parametrize("body", [{"history": []}, {}, {"history": [], "k": 0}, None, 7, "requests"])
def test_one_request_is_no_batch(body: Any) -> None:
    assert batch_of(body) is None


@pytest.mark.parametrize("entries", [[{"history": []}], [{}] * MAX_BATCH, [None, 7, [], "x"]])
def test_a_batch_is_a_list_whatever_its_entries_are(entries: list[Any]) -> None:
    assert batch_of(entries) == entries
    assert batch_of({"requests": entries}) == entries


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], f"'requests' must hold 1 to {MAX_BATCH} requests, not 0"),
        ([{}] * (MAX_BATCH + 1), f"'requests' must hold 1 to {MAX_BATCH} requests, not {MAX_BATCH + 1}"),
        ({"requests": []}, "'requests' must hold 1 to"),
        ({"requests": None}, "'requests': input should be a valid list"),
        ({"requests": {"0": {}}}, "'requests': input should be a valid list"),
        ({"requests": [{}], "k": 5}, "a batch holds 'requests' alone; 'k' belongs into one of them"),
        ({"requests": [{}], "\x1b\n" * 100: 5}, "a batch holds 'requests' alone"),
    ],
)
def test_a_malformed_batch_is_refused_whole(body: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        batch_of(body)
    one_sentence(caught.value)
