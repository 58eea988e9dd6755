"""A codebook that can't be trusted is refused with a sentence that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from car_model.codebook.codebook import ARRAYS, HEADER, Codebook, CodebookError
from car_model.codebook.residual_kmeans import CodebookConfig, fit
from tests.car_model.builders import SPEC
from tests.fixtures import tiny_vectors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    saved = tmp_path / "this codebook"
    fit(tiny_vectors(), SPEC, "{title}", CodebookConfig(n_levels=2, codebook_size=4)).save(saved)
    return saved


def refuse(folder: Path) -> None:
    with pytest.raises(CodebookError) as caught:
        Codebook.load(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ARRAYS)
def test_any_flipped_bit_of_the_numbers_is_found(folder: Path, name: str) -> None:
    path = folder / f"{name}.npy"
    content = bytearray(path.read_bytes())
    for offset in range(128, len(content), 37):  # 128 bytes of npy header
        damaged = content.copy()
        damaged[offset] ^= 1
        path.write_bytes(damaged)
        refuse(folder)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04" + bytes(60), b"not an array"])
def test_an_unreadable_array_is_found(folder: Path, name: str, content: bytes) -> None:
    (folder / f"{name}.npy").write_bytes(content)
    refuse(folder)


def test_a_truncated_array_is_found(folder: Path) -> None:
    path = folder / "centroids.npy"
    path.write_bytes(path.read_bytes()[:-4])
    refuse(folder)


def test_pickles_are_not_opened(folder: Path) -> None:
    np.save(folder / "mean.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refuse(folder)


def test_an_archive_of_arrays_is_no_array(folder: Path) -> None:
    with (folder / "mean.npy").open("wb") as stream:
        np.savez(stream, mean=np.zeros(16))
    refuse(folder)


@pytest.mark.parametrize("name", [HEADER, *(f"{name}.npy" for name in ARRAYS)])
def test_a_missing_file_is_found(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refuse(folder)


@pytest.mark.parametrize(
    "field", ["version", "n_levels", "codebook_size", "axes", "dim", "encoder", "template"]
)
@pytest.mark.parametrize("value", [None, 99, "x", [], {}, {"name": 1}, "\ud800"])
def test_any_changed_field_of_the_header_is_found(folder: Path, field: str, value: Any) -> None:
    header = json.loads((folder / HEADER).read_text())
    (folder / HEADER).write_text(json.dumps({**header, field: value}))
    refuse(folder)
    header.pop(field)
    (folder / HEADER).write_text(json.dumps(header))
    refuse(folder)


@pytest.mark.parametrize("content", ["", "[]", "null", "{", '"text"', "\0"])
def test_a_header_that_is_no_object_is_found(folder: Path, content: str) -> None:
    (folder / HEADER).write_text(content)
    refuse(folder)


def test_arrays_of_another_codebook_are_found(folder: Path, tmp_path: Path) -> None:
    fit(tiny_vectors(seed=5), SPEC, "{title}", CodebookConfig(n_levels=2, codebook_size=4)).save(
        tmp_path / "other"
    )
    (tmp_path / "other" / "centroids.npy").replace(folder / "centroids.npy")
    refuse(folder)


@pytest.mark.parametrize("shape", [(3, 15), (3, 17), (16,), (1, 3, 16)])
def test_vectors_of_another_encoder_are_refused(folder: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(CodebookError, match=r"needs \[N, 16\]"):
        Codebook.load(folder).encode(np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(folder: Path, value: float) -> None:
    vectors = tiny_vectors()
    vectors[7, 3] = value
    with pytest.raises(CodebookError, match="NaN or infinity"):
        Codebook.load(folder).encode(vectors)
    with pytest.raises(CodebookError, match="NaN or infinity"):
        fit(vectors, SPEC, "", CodebookConfig(codebook_size=4))


def test_too_few_distinct_texts_are_counted() -> None:
    vectors = np.repeat(tiny_vectors(items=7), 10, axis=0)
    message = r"fewer than 8 codes per level; set codebook_size \(--codebook-size\) to 7 or lower, or to 0"
    with pytest.raises(CodebookError, match=f"7 distinct texts, {message}"):
        fit(vectors, SPEC, "", CodebookConfig(codebook_size=8))
    with pytest.raises(CodebookError, match=r"set codebook_size \(--codebook-size\) to 7 or lower\.$"):
        fit(vectors, SPEC, "", CodebookConfig(codebook_size=0))  # 70 items: 16 codes


@pytest.mark.parametrize(("levels", "codes"), [(0, 4), (-1, 4), (3, 1), (3, -4)])
def test_sizes_that_make_no_sense_are_refused(levels: int, codes: int) -> None:
    with pytest.raises(CodebookError, match="at least 1 level and 2 codes on 1 axis"):
        fit(tiny_vectors(), SPEC, "", CodebookConfig(n_levels=levels, codebook_size=codes))


@pytest.mark.parametrize("shape", [(0, 16), (16,)])
def test_no_vectors_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(CodebookError):
        fit(np.zeros(shape, dtype=np.float32), SPEC, "", CodebookConfig())
