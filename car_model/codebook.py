"""The residual k-means codebook: item vectors in, semantic IDs (SIDs) out.

Level 1 is fit on the vectors, every further level on what the levels before it left over (residual
k-means, arXiv 2506.23643 section 3; RQ as in arXiv 2305.05065). SIDs are not unique by design: the UID
tells items apart, so nothing is ever renumbered. The version is the digest of everything encoding
depends on: centroids, encoder identity, text template and normalisation.

scikit-learn's KMeans is used: greedy k-means++ and Lloyd's algorithm to convergence, on one machine in
seconds for the catalogues here. faiss is faster on millions of items but its k-means starts from random
points and stops after a fixed number of rounds, which costs quality where time is no concern.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from car_model.digests import file_digest, json_digest
from car_model.encoder import EncoderSpec

BLOCK_ROWS = 4096
RESTARTS = 4  # k-means runs a level; the best inertia stays
CENTROIDS = "centroids.npy"
HEADER = "codebook.json"


class CodebookError(ValueError):
    """The codebook can't be fit, read or applied; the message says why."""


@dataclass(frozen=True)
class Codebook:
    """Centroids [levels, codes, dim] float32, and what made the vectors they divide."""

    centroids: np.ndarray
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
        """Digest of centroids, encoder identity, text template and normalisation."""
        rounded = np.ascontiguousarray(self.centroids, dtype="<f4")
        return json_digest(
            {
                "shape": list(rounded.shape),
                "centroids": _bytes_digest(rounded),
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
        """SIDs int32 [N, levels] and the squared length left after each level, float64 [N, levels]."""
        if vectors.ndim != 2 or vectors.shape[1] != self.centroids.shape[2]:
            raise CodebookError(
                f"vectors have shape {vectors.shape}, the codebook needs [N, {self.centroids.shape[2]}]; "
                "they come from another encoder."
            )
        if not np.isfinite(vectors).all():
            raise CodebookError("some vectors hold NaN or infinity; the encoder failed on their texts.")
        parts = [self._block(vectors[at : at + BLOCK_ROWS]) for at in range(0, len(vectors), BLOCK_ROWS)]
        sids, left = zip(*parts, strict=True) if parts else ((np.zeros((0, self.levels)),),) * 2
        return np.concatenate(sids).astype(np.int32), np.concatenate(left)

    def _block(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rest = vectors.astype(np.float64)
        sids, left = [], []
        for centroids in self.centroids.astype(np.float64):
            nearest = _nearest(rest, centroids)
            rest = rest - centroids[nearest]
            sids.append(nearest)
            left.append((rest**2).sum(axis=1))
        return np.stack(sids, axis=1), np.stack(left, axis=1)

    def save(self, folder: Path) -> None:
        """Write centroids.npy and codebook.json (the header, last)."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / CENTROIDS, self.centroids.astype("<f4"), allow_pickle=False)
        header = {
            "version": self.version,
            "levels": self.levels,
            "codes": self.codes,
            "dim": int(self.centroids.shape[2]),
            "encoder": asdict(self.encoder),
            "template": self.template,
            "centroids": file_digest(folder / CENTROIDS),
        }
        (folder / HEADER).write_text(json.dumps(header, indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Codebook:
        """Read a codebook and check it against its own version.

        Raises:
            CodebookError: a file is missing, damaged or does not match the version.
        """
        try:
            header = json.loads((folder / HEADER).read_text())
            centroids = np.load(folder / CENTROIDS, allow_pickle=False)
            book = cls(centroids, EncoderSpec(**header["encoder"]), header["template"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CodebookError(f"the codebook in {folder} can't be read: {error}") from error
        if book.version != header["version"]:
            raise CodebookError(
                f"{folder / CENTROIDS} does not match its version {header['version'][:12]}: damaged."
            )
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
        CodebookError: fewer distinct vectors than codes, or sizes that make no sense.
    """
    levels, codes = config.levels, config.codes or default_codes(len(vectors))
    distinct = len(np.unique(vectors, axis=0))
    if levels < 1 or codes < 2:
        raise CodebookError(f"levels={levels}, codes={codes}: at least 1 level and 2 codes are needed.")
    if distinct < codes:
        raise CodebookError(
            f"the catalogue has {distinct} distinct texts, fewer than {codes} codes a level; "
            "set codes lower, or 0 to follow the catalogue's size."
        )
    rest = vectors.astype(np.float64)
    centroids = []
    with threadpool_limits(limits=1):  # sums over threads come in any order: one thread, one result
        for level in range(levels):
            centres = _fit_level(rest, codes, config.seed + level)
            rest = rest - centres[_nearest(rest, centres)]
            centroids.append(centres.astype(np.float32))
    return Codebook(np.stack(centroids), encoder, template)


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


def _bytes_digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()
