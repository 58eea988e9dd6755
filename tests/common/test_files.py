"""Atomic writes and JSON objects."""

import stat

import pytest

from common.errors import UserError
from common.files import atomic_path, read_json_object, write_atomic

LIMIT = 150_000  # bytes


def test_a_file_appears_whole_with_its_mode_and_nothing_beside_it(tmp_path):
    path = tmp_path / "new" / "report.txt"
    assert write_atomic(path, "text: ü\n") == path
    assert path.read_bytes() == "text: ü\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    write_atomic(path, b"\x00secret", 0o600)
    assert path.read_bytes() == b"\x00secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_previous_file_and_removes_the_temporary_one(tmp_path):
    path = write_atomic(tmp_path / "state.json", "previous")

    def fail_half_way():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
            assert temporary.match("*/.state.json.*.partial")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert path.read_text() == "previous"
    assert list(tmp_path.iterdir()) == [path]


def test_an_object_is_read(tmp_path):
    assert read_json_object(write_atomic(tmp_path / "a.json", '{"title": "ü"}')) == {"title": "ü"}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "a.json does not exist; run again."),
        (b"{", r"a.json is not valid JSON \(Expecting property name .*\); run again."),
        (b'{\n"\xff"}', r"a.json is not UTF-8 text \(line 2\); save it as UTF-8; run again."),
        (b"[" * 100_000, r"a.json is not valid JSON \(.*recursion.*\); run again."),
        (b"\xef\xbb\xbf{}", r"a.json is not valid JSON \(.*BOM.*\); run again."),
        (b'{"a": {"k": 1, "l": 2, "k": 1}}', r"\(the name 'k' is given 2 times in one object\); run again."),
        (b'{"k": 1, "\\u006b": 2}', "the name 'k' is given 2 times"),
        (b'{"a": [NaN]}', r"\('NaN' is not a finite number\); run again."),
        (b'{"a": -Infinity}', "'-Infinity' is not a finite number"),
        (b'{"a": 1e999}', "'1e999' is not a finite number"),
        (b'{"a": 1' + b"0" * 5000 + b"}", r"'1000+\.\.\. is not a finite number"),
        (b'{"a": "' + b"x" * LIMIT + b'"}', f"a.json has more than {LIMIT} bytes, the limit; run again."),
        (b"[1]", "a.json must hold a JSON object, not list; run again."),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read_json_object(path, remedy="run again", max_bytes=LIMIT)


def test_a_folder_cannot_be_read_and_the_error_class_is_the_callers(tmp_path):
    class OwnError(UserError):
        pass

    with pytest.raises(OwnError, match=r"cannot be read: Is a directory\."):
        read_json_object(tmp_path, OwnError)
