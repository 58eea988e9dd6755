"""Codebook health by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from car_model.codebook.residual_kmeans import CodebookConfig, fit
from car_model.evidence.codebook import CodebookHealth, Cooccurrence
from car_model.metrics.codebook import codebook_health, cooccurrence, unexplained
from tests.car_model.builders import SPEC
from tests.fixtures import tiny_vectors

NO_PAIRS = Cooccurrence(agreement=(), lift=())
SIDS = np.array([[0, 1], [0, 1], [2, 1], [2, 3]])


@pytest.fixture
def health() -> CodebookHealth:
    return codebook_health(SIDS, np.array([[2.0, 1.0]] * 4), np.full(4, 4.0), 4, NO_PAIRS)


def test_usage_and_dead_codes(health: CodebookHealth) -> None:
    assert health.usage == (0.5, 0.5)
    assert health.dead_codes == (2, 2)
    assert health.usage_min == 0.5
    assert health.usage_counts == ((2, 2, 0, 0), (3, 1, 0, 0))
    assert (health.items, health.n_levels, health.codebook_size) == (4, 2, 4)


def test_perplexity_is_codes_in_effect(health: CodebookHealth) -> None:
    second = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert health.perplexity == pytest.approx([2.0, second], abs=1e-4)
    assert health.perplexity_min_share == pytest.approx(second / 4, abs=1e-6)


def test_residual_is_the_share_of_variance_left(health: CodebookHealth) -> None:
    assert health.residual == (0.5, 0.25)
    assert health.unexplained == 0.25


def test_items_that_a_codebook_misses_are_explained_worse_than_by_the_mean() -> None:
    assert unexplained(np.array([[9.0, 3.0], [9.0, 5.0]]), np.array([1.0, 3.0])) == 2.0


def test_collisions_count_items_that_share_a_whole_sid(health: CodebookHealth) -> None:
    assert health.collision_rate == 0.5
    alone = codebook_health(np.arange(4)[:, None], np.ones((4, 1)), np.ones(4), 4, NO_PAIRS)
    assert (alone.collision_rate, alone.perplexity, alone.usage_min) == (0.0, (4.0,), 1.0)


def test_health_of_a_fitted_codebook_is_json_and_residuals_fall() -> None:
    vectors = tiny_vectors()
    book = fit(vectors, SPEC, "", CodebookConfig(n_levels=4, codebook_size=6))
    sids, residual = book.residuals(vectors)
    health = codebook_health(sids, residual, book.spread(vectors), 6, NO_PAIRS)
    assert CodebookHealth.model_validate_json(json.dumps(health.to_json(), allow_nan=False)) == health
    assert list(health.residual) == sorted(health.residual, reverse=True)
    assert 0 < health.residual[-1] < health.residual[0] < 1


def test_cooccurrence_is_the_share_of_neighbours_with_equal_prefixes_over_chance() -> None:
    table = np.array([[0, 0], [1, 1], [1, 2], [2, 1], [2, 1]])  # row 0 pads
    train = [np.array([1, 2, 3, 4]), np.array([2, 2, 1]), np.array([3])]
    # pairs of different items: (1, 2) (2, 3) (3, 4) (2, 1); level 1: three of four agree, level 2: one
    agreement = cooccurrence(train, table)
    assert agreement.agreement == (0.75, 0.25)
    first, second = [1, 1, 2, 1], [1, 2, 2, 1]  # codes of level 1 of the pairs' ends
    chance = sum((first.count(code) / 4) * (second.count(code) / 4) for code in (1, 2))
    assert agreement.lift[0] == pytest.approx(0.75 / chance, abs=1e-4)


def test_without_neighbours_codes_say_nothing() -> None:
    assert cooccurrence([np.array([1])], np.zeros((2, 3), dtype=int)) == Cooccurrence(
        agreement=(0.0, 0.0, 0.0), lift=(1.0, 1.0, 1.0)
    )
