"""Find the nearest centroid: the exact answer, and a fast screen that knows when it may be wrong.

The screen computes in float32 and bounds its own rounding. If a row's best code leads by more than the bound,
float64 would choose the same code; only the other rows are computed exactly, in float64.

Shape letters: N rows, L levels, K codebook size.
"""

from __future__ import annotations

import numpy as np

ROUNDING = float(np.finfo(np.float32).eps)  # twice the largest relative error of one float32 operation
TIE = 1e-9  # half squared distances closer than this are left to the exact answer's tie rule


def nearest(rows: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Index of the nearest centroid [N] by squared distance, ties to the lower index."""
    distance = (centroids**2).sum(axis=1) - 2.0 * rows @ centroids.T  # a row's own length changes no order
    return distance.round(10).argmin(axis=1)


class Screen:
    """Encodes all levels from one float32 product of the vectors with every centroid.

    A residual's product with a centroid is the vector's own product less those of the centroids chosen so
    far, which are computed once. So no residual is ever formed.

    Args:
        centroids: [L, K, axes]; axes: [axes, dim]; mean: [dim], as in a Codebook.
    """

    def __init__(self, centroids: np.ndarray, axes: np.ndarray, mean: np.ndarray) -> None:
        self.n_levels, self.codebook_size, n_axes = centroids.shape
        self.mean = mean.astype(np.float32)
        flat, rotation = centroids.reshape(-1, n_axes).astype(np.float32), axes.astype(np.float32)
        self.between = (flat @ flat.T).reshape(self.n_levels, self.codebook_size, -1)
        self.half = ((flat**2).sum(axis=1) / 2).reshape(self.n_levels, -1)
        unprojected = flat @ rotation  # the centroids in the vectors' own space: no projection on many axes
        project = n_axes * (len(mean) + len(flat)) < len(flat) * len(mean)  # which of the two is cheaper
        self.axes = rotation.T.astype(np.float64) if project else None  # exact: a long sum, and few of them
        self.columns = flat.T if project else unprojected.T
        terms = n_axes + (0 if project else len(mean)) + 8 * self.n_levels
        lengths = np.sqrt(np.maximum((flat**2).sum(axis=1), (unprojected**2).sum(axis=1)))
        self.longest = lengths.reshape(self.n_levels, -1).max(axis=1)
        self.bound = ROUNDING * terms * self.longest  # [L] for a vector and centroids of length 1

    def encode(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """SIDs int64 [N, L] of vectors [N, dim], and bool [N]: whether they are certain to be exact."""
        with np.errstate(over="ignore", invalid="ignore"):  # rows that overflow are not certain
            rows = vectors.astype(np.float32) - self.mean
            if self.axes is not None:
                rows = ((vectors.astype(np.float64) - self.mean) @ self.axes).astype(np.float32)
            products = rows @ self.columns  # [N, L * K]
            length = np.sqrt(np.einsum("nd,nd->n", rows, rows))
            each = np.arange(len(vectors))
            sids = np.empty((len(vectors), self.n_levels), dtype=np.int64)
            certain = np.ones(len(vectors), dtype=bool)
            for level in range(self.n_levels):
                gain = products[:, : self.codebook_size] - self.half[level]  # half of the gain
                codes = sids[:, level] = gain.argmax(axis=1)
                best = gain[each, codes]
                gain[each, codes] = -np.inf
                length = length + self.longest[level]
                certain &= best - gain.max(axis=1) > length * self.bound[level] + TIE  # false with NaN
                used = self.between[level][codes, (level + 1) * self.codebook_size :]
                products = products[:, self.codebook_size :] - used
        return sids, certain
