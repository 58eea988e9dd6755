"""Coordinates on the axes stand for a vector: what the axes span comes back, the rest is dropped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from car_model.codebook.codebook import Codebook, CodebookError
from tests.car_model.builders import SPEC


def book(axes: int, dim: int, seed: int) -> Codebook:
    """A codebook on random orthonormal axes with a mean."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    centroids = rng.normal(size=(2, 4, axes)).astype(np.float32)
    mean = rng.normal(size=dim).astype(np.float32)
    return Codebook(centroids, rotation[:axes].astype(np.float32), mean, SPEC, "{title}")


@given(st.integers(1, 6), st.integers(0, 4), st.integers(0, 1000))
def test_what_the_axes_span_comes_back_and_the_rest_is_dropped(axes: int, more: int, seed: int) -> None:
    codebook, rng = book(axes, axes + more, seed), np.random.default_rng(seed + 1)
    vectors = rng.normal(size=(7, axes + more)).astype(np.float32)
    projector = codebook.axes.T.astype(np.float64) @ codebook.axes
    spanned = codebook.mean + (vectors - codebook.mean) @ projector
    rebuilt = codebook.rebuild(codebook.coordinates(vectors))
    assert rebuilt.dtype == np.float32
    np.testing.assert_allclose(rebuilt, spanned, atol=0.02)  # coordinates are rounded to float16
    again = codebook.rebuild(codebook.coordinates(rebuilt))
    np.testing.assert_allclose(again, rebuilt, atol=0.02)


def test_coordinates_are_held_in_half_precision_and_must_fit_in_it() -> None:
    codebook = book(2, 3, seed=0)
    coordinates = codebook.coordinates(np.ones((2, 3), dtype=np.float32))
    assert coordinates.dtype == np.float32
    assert np.array_equal(coordinates, coordinates.astype(np.float16))
    with np.errstate(over="ignore"), pytest.raises(CodebookError, match="NaN or infinity"):
        codebook.coordinates(np.full((2, 3), 1e6, dtype=np.float32))
    assert codebook.coordinates(np.zeros((0, 3), dtype=np.float32)).shape == (0, 2)
