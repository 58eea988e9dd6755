"""Other ways to make SIDs, for the ablation only: what residual k-means is measured against."""

from __future__ import annotations

import numpy as np


def lsh_sids(vectors: np.ndarray, levels: int, codes: int, seed: int = 0) -> np.ndarray:
    """SIDs int32 [N, levels] by random hyperplanes through the mean: log2(codes) bits a level.

    Args:
        vectors: [N, dim].

    Raises:
        ValueError: `codes` is no power of two.
    """
    bits = codes.bit_length() - 1
    if codes != 1 << bits:
        raise ValueError(f"LSH needs a power of two of codes a level, not {codes}.")
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    planes = np.random.default_rng(seed).normal(size=(vectors.shape[1], levels * bits))
    sides = (centred @ planes > 0).reshape(len(vectors), levels, bits)
    return (sides @ (1 << np.arange(bits))).astype(np.int32)
