import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.limits import MAX_BODY_BYTES
from serving.answering.request_body import MAX_DEPTH, BadBodyError, parse_body

leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, dict | list) + max(map(depth, inner), default=0)


@given(st.dictionaries(st.text(), values) | st.lists(values))
def test_an_object_or_array_comes_through_unchanged_or_is_too_deep(value: dict | list) -> None:
    assert parse_body(value) == value
    for body in (json.dumps(value).encode(), json.dumps(value, ensure_ascii=False, indent=1)):
        if depth(value) <= MAX_DEPTH:
            assert parse_body(body) == value
        else:
            with pytest.raises(BadBodyError, match="nested too deeply: more than 8 levels"):
                parse_body(body)


@given(st.binary(max_size=200) | st.text(st.sampled_from('[]{}"\\,: 1a'), max_size=60).map(str.encode))
def test_any_bytes_are_a_container_or_refused(body: bytes) -> None:
    try:
        assert isinstance(parse_body(body), dict | list)
    except BadBodyError as error:
        assert str(error).endswith(".")


@given(leaves)
def test_other_json_is_refused(value: object) -> None:
    with pytest.raises(BadBodyError, match=r"object|no body"):
        parse_body(json.dumps(value).encode())


@given(st.lists(st.sampled_from(["k", "history", "é", "\ud800", ""]), min_size=2, max_size=6))
def test_a_name_may_stand_once_in_an_object(names: list[str]) -> None:
    inner = "{" + ", ".join(f"{json.dumps(name)}: 1" for name in names) + "}"
    for body in (inner, f'{{"a": [{inner}]}}'):
        if len(set(names)) == len(names):
            assert parse_body(body)
        else:
            with pytest.raises(BadBodyError, match=r"names '.*' twice in one object\.") as caught:
                parse_body(body)
            assert str(caught.value).isprintable()


def test_names_are_compared_as_they_are_read() -> None:
    with pytest.raises(BadBodyError, match="names 'k' twice"):
        parse_body(rb'{"k": 1, "\u006b": 2}')
    assert parse_body(b'[{"k": 1}, {"k": 2}]') == [{"k": 1}, {"k": 2}]


@pytest.mark.parametrize("text", ["[" * 50, "{" * 50, '\\"' * 9 + "[" * 50, "\\", '"', '\\"'])
def test_brackets_in_a_string_are_no_nesting(text: str) -> None:
    value = {"history": [text, "[" * 50]}
    assert parse_body(json.dumps(value)) == value


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1])
def test_the_depth_is_counted_where_the_nesting_is(levels: int) -> None:
    body = "[[], {}, " * levels + "1" + "]" * levels
    if levels < MAX_DEPTH:
        parse_body(body)
    else:
        with pytest.raises(BadBodyError, match="nested too deeply"):
            parse_body(body)
    assert parse_body("[" * MAX_DEPTH + "]" * MAX_DEPTH)


@pytest.mark.parametrize("unit", ['"', '\\"', '"\\', "\\", '[["', "{[", '"a"[', "]"])
def test_the_worst_bodies_are_refused_in_no_time(unit: str) -> None:
    """A scan that went back at every quote would take hours."""
    body = ("[" * 9 + '"' + unit * (MAX_BODY_BYTES // len(unit)))[:MAX_BODY_BYTES]
    started = time.process_time()
    with pytest.raises(BadBodyError):
        parse_body(body)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (None, "no body"),
        (b"  \n", "no body"),
        (b"{", "not JSON: .* line 1, column 2"),
        (b'{"a": "\xff"}', r"not UTF-8 \(byte 7\)"),
        (b'{"k": Infinity}', "Infinity, which is not a JSON number"),
        (b'{"k": NaN}', "NaN, which is not a JSON number"),
        (b'{"k": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": "' + b"x" * MAX_BODY_BYTES + b'"}', "at most 262144"),
        ('{"history": []}'.encode("utf-16"), "not UTF-8"),
        (b'{"history": []} {}', "not JSON: extra data"),
        (b'{"k": 1, "k": 1}', "names 'k' twice in one object"),
        (7, "not a number"),
        (True, "not a boolean"),
    ],
)
def test_a_refusal_says_what_is_wrong(body: object, sentence: str) -> None:
    with pytest.raises(BadBodyError, match=f"(?i){sentence}"):
        parse_body(body)
