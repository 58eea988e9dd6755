"""The residual k-means codebook: item vectors in, semantic IDs (SIDs) out.

Vectors are centred and projected on their main axes (PCA); level 1 is fit on those, every further level
on what the levels before it left over (residual k-means, arXiv 2506.23643 section 3; RQ as in arXiv
2305.05065). The projection is why the deeper levels are any use: in all 384 dimensions of a sentence
encoder the residuals of a few thousand items are mostly noise, and k-means answers with one huge cluster
and many singletons (docs/decisions.md). SIDs are not unique by design: the UID tells items apart, so
nothing is ever renumbered. The version is the digest of everything encoding depends on: axes, centroids,
encoder identity, text template and normalisation.

scikit-learn's KMeans is used: greedy k-means++ and Lloyd's algorithm to convergence, on one machine in
seconds for the catalogues here. faiss is faster on millions of items but its k-means starts from random
points and stops after a fixed number of rounds, which costs quality where time is no concern.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from car_model.digests import json_digest
from car_model.encoder import EncoderSpec

BLOCK_ROWS = 4096
AXES = 32  # dimensions kept
RESTARTS = 4  # k-means runs a level; the best inertia stays
ARRAYS = ("centroids", "axes", "mean")
HEADER = "codebook.json"


class CodebookError(ValueError):
    """The codebook can't be fit, read or applied; the message says why."""


@dataclass(frozen=True)
class Codebook:
    """What turns a vector into a SID, and what made the vectors.

    Attributes:
        centroids: float32 [levels, codes, axes].
        axes: float32 [axes, dim], orthonormal rows; vectors are projected on them.
        mean: float32 [dim], taken off before.
    """

    centroids: np.ndarray
    axes: np.ndarray
    mean: np.ndarray
    encoder: EncoderSpec
    template: str

    @property
    def levels(self) -> int:
        """Number of codes in a SID."""
        return int(self.centroids.shape[0])

    @property
    def codes(self) -> int:
        """Codes a level."""
        return int(self.centroids.shape[1])

    @property
    def version(self) -> str:
        """Digest of centroids, axes, encoder identity (with its normalisation) and text template."""
        return json_digest(
            {
                "arrays": {name: _array_digest(getattr(self, name)) for name in ARRAYS},
                "encoder": asdict(self.encoder),
                "template": self.template,
            }
        )

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """SIDs int32 [N, levels] of vectors [N, dim]: the nearest centroid of each level's residual.

        Deterministic and independent of the order and number of rows: distances are float64, and those
        equal to ten decimals go to the lower code.
        """
        return self.residuals(vectors)[0]

    def residuals(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """SIDs int32 [N, levels] and the squared error after each level, float64 [N, levels].

        The error is that of the whole vector: what the projection drops counts.
        """
        if vectors.ndim != 2 or vectors.shape[1] != len(self.mean):
            raise CodebookError(
                f"vectors have shape {vectors.shape}, the codebook needs [N, {len(self.mean)}]; "
                "they come from another encoder."
            )
        _check_finite(vectors)
        parts = [self._block(vectors[at : at + BLOCK_ROWS]) for at in range(0, len(vectors), BLOCK_ROWS)]
        sids, left = zip(*parts, strict=True) if parts else ((np.zeros((0, self.levels)),),) * 2
        return np.concatenate(sids).astype(np.int32), np.concatenate(left)

    def _block(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rest = self._project(vectors)
        dropped = self.spread(vectors) - (rest**2).sum(axis=1)
        sids, left = [], []
        for centroids in self.centroids.astype(np.float64):
            nearest = _nearest(rest, centroids)
            rest = rest - centroids[nearest]
            sids.append(nearest)
            left.append(dropped + (rest**2).sum(axis=1))
        return np.stack(sids, axis=1), np.stack(left, axis=1)

    def _project(self, vectors: np.ndarray) -> np.ndarray:
        return (vectors.astype(np.float64) - self.mean) @ self.axes.astype(np.float64).T

    def spread(self, vectors: np.ndarray) -> np.ndarray:
        """Squared distance of each vector from the mean, float64 [N]; what a perfect codebook explains."""
        return ((vectors.astype(np.float64) - self.mean) ** 2).sum(axis=1)

    def save(self, folder: Path) -> None:
        """Write centroids.npy, axes.npy, mean.npy and codebook.json (the header, last)."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name).astype("<f4"), allow_pickle=False)
        (folder / HEADER).write_text(json.dumps(self.header(), indent=2, sort_keys=True) + "\n")

    def header(self) -> dict[str, Any]:
        """What codebook.json says: version, sizes, and what made the vectors."""
        return {
            "version": self.version,
            "levels": self.levels,
            "codes": self.codes,
            "axes": len(self.axes),
            "dim": len(self.mean),
            "encoder": asdict(self.encoder),
            "template": self.template,
        }

    @classmethod
    def load(cls, folder: Path) -> Codebook:
        """Read a codebook and check it against its own header.

        Raises:
            CodebookError: a file is missing, damaged or does not match the header.
        """
        try:
            header = json.loads((folder / HEADER).read_text())
            arrays = {
                name: np.load(folder / f"{name}.npy", allow_pickle=False).astype("<f4") for name in ARRAYS
            }
            book = cls(**arrays, encoder=EncoderSpec(**header["encoder"]), template=header["template"])
            intact = book.header() == header
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, BadZipFile) as error:
            raise CodebookError(f"the codebook in {folder} can't be read: {error!r}") from error
        if not intact:
            raise CodebookError(f"the arrays in {folder} do not match its codebook.json: damaged or mixed.")
        return book


def default_codes(items: int) -> int:
    """Codes a level for a catalogue: the power of two nearest to 2 * sqrt(items), from 8 to 1024.

    Four levels of 256 for the papers' 12,000 items; fewer where a level would otherwise have codes
    of only a handful of items, from which neither the think loss nor a label learns anything.
    """
    wanted = np.log2(2 * np.sqrt(max(items, 1)))
    return int(2 ** np.clip(round(float(wanted)), 3, 10))


@dataclass(frozen=True)
class CodebookConfig:
    """Sizes of a codebook to fit; `codes` = 0 follows the catalogue's size (`default_codes`)."""

    levels: int = 4
    codes: int = 0
    seed: int = 0


def fit(vectors: np.ndarray, encoder: EncoderSpec, template: str, config: CodebookConfig) -> Codebook:
    """Fit a codebook level by level on residuals.

    Args:
        vectors: [N, dim] float32.
        encoder, template: what made them; part of the codebook's version.

    Raises:
        CodebookError: fewer distinct vectors than codes, NaN, or sizes that make no sense.
    """
    _check_finite(vectors)
    levels, codes = config.levels, config.codes or default_codes(len(vectors))
    distinct = len(np.unique(vectors, axis=0))
    if levels < 1 or codes < 2:
        raise CodebookError(f"levels={levels}, codes={codes}: at least 1 level and 2 codes are needed.")
    if distinct < codes:
        raise CodebookError(
            f"the catalogue has {distinct} distinct texts, fewer than {codes} codes a level; "
            "set codes lower, or 0 to follow the catalogue's size."
        )
    with threadpool_limits(limits=1):  # sums over threads come in any order: one thread, one result
        mean, axes = _main_axes(vectors)
        rest = (vectors.astype(np.float64) - mean) @ axes.astype(np.float64).T
        centroids = []
        for level in range(levels):
            centres = _fit_level(rest, codes, config.seed + level)
            rest = rest - centres[_nearest(rest, centres)]
            centroids.append(centres.astype(np.float32))
    return Codebook(np.stack(centroids), axes, mean, encoder, template)


def _check_finite(vectors: np.ndarray) -> None:
    if vectors.ndim != 2:
        raise CodebookError(f"vectors have shape {vectors.shape}, not [N, dim].")
    if not np.isfinite(vectors).all():
        raise CodebookError("some vectors hold NaN or infinity; the encoder failed on their texts.")


def _main_axes(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [dim] and the main axes [at most AXES, dim], float32."""
    fitted = PCA(min(AXES, *vectors.shape), svd_solver="covariance_eigh").fit(vectors.astype(np.float64))
    return fitted.mean_.astype(np.float32), fitted.components_.astype(np.float32)


def _fit_level(rest: np.ndarray, codes: int, seed: int) -> np.ndarray:
    distinct = len(np.unique(rest.round(10), axis=0))
    fitted = KMeans(min(codes, distinct), n_init=RESTARTS, random_state=seed).fit(rest)
    centres = fitted.cluster_centers_.astype(np.float32).astype(np.float64)
    if len(centres) < codes:  # fewer distinct residuals than codes: the last levels' spare codes stay unused
        centres = np.concatenate([centres, np.repeat(centres[:1], codes - len(centres), axis=0)])
    return centres


def _nearest(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Index of the nearest centre [N] by squared distance, ties to the lower index."""
    distance = (centres**2).sum(axis=1) - 2.0 * rows @ centres.T  # the row's own length changes no order
    return distance.round(10).argmin(axis=1)


def _array_digest(array: np.ndarray) -> str:
    exact = np.ascontiguousarray(array, dtype="<f4")
    return hashlib.sha256(str(exact.shape).encode() + exact.tobytes()).hexdigest()
