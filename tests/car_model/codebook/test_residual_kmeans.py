"""Many axes, many rows: fitting by growing and on a sample, encoding within a block's memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from car_model.codebook import residual_kmeans as quantise
from car_model.codebook.codebook import BLOCK_ROWS, Codebook, CodebookError
from car_model.codebook.residual_kmeans import SAMPLE, CodebookConfig, fit
from tests.car_model.builders import SPEC

WIDE = CodebookConfig(n_levels=3, codebook_size=16, axes=64)


def clustered(items: int, dim: int = 64, seed: int = 0) -> np.ndarray:
    """Vectors [items, dim] around 40 points, less and less spread from axis to axis."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, dim))
    rows = centres[rng.integers(0, 40, items)] + 0.5 * rng.normal(size=(items, dim))
    return (rows / np.sqrt(1 + np.arange(dim))).astype(np.float32)


def unexplained(book: Codebook, vectors: np.ndarray) -> float:
    return float(book.residuals(vectors)[1][:, -1].sum() / book.spread(vectors).sum())


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "THOROUGH", 0)


@pytest.fixture
def book() -> Codebook:
    return fit(clustered(1000), SPEC, "", WIDE)


@pytest.mark.parametrize("axes", [1, 20, 64])
def test_growing_is_as_good_as_being_thorough(axes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, config = clustered(1000), CodebookConfig(n_levels=3, codebook_size=16, axes=axes)
    grown = fit(vectors, SPEC, "", config)
    monkeypatch.setattr(quantise, "THOROUGH", 2**28)
    thorough = fit(vectors, SPEC, "", config)
    assert grown.version != thorough.version
    assert unexplained(grown, vectors) < 1.1 * unexplained(thorough, vectors)
    assert all(len(np.unique(level)) == 16 for level in grown.encode(vectors).T)


def test_growing_twice_gives_one_version_on_any_number_of_threads(book: Codebook) -> None:
    with threadpool_limits(limits=2):
        assert fit(clustered(1000), SPEC, "", WIDE).version == book.version


def test_a_sample_is_enough_to_fit_on(book: Codebook) -> None:
    vectors = clustered(4 * SAMPLE * 16)
    sampled = fit(vectors, SPEC, "", WIDE)
    assert unexplained(sampled, vectors) < unexplained(book, vectors)
    assert fit(vectors, SPEC, "", WIDE).version == sampled.version
    assert (
        fit(vectors, SPEC, "", CodebookConfig(n_levels=3, codebook_size=16, axes=64, seed=1)).version
        != sampled.version
    )


def test_spare_codes_stay_unused_where_grown_residuals_run_out() -> None:
    vectors = np.repeat(clustered(20), 5, axis=0)
    book = fit(vectors, SPEC, "", CodebookConfig(n_levels=3, codebook_size=20, axes=64))
    sids = book.encode(vectors)
    assert len(np.unique(sids[:, 0])) == 20
    assert unexplained(book, vectors) < 1e-7  # float32
    assert all(len(np.unique(sids[first_row : first_row + 5], axis=0)) == 1 for first_row in range(0, 100, 5))


def test_empty_clusters_get_the_farthest_rows() -> None:
    rows = np.array([[0.0], [1.0], [9.0], [10.0]], dtype=np.float32)
    means = quantise._means(rows, np.array([0, 0, 0, 0]), 3)
    assert means.ravel().tolist() == [5.0, 0.0, 10.0]


def test_batches_are_encoded_as_they_come(book: Codebook) -> None:
    vectors, starts = clustered(700), []

    def batches() -> Iterator[np.ndarray]:
        for first_row in range(0, 700, 100):
            starts.append(first_row)
            yield vectors[first_row : first_row + 100]

    encoded = map(book.encode, batches())
    assert starts == []
    first = next(encoded)
    assert starts == [0]
    assert np.array_equal(np.concatenate([first, *encoded]), book.encode(vectors))


def test_a_bad_batch_is_refused_when_it_comes(book: Codebook) -> None:
    good, bad = clustered(10), np.full((10, 64), np.nan, dtype=np.float32)
    encoded = map(book.encode, [good, bad])
    next(encoded)
    with pytest.raises(CodebookError, match="NaN or infinity"):
        next(encoded)


@pytest.mark.parametrize("ask", [Codebook.encode, Codebook.residuals, Codebook.spread])
def test_memory_does_not_grow_with_the_rows(book: Codebook, ask: object) -> None:
    few, many = (np.repeat(clustered(BLOCK_ROWS), times, axis=0) for times in (2, 8))
    extra = peak(book, ask, many) - peak(book, ask, few)
    assert extra < 0.5 * (many.nbytes - few.nbytes)  # the answers themselves, and their parts


def peak(book: Codebook, ask: object, vectors: np.ndarray) -> int:
    """Most bytes held at once beside the vectors."""
    assert callable(ask)
    tracemalloc.start()
    try:
        ask(book, vectors)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
