"""Fit a codebook by residual k-means, level by level, on vectors projected on their main axes.

Small catalogues are fit thoroughly, in seconds: scikit-learn's KMeans (greedy k-means++, Lloyd's algorithm to
convergence), the best of several starts. Wide or many vectors, which would take minutes, are fit by growing:
k-means on the two main axes of the residual first, then on twice as many, each from the previous clusters, as
in faiss's ResidualQuantizer (progressive dimensions). `python -m benchmarks.codebook_speed` compares the two.

Shape letters: N rows, L levels, K codebook size, C axes that codes are made on, A all axes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from car_model.codebook.codebook import BLOCK_ROWS, Codebook, CodebookError, check_finite
from car_model.codebook.nearest import nearest
from car_model.encoding.encoder import EncoderSpec

NO_VARIANCE = 1e-9  # share of the first axis' variance below which an axis does not vary
THOROUGH = 2**28  # a fit is thorough up to so many rows * axes * codes, e.g. 32,768 * 32 * 256,
RESTARTS = 4  # with so many k-means runs per level; the one with the best inertia is used
SAMPLE = 256  # rows per code are enough to fit on (faiss's default too)
ROUNDS = 10  # of Lloyd's algorithm at most, at every width a fit grows through,
GAIN = 3e-4  # and none after a round that lowers the error by less than this share
DECIMALS = {"float64": 10, "float32": 6}  # residuals that agree to so many decimals are equal
CACHED_ROWS = 1024  # rows whose distances to 256 codes fit into a core's cache
INERTIA = 1.0  # of centroids that are refreshed


def default_codebook_size(items: int) -> int:
    """Codes per level for a catalogue: the power of two nearest to 2 * sqrt(items), from 8 to 1024.

    That is 256 for the papers' 12,000 items. Small catalogues get fewer: nothing is learned from codes of a
    handful of items.
    """
    return int(2 ** np.clip(round(float(np.log2(2 * np.sqrt(max(items, 1))))), 3, 10))


@dataclass(frozen=True)
class CodebookConfig:
    """A codebook to fit."""

    n_levels: int = 4  # codes in a SID
    codebook_size: int = 0  # codes per level; 0 follows the catalogue's size (`default_codebook_size`)
    seed: int = 0  # of the k-means starts and of the sample that many vectors are fit on
    axes: int = 32  # main axes of the vectors that codes are made on; all if there are fewer
    text_axes: int = 128  # main axes that items' texts are compared on; they include `axes`


def fit(vectors: np.ndarray, encoder: EncoderSpec, template: str, config: CodebookConfig) -> Codebook:
    """Fit a codebook level by level on residuals of vectors [N, dim], which encoder and template made.

    Raises CodebookError for fewer distinct vectors than codes, NaN, or sizes that make no sense.
    """
    size = config.codebook_size or default_codebook_size(len(vectors))
    _check(vectors, config, size)
    rows = _sample(vectors, SAMPLE * size, config.seed)
    with threadpool_limits(limits=1):  # sums over several threads come in any order: one thread, one result
        mean, axes = _main_axes(rows, max(config.axes, config.text_axes))
        code_axes = axes[: config.axes]
        thorough = len(rows) * len(code_axes) * size <= THOROUGH
        number = np.float64 if thorough else np.float32
        residual = (rows.astype(number) - mean) @ code_axes.astype(number).T  # [N, C]
        levels = []
        for level in range(config.n_levels):
            fit_level = _fit_level if thorough else _grow_level
            centroids, codes = fit_level(residual, size, config.seed + level)
            residual = residual - centroids[codes]
            levels.append(centroids.astype(np.float32))
    return Codebook(np.stack(levels), axes, mean, encoder, template)


def refresh(parent: Codebook, vectors: np.ndarray, seed: int = 0, inertia: float = INERTIA) -> Codebook:
    """Fit a codebook anew from a parent's centroids, its codes aligned to the parent's, level by level.

    Mean and axes stay, so that residuals mean the same. Every level starts from the parent's centroids, which
    are pulled back to where they were: a code keeps its number because its centroid only moves. `inertia` is
    the pull of a centroid's old position, in units of the pull of all its items together. 0 refits freely,
    which lowers the error a little more and changes several times as many SIDs.

    `vectors` [N, dim] are today's items', by the parent's encoder. Raises CodebookError as `fit` does.
    """
    size = parent.codebook_size
    _check(vectors, CodebookConfig(parent.n_levels, size), size)
    rows = _sample(vectors, SAMPLE * size, seed)
    with threadpool_limits(limits=1):
        residual = parent.project(rows)  # [N, C]
        levels = []
        for old in parent.centroids.astype(np.float64):
            centroids = home = old
            for _ in range(ROUNDS):
                codes = nearest(residual, centroids)
                means = _means(residual, codes, size)
                used = np.bincount(codes, minlength=size)[:, None] > 0
                home = np.where(used, home, means)  # codes without rows start anew
                updated = (means + inertia * home) / (1 + inertia)
                if np.array_equal(updated, centroids):
                    break
                centroids = updated
            centroids = centroids.astype(np.float32).astype(residual.dtype)
            residual = residual - centroids[nearest(residual, centroids)]
            levels.append(centroids.astype(np.float32))
    return replace(parent, centroids=np.stack(levels))


def _check(vectors: np.ndarray, config: CodebookConfig, codebook_size: int) -> None:
    """Raise CodebookError if no codebook can be fit."""
    for start in range(0, max(len(vectors), 1), BLOCK_ROWS):
        check_finite(vectors[start : start + BLOCK_ROWS])
    if config.n_levels < 1 or codebook_size < 2 or config.axes < 1:
        raise CodebookError(
            f"n_levels={config.n_levels}, codebook_size={codebook_size}, axes={config.axes}: "
            "at least 1 level and 2 codes on 1 axis are needed."
        )
    distinct = _distinct(vectors, codebook_size)
    if distinct >= codebook_size:
        return
    if distinct == 1:
        raise CodebookError(
            "all texts of the catalogue are equal to the encoder; check that text_columns name what tells "
            "items apart."
        )
    instead = ", or to 0 to follow the catalogue's size" if config.codebook_size else ""
    raise CodebookError(
        f"the catalogue has {distinct} distinct texts, fewer than {codebook_size} codes per level; "
        f"set codebook_size (--codebook-size) to {distinct} or lower{instead}."
    )


def _sample(vectors: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """All vectors, or so many drawn by the seed, in their order."""
    if len(vectors) <= rows:
        return vectors
    return vectors[np.sort(np.random.default_rng(seed).choice(len(vectors), rows, replace=False))]


def _distinct(rows: np.ndarray, enough: int, decimals: int | None = None) -> int:
    """Number of distinct rows, rounded to so many decimals; it stops counting at `enough` or soon after."""
    for part in (rows[: 4 * enough], rows):
        count = len(np.unique(part if decimals is None else part.round(decimals), axis=0))
        if count >= enough:
            break
    return count


def _main_axes(vectors: np.ndarray, axes: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean [dim] and the main axes [at most `axes`, dim], float32.

    Axes along which nothing varies are left out: rounding alone would set their direction, and the codebook's
    version would differ from machine to machine.
    """
    pca = PCA(min(axes, *vectors.shape), svd_solver="covariance_eigh").fit(vectors.astype(np.float64))
    varies = pca.explained_variance_ > NO_VARIANCE * pca.explained_variance_[0]
    return pca.mean_.astype(np.float32), pca.components_[varies].astype(np.float32)


def _fit_level(residual: np.ndarray, codebook_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Centroids [K, C] by scikit-learn, from the best start, and each row's nearest [N]."""
    distinct = _distinct(residual, codebook_size, DECIMALS[residual.dtype.name])
    kmeans = KMeans(min(codebook_size, distinct), n_init=RESTARTS, random_state=seed).fit(residual)
    centroids = kmeans.cluster_centers_.astype(np.float32).astype(residual.dtype)
    spare = codebook_size - len(centroids)
    if spare:  # fewer distinct residuals than codes: the spare codes stay unused
        centroids = np.concatenate([centroids, np.repeat(centroids[:1], spare, axis=0)])
    return centroids, nearest(residual, centroids)


def _grow_level(residual: np.ndarray, codebook_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The same by k-means on 2, 4, 8, ... and finally all main axes of the residual."""
    if _distinct(residual, codebook_size, DECIMALS[residual.dtype.name]) < codebook_size:
        return _fit_level(residual, codebook_size, seed)
    rotation = np.ascontiguousarray(np.linalg.eigh(residual.T @ residual)[1][:, ::-1])
    rotated = residual @ rotation
    widths = [2**power for power in range(1, 32) if 2**power < residual.shape[1]] + [residual.shape[1]]
    start = rotated[np.random.default_rng(seed).choice(len(residual), codebook_size, replace=False)]
    codes = _assign(rotated[:, : widths[0]], start[:, : widths[0]])[0]
    for width in widths:
        rows = np.ascontiguousarray(rotated[:, :width])
        squared, error = float(np.vdot(rows, rows)), np.inf
        for _ in range(ROUNDS):
            centroids = _means(rows, codes, codebook_size)
            codes, gain = _assign(rows, centroids)
            if squared - gain > error * (1 - GAIN):
                break
            error = squared - gain
    return centroids @ rotation.T, codes


def _assign(rows: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, float]:
    """Nearest centroid of each row [N], and how much the centroids lower the summed squared length."""
    half, codes, gain = np.square(centroids).sum(axis=1) / 2, np.empty(len(rows), dtype=np.int64), 0.0
    for start in range(0, len(rows), CACHED_ROWS):
        score = rows[start : start + CACHED_ROWS] @ centroids.T
        score -= half
        best = codes[start : start + CACHED_ROWS] = score.argmax(axis=1)
        gain += 2 * float(np.take_along_axis(score, best[:, None], axis=1).sum(dtype=np.float64))
    return codes, gain


def _means(rows: np.ndarray, codes: np.ndarray, codebook_size: int) -> np.ndarray:
    """Mean row of each code [K, axes]; codes without rows get the rows farthest from their own mean."""
    ones, starts = np.ones_like(rows[:, 0]), np.arange(len(rows) + 1)
    membership = csr_matrix((ones, codes, starts), shape=(len(rows), codebook_size))
    sizes = np.bincount(codes, minlength=codebook_size)
    means = (membership.T @ rows) / np.maximum(sizes, 1).astype(rows.dtype)[:, None]
    empty = np.flatnonzero(sizes == 0)
    if len(empty):
        distance = np.square(rows - means[codes]).sum(axis=1)
        means[empty] = rows[np.argsort(-distance, kind="stable")[: len(empty)]]
    return means
