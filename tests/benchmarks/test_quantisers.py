"""LSH: a bit a hyperplane, near vectors on the same side."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quantisers import lsh_sids
from tests.fixtures import tiny_vectors


def test_codes_are_the_sides_of_the_planes() -> None:
    vectors = tiny_vectors()
    planes = np.random.default_rng(3).normal(size=(vectors.shape[1], 2 * 3))
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    slow = np.zeros((len(vectors), 2), dtype=int)
    for row, vector in enumerate(centred):
        for at in range(6):
            slow[row, at // 3] += 2 ** (at % 3) * int(sum(vector * planes[:, at]) > 0)
    assert lsh_sids(vectors, 2, 8, seed=3).tolist() == slow.tolist()


def test_near_vectors_share_codes_more_often_than_any_pair() -> None:
    vectors = tiny_vectors()
    near = vectors + 0.01 * np.random.default_rng(0).normal(size=vectors.shape).astype(np.float32)
    both = lsh_sids(np.concatenate([vectors, near]), 4, 16)
    mine, theirs = both[: len(vectors)], both[len(vectors) :]
    assert (mine == theirs).mean() > 2 * (mine == np.roll(mine, 1, axis=0)).mean()


def test_codes_that_are_no_power_of_two_are_refused() -> None:
    with pytest.raises(ValueError, match="power of two"):
        lsh_sids(tiny_vectors(), 2, 12)
