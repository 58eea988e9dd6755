"""Renumbering: of all one-to-one names for the codes, those that most rows have already."""

from __future__ import annotations

import numpy as np

from benchmarks.churn import best_match

CODES = 16


def test_shuffled_codes_find_their_numbers_again() -> None:
    rng = np.random.default_rng(3)
    before = rng.integers(CODES, size=500)
    order = rng.permutation(CODES)
    assert order[best_match(before, np.argsort(order)[before], CODES)].tolist() == list(range(CODES))


def test_codes_that_no_item_has_keep_their_numbers() -> None:
    before = np.array([0, 0, 1])
    assert best_match(before, before, 6).tolist() == list(range(6))
