"""Which centre is nearest: the exact answer, and a fast screen that knows where it may be wrong.

The screen computes in float32 and bounds its own rounding: a row whose best code leads by more than the
bound has the same codes in float64, and only the others are computed exactly. So encoding has the speed of
float32 and the answers of float64, whatever the batch.
"""

from __future__ import annotations

import numpy as np

ROUNDING = float(np.finfo(np.float32).eps)  # twice the largest relative error of one float32 operation
TIE = 1e-9  # half squared distances closer than this are left to the exact answer's tie rule


def nearest(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Index of the nearest centre [N] by squared distance, ties to the lower index."""
    distance = (centres**2).sum(axis=1) - 2.0 * rows @ centres.T  # the row's own length changes no order
    return distance.round(10).argmin(axis=1)


class Screen:
    """Codes of all levels from one float32 product of the vectors with every centroid.

    The residual's product with a centroid is the vector's own less those of the centroids chosen so far,
    which are known beforehand, so no residual is ever computed.
    """

    def __init__(self, centroids: np.ndarray, axes: np.ndarray, mean: np.ndarray) -> None:
        """Take a codebook's arrays: centroids [levels, codes, axes], axes [axes, dim], mean [dim]."""
        self.levels, self.codes, kept = centroids.shape
        self.mean = mean.astype(np.float32)
        flat, turn = centroids.reshape(-1, kept).astype(np.float32), axes.astype(np.float32)
        self.between = (flat @ flat.T).reshape(self.levels, self.codes, -1)
        self.half = ((flat**2).sum(axis=1) / 2).reshape(self.levels, -1)
        folded = flat @ turn  # the centroids among the vectors themselves: saves projecting on many axes
        few = kept * (len(mean) + len(flat)) < len(flat) * len(mean)
        self.axes = turn.T.astype(np.float64) if few else None  # exact: a long sum, and few of them
        self.columns = flat.T if few else folded.T
        terms = kept + (0 if few else len(mean)) + 8 * self.levels
        lengths = np.sqrt(np.maximum((flat**2).sum(axis=1), (folded**2).sum(axis=1)))
        self.longest = lengths.reshape(self.levels, -1).max(axis=1)
        self.bound = ROUNDING * terms * self.longest  # [levels] of a vector and its centroids of length 1

    def codes_of(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes int64 [N, levels] of vectors [N, dim], and bool [N]: are they sure to be the exact ones?"""
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is not sure
            return self._codes_of(vectors)

    def _codes_of(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = vectors.astype(np.float32) - self.mean
        if self.axes is not None:
            rows = ((vectors.astype(np.float64) - self.mean) @ self.axes).astype(np.float32)
        products = rows @ self.columns  # [N, levels * codes]
        length = np.sqrt(np.einsum("nd,nd->n", rows, rows))
        each = np.arange(len(vectors))
        sids, sure = np.empty((len(vectors), self.levels), dtype=np.int64), np.ones(len(vectors), dtype=bool)
        for level in range(self.levels):
            score = products[:, : self.codes] - self.half[level]  # half of what the centroid brings nearer
            chosen = sids[:, level] = score.argmax(axis=1)
            best = score[each, chosen]
            score[each, chosen] = -np.inf
            length = length + self.longest[level]
            sure &= best - score.max(axis=1) > length * self.bound[level] + TIE  # false with NaN
            products = products[:, self.codes :] - self.between[level][chosen, (level + 1) * self.codes :]
        return sids, sure
