"""LSH: a bit a hyperplane, near vectors on the same side. RQ-VAE: codes that say what a vector is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.models.quantisers import RQVAEConfig, lsh_sids, rqvae_sids
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


SMALL = RQVAEConfig(hidden=(32, 16), latent=8, warmup=10, epochs=40, batch_size=64, dead=0.1)


def explained(vectors: np.ndarray, sids: np.ndarray, codes: int) -> float:
    """Share of the variance that the best sum of one vector a code explains."""
    centred = vectors - vectors.mean(axis=0)
    read = np.eye(codes)[sids].reshape(len(vectors), -1)
    weights, *_ = np.linalg.lstsq(read, centred, rcond=None)
    return 1 - float(((centred - read @ weights) ** 2).sum() / (centred**2).sum())


def test_rqvae_codes_say_more_of_a_vector_than_hyperplanes() -> None:
    vectors = tiny_vectors()
    learned, drawn = rqvae_sids(vectors, 2, 8, config=SMALL), lsh_sids(vectors, 2, 8)
    assert learned.shape == drawn.shape
    assert learned.dtype == np.int32
    assert learned.min() >= 0
    assert learned.max() < 8
    assert explained(vectors, learned, 8) > explained(vectors, drawn, 8)


def test_rqvae_gives_the_same_codes_for_the_same_seed_and_leaves_others_dice_alone() -> None:
    vectors = tiny_vectors()
    torch.manual_seed(1)
    first = rqvae_sids(vectors, 2, 8, seed=5, config=SMALL)
    after = torch.rand(3)
    assert first.tolist() == rqvae_sids(vectors, 2, 8, seed=5, config=SMALL).tolist()
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(3))
