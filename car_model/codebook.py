"""The residual k-means codebook: item vectors in, semantic IDs (SIDs) out.

Vectors are centred and projected on their main axes (PCA); level 1 is fit on those, every further level
on what the levels before it left over (residual k-means, arXiv 2506.23643 section 3; RQ as in arXiv
2305.05065). The projection is why the deeper levels are any use: in all 384 dimensions of a sentence
encoder the residuals of a few thousand items are mostly noise, and k-means answers with one huge cluster
and many singletons (docs/decisions.md). SIDs are not unique by design: the UID tells items apart, so
nothing is ever renumbered. The version is the digest of everything encoding depends on: axes, centroids,
encoder identity, text template and normalisation.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from car_model.digests import json_digest
from car_model.encoder import EncoderSpec

BLOCK_ROWS = 4096
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
        check_finite(vectors)
        parts = [self._block(vectors[at : at + BLOCK_ROWS]) for at in range(0, len(vectors), BLOCK_ROWS)]
        sids, left = zip(*parts, strict=True) if parts else ((np.zeros((0, self.levels)),),) * 2
        return np.concatenate(sids).astype(np.int32), np.concatenate(left)

    def _block(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rest = self._project(vectors)
        dropped = self.spread(vectors) - (rest**2).sum(axis=1)
        sids, left = [], []
        for centroids in self.centroids.astype(np.float64):
            chosen = nearest(rest, centroids)
            rest = rest - centroids[chosen]
            sids.append(chosen)
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


def check_finite(vectors: np.ndarray) -> None:
    """Refuse what is not a table of numbers [N, dim].

    Raises:
        CodebookError: the shape is another, or there is NaN or infinity.
    """
    if vectors.ndim != 2:
        raise CodebookError(f"vectors have shape {vectors.shape}, not [N, dim].")
    if not np.isfinite(vectors).all():
        raise CodebookError("some vectors hold NaN or infinity; the encoder failed on their texts.")


def nearest(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Index of the nearest centre [N] by squared distance, ties to the lower index."""
    distance = (centres**2).sum(axis=1) - 2.0 * rows @ centres.T  # the row's own length changes no order
    return distance.round(10).argmin(axis=1)


def _array_digest(array: np.ndarray) -> str:
    exact = np.ascontiguousarray(array, dtype="<f4")
    return hashlib.sha256(str(exact.shape).encode() + exact.tobytes()).hexdigest()
