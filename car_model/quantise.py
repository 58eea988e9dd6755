"""Fitting a codebook: residual k-means, level by level, on vectors projected on their main axes.

scikit-learn's KMeans is used: greedy k-means++ and Lloyd's algorithm to convergence, on one machine in
seconds for the catalogues here. faiss is faster on millions of items but its k-means starts from random
points and stops after a fixed number of rounds, which costs quality where time is no concern.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from car_model.codebook import Codebook, CodebookError, check_finite, nearest
from car_model.encoder import EncoderSpec

RESTARTS = 4  # k-means runs a level; the best inertia stays


def default_codes(items: int) -> int:
    """Codes a level for a catalogue: the power of two nearest to 2 * sqrt(items), from 8 to 1024.

    Four levels of 256 for the papers' 12,000 items; fewer where a level would otherwise have codes
    of only a handful of items, from which neither the think loss nor a label learns anything.
    """
    wanted = np.log2(2 * np.sqrt(max(items, 1)))
    return int(2 ** np.clip(round(float(wanted)), 3, 10))


@dataclass(frozen=True)
class CodebookConfig:
    """A codebook to fit.

    Attributes:
        codes: codes a level; 0 follows the catalogue's size (`default_codes`).
        axes: main axes kept of the vectors; more than there are means all.
    """

    levels: int = 4
    codes: int = 0
    seed: int = 0
    axes: int = 32


def fit(vectors: np.ndarray, encoder: EncoderSpec, template: str, config: CodebookConfig) -> Codebook:
    """Fit a codebook level by level on residuals.

    Args:
        vectors: [N, dim] float32.
        encoder, template: what made them; part of the codebook's version.

    Raises:
        CodebookError: fewer distinct vectors than codes, NaN, or sizes that make no sense.
    """
    check_finite(vectors)
    levels, codes = config.levels, config.codes or default_codes(len(vectors))
    distinct = len(np.unique(vectors, axis=0))
    if levels < 1 or codes < 2 or config.axes < 1:
        raise CodebookError(
            f"levels={levels}, codes={codes}, axes={config.axes}: "
            "at least 1 level and 2 codes on 1 axis are needed."
        )
    if distinct < codes:
        raise CodebookError(
            f"the catalogue has {distinct} distinct texts, fewer than {codes} codes a level; "
            "set codes lower, or 0 to follow the catalogue's size."
        )
    with threadpool_limits(limits=1):  # sums over threads come in any order: one thread, one result
        mean, axes = _main_axes(vectors, config.axes)
        rest = (vectors.astype(np.float64) - mean) @ axes.astype(np.float64).T
        centroids = []
        for level in range(levels):
            centres = _fit_level(rest, codes, config.seed + level)
            rest = rest - centres[nearest(rest, centres)]
            centroids.append(centres.astype(np.float32))
    return Codebook(np.stack(centroids), axes, mean, encoder, template)


def _main_axes(vectors: np.ndarray, axes: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean [dim] and the main axes [at most `axes`, dim], float32."""
    fitted = PCA(min(axes, *vectors.shape), svd_solver="covariance_eigh").fit(vectors.astype(np.float64))
    return fitted.mean_.astype(np.float32), fitted.components_.astype(np.float32)


def _fit_level(rest: np.ndarray, codes: int, seed: int) -> np.ndarray:
    distinct = len(np.unique(rest.round(10), axis=0))
    fitted = KMeans(min(codes, distinct), n_init=RESTARTS, random_state=seed).fit(rest)
    centres = fitted.cluster_centers_.astype(np.float32).astype(np.float64)
    if len(centres) < codes:  # fewer distinct residuals than codes: the last levels' spare codes stay unused
        centres = np.concatenate([centres, np.repeat(centres[:1], codes - len(centres), axis=0)])
    return centres
