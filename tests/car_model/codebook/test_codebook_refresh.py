"""Refresh: a codebook fit anew that keeps the old one's meanings."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.churn import renumbered
from car_model.codebook.codebook import Codebook, CodebookError
from car_model.codebook.residual_kmeans import CodebookConfig, fit, refresh
from tests.car_model.builders import SPEC

CODES = 16


def vectors(items: int, seed: int, drift: float = 0.0) -> np.ndarray:
    """Vectors [items, 12] around forty topics; drift moves the topics."""
    dice = np.random.default_rng(0)
    topics = dice.normal(size=(40, 12)) + drift * dice.normal(size=(40, 12))
    rng = np.random.default_rng(seed)
    return (topics[rng.integers(40, size=items)] + 0.4 * rng.normal(size=(items, 12))).astype(np.float32)


OLD, NEW = vectors(1500, seed=1), vectors(400, seed=2, drift=0.4)
TODAY = np.concatenate([OLD, NEW])


@pytest.fixture(scope="module")
def parent() -> Codebook:
    return fit(OLD, SPEC, "{title}", CodebookConfig(n_levels=3, codebook_size=CODES))


def changed(first: Codebook, second: Codebook) -> float:
    return float((first.encode(OLD) != second.encode(OLD)).any(axis=1).mean())


def error(book: Codebook) -> float:
    return float(book.residuals(TODAY)[1][:, -1].mean())


def aligned(parent: Codebook, fresh: Codebook) -> Codebook:
    """A fresh fit under the numbers that suit it best."""
    return renumbered(fresh, parent.encode(OLD), fresh.encode(OLD))


def test_it_moves_fewer_sids_than_a_fresh_fit_at_an_error_as_low(parent: Codebook) -> None:
    fresh, refreshed = (
        fit(TODAY, SPEC, "{title}", CodebookConfig(n_levels=3, codebook_size=CODES)),
        refresh(parent, TODAY),
    )
    assert error(refreshed) < error(parent)
    assert error(refreshed) < 1.05 * error(fresh)
    assert changed(parent, refreshed) < changed(parent, aligned(parent, fresh)) / 3


def test_inertia_trades_error_for_meanings_that_stay(parent: Codebook) -> None:
    free, held, fast = (refresh(parent, TODAY, inertia=pull) for pull in (0.0, 1.0, 1e9))
    assert error(free) < error(held) < error(fast) * 1.001
    assert changed(parent, free) > changed(parent, held) > changed(parent, fast) == 0


def test_a_code_that_lost_its_items_is_given_to_those_far_from_their_own(parent: Codebook) -> None:
    away = parent.centroids.copy()
    away[0, 3] = 1e3
    lost = Codebook(away, parent.axes, parent.mean, parent.encoder, parent.template)
    assert (lost.encode(TODAY)[:, 0] == 3).sum() == 0
    refreshed_book = refresh(lost, TODAY)
    assert (refreshed_book.encode(TODAY)[:, 0] == 3).sum() > 0
    assert error(refreshed_book) < error(lost)


def test_on_the_items_it_was_fit_on_next_to_nothing_moves(parent: Codebook) -> None:
    assert changed(parent, refresh(parent, OLD)) < 0.05


def test_equal_inputs_give_equal_codebooks(parent: Codebook) -> None:
    assert refresh(parent, TODAY).version == refresh(parent, TODAY.copy()).version != parent.version


def test_axes_encoder_and_template_stay(parent: Codebook) -> None:
    refreshed = refresh(parent, TODAY)
    assert np.array_equal(refreshed.axes, parent.axes)
    assert np.array_equal(refreshed.mean, parent.mean)
    assert (refreshed.encoder, refreshed.template) == (parent.encoder, parent.template)


@pytest.mark.parametrize("inertia", [0.0, 1.0])
def test_no_other_numbers_would_keep_more_codes(parent: Codebook, inertia: float) -> None:
    refreshed = refresh(parent, TODAY, inertia=inertia)
    assert renumbered(refreshed, parent.encode(OLD), refreshed.encode(OLD)).version == refreshed.version


def test_vectors_of_another_encoder_are_refused(parent: Codebook) -> None:
    with pytest.raises(CodebookError, match="another encoder"):
        refresh(parent, TODAY[:, :5])


def test_too_few_distinct_items_are_refused(parent: Codebook) -> None:
    with pytest.raises(CodebookError, match="fewer than 16 codes"):
        refresh(parent, np.repeat(TODAY[:3], 30, axis=0))


def test_decoding_a_sid_gives_the_sum_of_its_centroids(parent: Codebook) -> None:
    sids = parent.encode(OLD[:5])
    for vector, codes in zip(parent.decode(sids), sids, strict=True):
        slow = parent.mean.astype(np.float64)
        for level, code in enumerate(codes):
            slow = slow + parent.centroids[level, code] @ parent.axes
        assert np.allclose(vector, slow, atol=1e-5)


def test_what_a_sid_says_is_encoded_to_a_vector_as_near(parent: Codebook) -> None:
    decoded = parent.decode(parent.encode(OLD))
    again = parent.decode(parent.encode(decoded))
    assert ((again - decoded) ** 2).sum() < 0.05 * ((OLD - decoded) ** 2).sum()
