"""The codebook: one text, one SID, whatever the batch, the order, the thread count or the machine's mood."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from car_model.codebook.codebook import BLOCK_ROWS, Codebook
from car_model.codebook.residual_kmeans import CodebookConfig, default_codebook_size, fit
from tests.car_model.builders import SPEC, lattice_codebook
from tests.fixtures import tiny_vectors

CONFIG = CodebookConfig(n_levels=3, codebook_size=4)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return tiny_vectors()


@pytest.fixture(scope="module")
def book(vectors: np.ndarray) -> Codebook:
    return fit(vectors, SPEC, "{title}", CONFIG)


def test_save_and_load_give_the_same_version_and_sids(
    book: Codebook, vectors: np.ndarray, tmp_path: Path
) -> None:
    book.save(tmp_path / "book")
    back = Codebook.load(tmp_path / "book")
    assert back.version == book.version
    assert (back.encoder, back.template, back.n_levels, back.codebook_size) == (SPEC, "{title}", 3, 4)
    assert np.array_equal(back.encode(vectors), book.encode(vectors))
    assert np.array_equal(back.residuals(vectors)[1], book.residuals(vectors)[1])


@given(st.permutations(range(48)), st.lists(st.integers(0, 48), max_size=6))
def test_sids_do_not_depend_on_order_or_batches(
    book: Codebook, vectors: np.ndarray, order: list[int], cuts: list[int]
) -> None:
    sids_together = book.encode(vectors)
    parts = np.split(vectors[order], sorted(cuts))
    assert np.array_equal(np.concatenate([book.encode(part) for part in parts]), sids_together[order])


@given(st.permutations(range(25)), st.lists(st.integers(0, 25), max_size=5))
def test_ties_go_to_the_lower_code_in_any_batch(order: list[int], cuts: list[int]) -> None:
    book = lattice_codebook()
    plane = np.array([[x, y] for x in range(-2, 3) for y in range(-2, 3)], dtype=np.float32)
    naive = np.array([slow_sid(book, point) for point in plane])
    parts = np.split(plane[order], sorted(cuts))
    assert np.array_equal(np.concatenate([book.encode(part) for part in parts]), naive[order])
    assert 3 not in naive  # the duplicates of codes 1 and 0


def slow_sid(book: Codebook, point: np.ndarray) -> list[int]:
    """The definition: nearest centroid of each level's residual, the first where several are."""
    rest, sid = (point.astype(np.float64) - book.mean) @ book.axes.T.astype(np.float64), []
    for level in book.centroids.astype(np.float64):
        distances = [float(((rest - centroid) ** 2).sum()) for centroid in level]
        sid.append(distances.index(min(distances)))
        rest = rest - level[sid[-1]]
    return sid


def test_encoding_is_the_definition(book: Codebook, vectors: np.ndarray) -> None:
    assert book.encode(vectors).tolist() == [slow_sid(book, vector) for vector in vectors]


@pytest.mark.parametrize("dim", [16, 100])  # beyond 32 axes the projection drops a part
def test_the_error_is_that_of_the_whole_vector(dim: int) -> None:
    vectors = tiny_vectors(dim=dim)
    book = fit(vectors, SPEC, "", CONFIG)
    sids, errors = book.residuals(vectors)
    picked = np.stack([book.centroids[level][sids[:, level]] for level in range(3)], axis=1).cumsum(axis=1)
    coded = book.axes[: book.centroids.shape[2]]
    rebuilt = picked.astype(np.float64) @ coded + book.mean
    assert errors == pytest.approx(((vectors[:, None] - rebuilt) ** 2).sum(axis=2), abs=1e-5)


def test_rows_beyond_one_block_are_encoded_like_the_first(book: Codebook) -> None:
    many = tiny_vectors(items=2 * BLOCK_ROWS + 5, seed=3)
    sids_together = book.encode(many)
    assert sids_together.shape == (len(many), 3)
    assert np.array_equal(book.encode(many[BLOCK_ROWS - 2 :]), sids_together[BLOCK_ROWS - 2 :])


def test_nothing_to_encode_is_an_empty_table(book: Codebook) -> None:
    sids, errors = book.residuals(np.zeros((0, 16), dtype=np.float32))
    assert (sids.shape, sids.dtype, errors.shape) == ((0, 3), np.int32, (0, 3))


def test_fitting_twice_gives_one_version(book: Codebook, vectors: np.ndarray) -> None:
    with threadpool_limits(limits=2):
        assert fit(vectors.copy(), SPEC, "{title}", CONFIG).version == book.version


def test_whatever_encoding_depends_on_changes_the_version(book: Codebook, vectors: np.ndarray) -> None:
    nudged = book.centroids.copy()
    nudged[-1, -1, -1] = np.nextafter(nudged[-1, -1, -1], 2, dtype=np.float32)
    others = [
        fit(vectors, SPEC, "{title}", replace(CONFIG, seed=7)),
        replace(book, template="{title}; {genre}"),
        replace(book, encoder=replace(SPEC, weights="1" * 64)),
        replace(book, encoder=replace(SPEC, normalisation="none")),
        replace(book, encoder=replace(SPEC, max_tokens=64)),
        replace(book, centroids=nudged),
        replace(book, mean=book.mean + np.float32(1e-6)),
        replace(book, axes=book.axes[::-1].copy()),
    ]
    versions = {book.version, *(n_more.version for n_more in others)}
    assert len(versions) == 1 + len(others)


@given(st.integers(0, 30), st.integers(2, 12))
def test_more_levels_never_leave_more(seed: int, codes: int) -> None:
    vectors = tiny_vectors(items=30, seed=seed)
    book = fit(vectors, SPEC, "", CodebookConfig(n_levels=4, codebook_size=codes, seed=seed))
    errors = book.residuals(vectors)[1].mean(axis=0)
    assert (np.diff(errors) <= 1e-9).all()
    assert errors[0] < book.spread(vectors).mean()


def test_spare_codes_stay_unused_where_residuals_run_out() -> None:
    vectors = np.repeat(tiny_vectors(items=5), 4, axis=0)  # 5 distinct texts, each four times
    book = fit(vectors, SPEC, "", CodebookConfig(n_levels=3, codebook_size=5))
    sids = book.encode(vectors)
    assert sorted(set(sids[:, 0].tolist())) == [0, 1, 2, 3, 4]
    assert not sids[:, 1:].any()  # level 1 explains all: the spare codes equal code 0, and ties go to it
    assert all(len(np.unique(sids[start : start + 4], axis=0)) == 1 for start in range(0, 20, 4))


def test_axes_are_orthonormal_and_at_most_the_data_has(book: Codebook) -> None:
    assert book.axes.shape == (16, 16)
    assert book.axes @ book.axes.T == pytest.approx(np.eye(16), abs=1e-5)
    wide = fit(tiny_vectors(items=40, dim=100), SPEC, "", replace(CONFIG, text_axes=36))
    assert wide.axes.shape == (36, 100)
    assert wide.centroids.shape[2] == 32


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_default_codes_are_a_bounded_power_of_two_and_grow(n_items: int, n_more: int) -> None:
    codes = default_codebook_size(n_items)
    assert codes in {8, 16, 32, 64, 128, 256, 512, 1024}
    assert n_items > n_more or codes <= default_codebook_size(n_more)


@pytest.mark.parametrize(("items", "codes"), [(0, 8), (1, 8), (1349, 64), (12_000, 256), (10**9, 1024)])
def test_default_codes_of_known_catalogues(items: int, codes: int) -> None:
    assert default_codebook_size(items) == codes


def test_zero_codes_follow_the_catalogue() -> None:
    assert fit(
        tiny_vectors(items=100), SPEC, "", CodebookConfig(n_levels=1)
    ).codebook_size == default_codebook_size(100)


def test_axes_that_only_rounding_could_point_are_left_out() -> None:
    """As many items as axes: their differences span one dimension less."""
    vectors = tiny_vectors(items=40, dim=100)
    noise = np.random.default_rng(0).normal(scale=1e-13, size=vectors.shape)
    books = [
        fit(rows, SPEC, "", replace(CONFIG, text_axes=64))
        for rows in (vectors, vectors.astype(np.float64) + noise)
    ]
    assert [len(book.axes) for book in books] == [39, 39]
