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
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from car_model.codebook.nearest import Screen, nearest
from car_model.encoding.encoder import EncoderSpec
from common.digests import json_digest
from common.errors import UserError

BLOCK_ROWS = 1024  # whose distances to 4 x 256 codes stay in the cache
ARRAYS = ("centroids", "axes", "mean")
HEADER = "codebook.json"


class CodebookError(UserError, ValueError):
    """The codebook can't be fit, read or applied; the message says why."""


@dataclass(frozen=True)
class Codebook:
    """What turns a vector into a SID, and what made the vectors.

    Attributes:
        centroids: float32 [levels, codes, C].
        axes: float32 [A, dim], orthonormal rows, main axes first. Codes are made on the first C of them;
            texts are compared on all (`coordinates`).
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

        Deterministic and independent of the order and number of rows: float32 decides where its rounding
        can't matter, and else float64, where distances equal to ten decimals go to the lower code. Beside
        the SIDs, memory is that of one block of rows; `vectors` may be a memory map.
        """
        parts = [self._codes(block) for block in self._blocks(vectors)]
        return np.concatenate([np.zeros((0, self.levels), dtype=np.int32), *parts])

    def decode(self, sids: np.ndarray) -> np.ndarray:
        """What SIDs [N, levels] say of the vectors they were made from: float32 [N, dim]."""
        summed = sum(level[codes] for level, codes in zip(self.centroids, sids.T, strict=True))
        return np.asarray(self.mean + summed @ self._coded, dtype=np.float32)

    def coordinates(self, vectors: np.ndarray) -> np.ndarray:
        """What is kept of vectors [N, dim] beside their SIDs: float32 [N, A], rounded to float16.

        Raises:
            CodebookError: they are another encoder's, or too large for float16.
        """
        parts = [_on(block, self.mean, self.axes).astype(np.float16) for block in self._blocks(vectors)]
        kept = np.concatenate([np.zeros((0, len(self.axes)), dtype=np.float16), *parts]).astype(np.float32)
        check_finite(kept)
        return kept

    def rebuild(self, coordinates: np.ndarray) -> np.ndarray:
        """The vectors that coordinates [N, A] were taken of, but for what the axes drop: float32 [N, dim]."""
        return np.asarray(self.mean + coordinates @ self.axes, dtype=np.float32)

    @property
    def _coded(self) -> np.ndarray:
        """The axes [C, dim] that codes are made on."""
        return self.axes[: self.centroids.shape[2]]

    def encode_all(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """SIDs int32 [n, levels] of every batch [n, dim]: millions of rows, one batch in memory."""
        return map(self.encode, batches)

    def residuals(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """SIDs int32 [N, levels] and the squared error after each level, float64 [N, levels].

        The error is that of the whole vector: what the projection drops counts.
        """
        parts = [self._exact(block) for block in self._blocks(vectors)]
        sids, left = zip(*parts, strict=True) if parts else ((np.zeros((0, self.levels)),),) * 2
        return np.concatenate(sids).astype(np.int32), np.concatenate(left)

    def _blocks(self, vectors: np.ndarray) -> Iterator[np.ndarray]:
        """Rows by `BLOCK_ROWS`, checked."""
        self._check_size(vectors)
        for at in range(0, len(vectors), BLOCK_ROWS):
            block = vectors[at : at + BLOCK_ROWS]
            check_finite(block)
            yield block

    def _check_size(self, vectors: np.ndarray) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != len(self.mean):
            raise CodebookError(
                f"vectors have shape {vectors.shape}, the codebook needs [N, {len(self.mean)}]; "
                "they come from another encoder."
            )

    @cached_property
    def _screen(self) -> Screen:
        return Screen(self.centroids, self._coded, self.mean)

    def _codes(self, vectors: np.ndarray) -> np.ndarray:
        sids, sure = self._screen.codes_of(vectors)
        if not sure.all():
            sids[~sure] = self._exact(vectors[~sure])[0]
        return sids.astype(np.int32)

    def _exact(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rest = self.project(vectors)
        dropped = self._length(vectors) - (rest**2).sum(axis=1)
        sids, left = [], []
        for centroids in self.centroids.astype(np.float64):
            chosen = nearest(rest, centroids)
            rest = rest - centroids[chosen]
            sids.append(chosen)
            left.append(dropped + (rest**2).sum(axis=1))
        return np.stack(sids, axis=1), np.stack(left, axis=1)

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """Coordinates of vectors [N, dim] that codes are made on, float64 [N, C]. Raises CodebookError."""
        self._check_size(vectors)
        return _on(vectors, self.mean, self._coded)

    def _length(self, vectors: np.ndarray) -> np.ndarray:
        return ((vectors.astype(np.float64) - self.mean) ** 2).sum(axis=1)

    def spread(self, vectors: np.ndarray) -> np.ndarray:
        """Squared distance of each vector from the mean, float64 [N]; what a perfect codebook explains."""
        return np.concatenate([np.zeros(0), *map(self._length, self._blocks(vectors))])

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


def _on(vectors: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Coordinates float64 [N, n] of vectors [N, dim] on axes [n, dim]."""
    return (vectors.astype(np.float64) - mean) @ axes.astype(np.float64).T


def _array_digest(array: np.ndarray) -> str:
    exact = np.ascontiguousarray(array, dtype="<f4")
    return hashlib.sha256(str(exact.shape).encode() + exact.tobytes()).hexdigest()
