"""Digests: equal content has one name, any other content another."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.digests import CHUNK_BYTES, canonical_json, file_digest, json_digest, tree_digest, tree_files

# Without bool and float, Python's == is JSON's equality.
LEAVES = st.none() | st.integers() | st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.text("abcé.-", min_size=1, max_size=6).filter(lambda name: name.strip("."))
FILES = st.dictionaries(NAMES.map(str.lower), st.binary(max_size=40), min_size=1, max_size=4)


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(part) for part in value] if isinstance(value, list) else value


@given(VALUES)
def test_the_order_of_keys_does_not_matter(value: Any) -> None:
    assert json_digest(reversed_keys(value)) == json_digest(value)


@given(VALUES, VALUES)
def test_different_values_have_different_digests(first: Any, other: Any) -> None:
    assert (json_digest(first) == json_digest(other)) == (first == other)


@pytest.mark.parametrize("pair", [([1, 2], [2, 1]), ({"a": 1}, {"a": "1"}), ([], {}), (None, ""), ([[]], [])])
def test_near_misses_differ(pair: tuple[Any, Any]) -> None:
    assert json_digest(pair[0]) != json_digest(pair[1])


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_cannot_carry_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"deep": [1, {"down": number}]})


def test_canonical_json_is_utf8_without_spaces() -> None:
    assert canonical_json({"b": "é", "a": [1, None]}) == '{"a":[1,null],"b":"é"}'.encode()


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 3])
def test_file_digest_is_sha256_at_any_block_boundary(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "data").write_bytes(content)
    return root


@given(FILES, st.data())
def test_any_changed_byte_or_name_changes_the_folder(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], data: st.DataObject
) -> None:
    before = tree_digest(write(tmp_path_factory.mktemp("a"), files))
    name = data.draw(st.sampled_from(sorted(files)))
    longer = {**files, name: files[name] + b"\0"}
    renamed = {("z" + key if key == name else key): content for key, content in files.items()}
    fewer = {key: content for key, content in files.items() if key != name}
    for changed in (longer, renamed, fewer):
        assert tree_digest(write(tmp_path_factory.mktemp("b"), changed)) != before


@given(FILES)
def test_order_times_and_modes_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    first = write(tmp_path_factory.mktemp("a"), files)
    other = write(tmp_path_factory.mktemp("b"), dict(reversed(files.items())))
    for path in other.rglob("data"):
        path.chmod(0o600)
        os.utime(path, (1, 1))
    assert tree_digest(first) == tree_digest(other)


def test_swapping_two_files_contents_changes_the_folder(tmp_path: Path) -> None:
    first = write(tmp_path / "one", {"a": b"1", "b": b"2"})
    other = write(tmp_path / "other", {"a": b"2", "b": b"1"})
    assert tree_digest(first) != tree_digest(other)


def test_tree_files_are_relative_posix_paths(tmp_path: Path) -> None:
    write(tmp_path, {"x/y": b"1", "x": b""})
    assert sorted(tree_files(tmp_path)) == ["x/data", "x/y/data"]
