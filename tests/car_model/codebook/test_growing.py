"""Growing a level through more and more axes ends where k-means would: another round gains nothing."""

from __future__ import annotations

import numpy as np
import pytest

from car_model.codebook import residual_kmeans as kmeans
from car_model.codebook.residual_kmeans import _assign, _grow_level, _means


def clouds(rows: int, axes: int, seed: int) -> np.ndarray:
    """Rows around many points, float32, less spread from axis to axis."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(60, axes))
    spread = np.sqrt(1 + np.arange(axes))
    return ((centres[rng.integers(60, size=rows)] + 0.3 * rng.normal(size=(rows, axes))) / spread).astype(
        "f4"
    )


def error(rows: np.ndarray, centroids: np.ndarray, codes: np.ndarray) -> float:
    return float(np.square(rows - centroids[codes]).sum())


@pytest.mark.parametrize(("axes", "codes"), [(3, 8), (8, 16), (17, 16), (33, 32)])
def test_another_round_gains_next_to_nothing(axes: int, codes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "ROUNDS", 100)
    rows = clouds(1500, axes, seed=axes)
    centroids, assigned = _grow_level(rows, codes, seed=0)
    assert np.array_equal(assigned, _assign(rows, centroids.astype("f4"))[0])
    settled = error(rows, centroids, assigned)
    means = _means(rows, assigned, codes)
    again = error(rows, means, _assign(rows, means)[0])
    assert again <= settled * (1 + 1e-6)
    assert settled - again < 2e-3 * settled


def test_the_gain_of_an_assignment_is_what_it_takes_off_the_squared_length() -> None:
    rows = clouds(2500, 5, seed=1)  # more than fit into one part
    centroids = rows[:7]
    codes, gain = _assign(rows, centroids)
    distances = np.square(rows[:, None].astype(float) - centroids).sum(axis=2)
    assert np.array_equal(codes, distances.argmin(axis=1))
    assert gain == pytest.approx(
        float(np.square(rows.astype(float)).sum() - distances.min(axis=1).sum()), rel=1e-5
    )


def test_means_are_those_of_each_codes_rows() -> None:
    rows, codes = clouds(300, 4, seed=2), np.arange(300) % 11
    expected = [rows[codes == code].mean(axis=0) for code in range(11)]
    np.testing.assert_allclose(_means(rows, codes, 11), expected, atol=1e-6)
