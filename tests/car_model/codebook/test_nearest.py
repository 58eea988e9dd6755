"""The float32 screen: what it is sure of is what float64 answers, and it is sure of nearly everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from car_model.codebook.codebook import Codebook
from car_model.codebook.nearest import Screen
from tests.car_model.builders import SPEC, lattice_codebook


def random_codebook(seed: int, dim: int, n_axes: int, scale: float = 1.0) -> Codebook:
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(dim, dim)))[0][:n_axes]
    centroids = scale * rng.normal(size=(3, 8, n_axes)) / np.array([1, 3, 9])[:, None, None]
    mean = scale * rng.normal(size=dim)
    return Codebook(*(part.astype(np.float32) for part in (centroids, axes, mean)), SPEC, "")


def midpoints(book: Codebook, seed: int, off: float) -> np.ndarray:
    """Vectors that lie between two codes of level 1, all but the share `off`."""
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, book.codebook_size, size=(200, 2))
    share = 0.5 + off * rng.choice([-1, 1], size=(200, 1))
    between = share * book.centroids[0][pairs[:, 0]] + (1 - share) * book.centroids[0][pairs[:, 1]]
    return (between @ book.axes + book.mean).astype(np.float32)


@given(
    st.integers(0, 10**6),
    st.sampled_from([(64, 4), (64, 64), (20, 20), (300, 12)]),  # projected first, or folded
    st.sampled_from([0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-2]),
    st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_codes_are_exact_however_close_the_rivals(
    seed: int, size: tuple[int, int], off: float, scale: float
) -> None:
    book = random_codebook(seed, *size, scale=scale)
    vectors = midpoints(book, seed, off)
    assert np.array_equal(book.encode(vectors), book.residuals(vectors)[0])
    assert np.array_equal(book.encode(vectors[::-1])[::-1], book.encode(vectors))


@pytest.mark.parametrize("size", [(64, 4), (64, 64), (768, 32)])
def test_hardly_any_row_is_in_doubt(size: tuple[int, int]) -> None:
    book = random_codebook(0, *size)
    vectors = np.random.default_rng(1).normal(size=(2000, size[0])).astype(np.float32)
    sids, certain = Screen(book.centroids, book.axes, book.mean).encode(vectors)
    assert certain.mean() > 0.95
    assert np.array_equal(sids[certain], book.residuals(vectors)[0][certain])


def test_ties_are_in_doubt() -> None:
    book = lattice_codebook()
    vectors = np.array([[0, 0], [1, 0], [0.4, 0.1]], dtype=np.float32)
    _, certain = Screen(book.centroids, book.axes, book.mean).encode(vectors)
    assert not certain.any()  # codes 0 and 3 of level 2 are the same point


@pytest.mark.parametrize("size", [1e25, 1e39])
def test_numbers_too_large_for_float32_are_left_to_float64(size: float) -> None:
    book = random_codebook(3, 20, 20)
    vectors = size * np.random.default_rng(0).normal(size=(5, 20))
    assert not Screen(book.centroids, book.axes, book.mean).encode(vectors)[1].any()
    assert np.array_equal(book.encode(vectors), book.residuals(vectors)[0])
