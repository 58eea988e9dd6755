"""The residual k-means codebook: item vectors in, semantic IDs (SIDs) out.

Vectors are centred and projected on their main axes (PCA). Level 1 is fit on the projections, every further
level on the residuals of the levels before it (residual k-means, arXiv 2506.23643 section 3; residual
quantisation as in arXiv 2305.05065). Without the projection the residuals of a few thousand items are mostly
noise, and k-means returns one huge cluster and many singletons (docs/decisions.md). SIDs need not be unique:
the UID identifies an item. The version is the digest of everything that encoding depends on.

Shape letters: N items, L levels, K codebook size, C axes that codes are made on, A all axes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
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

BLOCK_ROWS = 1024  # rows encoded at once: their distances to 4 x 256 codes fit into the CPU's cache
ARRAYS = ("centroids", "axes", "mean")
HEADER = "codebook.json"


class CodebookError(UserError):
    """The codebook can't be fit, read or applied; the message says why."""


@dataclass(frozen=True)
class Codebook:
    """Turns a vector into a SID, and names what made the vectors.

    Codes are made on the first C axes; texts are compared on all (`coordinates`).
    """

    centroids: np.ndarray  # float32 [L, K, C]
    axes: np.ndarray  # float32 [A, dim], orthonormal rows, main axes first
    mean: np.ndarray  # float32 [dim], subtracted before projecting
    encoder: EncoderSpec  # exact identity of the encoder that made the vectors
    template: str  # how an item's text is composed, such as `{title}; {genres}`

    @property
    def n_levels(self) -> int:
        """Number of codes in a SID."""
        return int(self.centroids.shape[0])

    @property
    def codebook_size(self) -> int:
        """Number of codes per level."""
        return int(self.centroids.shape[1])

    @property
    def version(self) -> str:
        """Digest of centroids, axes, encoder identity (with its normalisation) and text template."""
        digests = {}
        for name in ARRAYS:
            exact = np.ascontiguousarray(getattr(self, name), dtype="<f4")
            digests[name] = hashlib.sha256(str(exact.shape).encode() + exact.tobytes()).hexdigest()
        return json_digest({"arrays": digests, "encoder": asdict(self.encoder), "template": self.template})

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """SIDs int32 [N, L] of vectors [N, dim]: the nearest centroid of each level's residual.

        Independent of the order and number of rows: float32 decides if its rounding can't matter, otherwise
        float64, in which distances equal to ten decimals go to the lower code. `vectors` may be a memory map.
        """
        blocks = [np.zeros((0, self.n_levels), dtype=np.int32)]
        for block in self._blocks(vectors):
            sids, certain = self._screen.encode(block)
            if not certain.all():
                sids[~certain] = self._encode_exactly(block[~certain])[0]
            blocks.append(sids.astype(np.int32))
        return np.concatenate(blocks)

    def decode(self, sids: np.ndarray) -> np.ndarray:
        """Approximate vectors float32 [N, dim] from SIDs [N, L]: the sum of their centroids."""
        summed = sum(level[codes] for level, codes in zip(self.centroids, sids.T, strict=True))
        return np.asarray(self.mean + summed @ self._code_axes, dtype=np.float32)

    def coordinates(self, vectors: np.ndarray) -> np.ndarray:
        """Coordinates of vectors [N, dim] on all axes: float32 [N, A], rounded to float16."""
        blocks = [_project(block, self.mean, self.axes).astype(np.float16) for block in self._blocks(vectors)]
        empty = np.zeros((0, len(self.axes)), dtype=np.float16)
        coordinates = np.concatenate([empty, *blocks]).astype(np.float32)
        check_finite(coordinates)
        return coordinates

    def rebuild(self, coordinates: np.ndarray) -> np.ndarray:
        """Vectors float32 [N, dim] from their coordinates [N, A], without what the axes drop."""
        return np.asarray(self.mean + coordinates @ self.axes, dtype=np.float32)

    @property
    def _code_axes(self) -> np.ndarray:
        """The axes [C, dim] that codes are made on."""
        return self.axes[: self.centroids.shape[2]]

    def residuals(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """SIDs int32 [N, L], and the squared error of the whole vectors after each level, float64 [N, L]."""
        blocks = [self._encode_exactly(block) for block in self._blocks(vectors)]
        sids, errors = zip(*blocks, strict=True) if blocks else ((np.zeros((0, self.n_levels)),),) * 2
        return np.concatenate(sids).astype(np.int32), np.concatenate(errors)

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """Coordinates of vectors [N, dim] that codes are made on, float64 [N, C]. Raises CodebookError."""
        self._check_size(vectors)
        return _project(vectors, self.mean, self._code_axes)

    def spread(self, vectors: np.ndarray) -> np.ndarray:
        """Squared distance of each vector from the mean, float64 [N]; what a perfect codebook explains."""
        return np.concatenate([np.zeros(0), *map(self._squared_length, self._blocks(vectors))])

    def _blocks(self, vectors: np.ndarray) -> Iterator[np.ndarray]:
        """Rows in blocks of `BLOCK_ROWS`, checked. Raises CodebookError."""
        self._check_size(vectors)
        for start in range(0, len(vectors), BLOCK_ROWS):
            block = vectors[start : start + BLOCK_ROWS]
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
        return Screen(self.centroids, self._code_axes, self.mean)

    def _encode_exactly(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """SIDs [N, L] and squared errors after each level [N, L], all in float64."""
        residual = self.project(vectors)
        dropped = self._squared_length(vectors) - (residual**2).sum(axis=1)
        sids, errors = [], []
        for centroids in self.centroids.astype(np.float64):
            codes = nearest(residual, centroids)
            residual = residual - centroids[codes]
            sids.append(codes)
            errors.append(dropped + (residual**2).sum(axis=1))
        return np.stack(sids, axis=1), np.stack(errors, axis=1)

    def _squared_length(self, vectors: np.ndarray) -> np.ndarray:
        return ((vectors.astype(np.float64) - self.mean) ** 2).sum(axis=1)

    def save(self, folder: Path) -> None:
        """Write centroids.npy, axes.npy, mean.npy and codebook.json (the header, last)."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name).astype("<f4"), allow_pickle=False)
        (folder / HEADER).write_text(json.dumps(self.header(), indent=2, sort_keys=True) + "\n")

    def header(self) -> dict[str, Any]:
        """The content of codebook.json: version, sizes, and what made the vectors."""
        return {
            "version": self.version,
            "n_levels": self.n_levels,
            "codebook_size": self.codebook_size,
            "axes": len(self.axes),
            "dim": len(self.mean),
            "encoder": asdict(self.encoder),
            "template": self.template,
        }

    @classmethod
    def load(cls, folder: Path) -> Codebook:
        """Read a codebook. Raises CodebookError if a file is missing, damaged or not that of the header."""
        try:
            header, files = (
                json.loads((folder / HEADER).read_text()),
                {n: folder / f"{n}.npy" for n in ARRAYS},
            )
            arrays = {n: np.load(file, allow_pickle=False).astype("<f4") for n, file in files.items()}
            codebook = cls(**arrays, encoder=EncoderSpec(**header["encoder"]), template=header["template"])
            intact = codebook.header() == header
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, BadZipFile) as error:
            raise CodebookError(f"the codebook in {folder} can't be read: {error!r}") from error
        if not intact:
            raise CodebookError(f"the arrays in {folder} do not match its codebook.json: damaged or mixed.")
        return codebook


def check_finite(vectors: np.ndarray) -> None:
    """Check that vectors are a table of finite numbers [N, dim]. Raises CodebookError."""
    if vectors.ndim != 2:
        raise CodebookError(f"vectors have shape {vectors.shape}, not [N, dim].")
    if not np.isfinite(vectors).all():
        raise CodebookError("some vectors hold NaN or infinity; the encoder failed on their texts.")


def _project(vectors: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Coordinates float64 [N, n] of vectors [N, dim] on axes [n, dim]."""
    return (vectors.astype(np.float64) - mean) @ axes.astype(np.float64).T
