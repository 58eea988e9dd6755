"""Codebooks that are compared are decoded as they were encoded, whatever axes they keep."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.codebook_speed import OURS, faiss_kmeans, ours, vectors_like_text


@pytest.mark.integration
def test_what_is_compared_explains_a_part_of_what_it_encodes() -> None:
    vectors = vectors_like_text(1_500)
    left = {}
    for name, (encode, decode) in {
        OURS: ours(vectors, seed=0, axes=10_000),
        "32 axes": ours(vectors, seed=0, axes=32),
        "faiss": faiss_kmeans(vectors, seed=0, starts=1),
    }.items():
        rest = vectors - decode(encode(vectors))
        left[name] = float(np.square(rest).sum() / np.square(vectors - vectors.mean(axis=0)).sum())
    assert left[OURS] < 1.02 * left["faiss"] < left["32 axes"] < 1, left
