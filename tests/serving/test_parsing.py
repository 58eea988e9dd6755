import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.parsing import MAX_BODY_BYTES, BadBodyError, parse_request

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.dictionaries(st.text(), values))
def test_an_object_comes_through_unchanged(value: dict) -> None:
    assert parse_request(json.dumps(value).encode()) == value
    assert parse_request(json.dumps(value)) == value
    assert parse_request(value) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    try:
        assert isinstance(parse_request(body), dict)
    except BadBodyError as error:
        assert str(error).endswith(".")


@given(values.filter(lambda value: not isinstance(value, dict)))
def test_other_json_is_refused(value: object) -> None:
    with pytest.raises(BadBodyError, match=r"object|no body"):
        parse_request(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (None, "no body"),
        (b"  \n", "no body"),
        (b"{", "not JSON: .* line 1, column 2"),
        (b'{"a": "\xff"}', r"not UTF-8 \(byte 7\)"),
        (b'{"k": Infinity}', "Infinity, which is not a JSON number"),
        (b'{"k": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": "' + b"x" * MAX_BODY_BYTES + b'"}', "at most 262144"),
        ([1, 2], "not an array"),
    ],
)
def test_a_refusal_says_what_is_wrong(body: object, sentence: str) -> None:
    with pytest.raises(BadBodyError, match=sentence):
        parse_request(body)
