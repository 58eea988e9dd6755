"""Fitting a codebook: residual k-means, level by level, on vectors projected on their main axes.

What takes seconds is fit thoroughly: scikit-learn's KMeans (greedy k-means++, Lloyd's algorithm to
convergence), the best of several starts. On hundreds of axes that takes minutes, and the deeper levels gain
nothing by it. So wide or many vectors are fit by growing: k-means on the two main axes of the residual first,
then on twice as many, each from the clusters before, as faiss's ResidualQuantizer does (progressive
dimensions); most rounds run where they are cheap.
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

NOTHING = 1e-9  # share of the first axis' variance
THOROUGH = 2**28  # up to so many rows * axes * codes, e.g. 32,768 * 32 * 256, a fit is thorough,
RESTARTS = 4  # with so many k-means runs a level; the best inertia stays
SAMPLE = 256  # rows a code are enough to fit on (faiss's default too)
ROUNDS = 10  # of Lloyd's algorithm, at most, at every width a fit grows through,
DECIMALS = {"float64": 10, "float32": 6}  # to which residuals that should be equal are
CACHED_ROWS = 1024  # whose distances to 256 codes fit into a core's cache
INERTIA = 1.0  # of centroids that are refreshed
GAIN = 3e-4  # after one that lowers the error by less than this share, no more


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
        axes: main axes of the vectors that codes are made on; more than there are means all.
        text_axes: main axes that items' texts are compared on, those among them.
    """

    levels: int = 4
    codes: int = 0
    seed: int = 0
    axes: int = 32
    text_axes: int = 128


def fit(vectors: np.ndarray, encoder: EncoderSpec, template: str, config: CodebookConfig) -> Codebook:
    """Fit a codebook level by level on residuals.

    Args:
        vectors: [N, dim] float32.
        encoder, template: what made them; part of the codebook's version.

    Raises:
        CodebookError: fewer distinct vectors than codes, NaN, or sizes that make no sense.
    """
    codes = config.codes or default_codes(len(vectors))
    _check(vectors, config, codes)
    rows = _sample(vectors, SAMPLE * codes, config.seed)
    with threadpool_limits(limits=1):  # sums over threads come in any order: one thread, one result
        mean, axes = _main_axes(rows, max(config.axes, config.text_axes))
        coded = axes[: config.axes]
        thorough = len(rows) * len(coded) * codes <= THOROUGH
        number = np.float64 if thorough else np.float32
        rest = (rows.astype(number) - mean) @ coded.astype(number).T
        centroids = []
        for level in range(config.levels):
            centres, chosen = (_fit_level if thorough else _grow_level)(rest, codes, config.seed + level)
            rest = rest - centres[chosen]
            centroids.append(centres.astype(np.float32))
    return Codebook(np.stack(centroids), axes, mean, encoder, template)


def refresh(parent: Codebook, vectors: np.ndarray, seed: int = 0, inertia: float = INERTIA) -> Codebook:
    """Fit a codebook anew from a parent's centroids, its codes aligned to the parent's, level by level.

    Mean and axes stay, so that residuals mean the same. Every level starts from the parent's centroids, which
    hold on to their places: a code keeps its number because its centroid only moves.

    Args:
        vectors: [N, dim] of today's items, by the parent's encoder.
        seed: of the sample that very many vectors are fit on.
        inertia: pull of a centroid's old place, in units of the pull of all its items together; 0 refits
            freely: that lowers the error a little more and changes several times as many SIDs.

    Raises:
        CodebookError: as for `fit`, or vectors of another size.
    """
    _check(vectors, CodebookConfig(parent.levels, parent.codes), parent.codes)
    rows = _sample(vectors, SAMPLE * parent.codes, seed)
    with threadpool_limits(limits=1):
        rest = parent.project(rows)
        centroids = []
        for old in parent.centroids.astype(np.float64):
            centres, chosen = _refit(rest, old, inertia)
            rest = rest - centres[chosen]
            centroids.append(centres.astype(np.float32))
    return replace(parent, centroids=np.stack(centroids))


def _refit(rest: np.ndarray, old: np.ndarray, inertia: float) -> tuple[np.ndarray, np.ndarray]:
    """Centres [codes, axes] from the old ones, and each row's nearest [N]; codes without rows start anew."""
    centres = home = old
    for _ in range(ROUNDS):
        chosen = nearest(rest, centres)
        means = _means(rest, chosen, len(old))
        used = np.bincount(chosen, minlength=len(old))[:, None] > 0
        home = np.where(used, home, means)
        moved = (means + inertia * home) / (1 + inertia)
        if np.array_equal(moved, centres):
            break
        centres = moved
    centres = centres.astype(np.float32).astype(rest.dtype)
    return centres, nearest(rest, centres)


def _check(vectors: np.ndarray, config: CodebookConfig, codes: int) -> None:
    """Raise CodebookError where no codebook can be fit."""
    for at in range(0, max(len(vectors), 1), BLOCK_ROWS):
        check_finite(vectors[at : at + BLOCK_ROWS])
    if config.levels < 1 or codes < 2 or config.axes < 1:
        raise CodebookError(
            f"levels={config.levels}, codes={codes}, axes={config.axes}: "
            "at least 1 level and 2 codes on 1 axis are needed."
        )
    distinct = _distinct(vectors, codes)
    if distinct < codes:
        raise CodebookError(_too_few(distinct, codes, config.codes == 0))


def _too_few(distinct: int, codes: int, by_size: bool) -> str:
    if distinct == 1:
        return "all texts of the catalogue are equal; check that text_columns name what tells items apart."
    instead = "" if by_size else ", or to 0 to follow the catalogue's size"
    return (
        f"the catalogue has {distinct} distinct texts, fewer than {codes} codes a level; "
        f"set codes (--codebook-size) to {distinct} or lower{instead}."
    )


def _sample(vectors: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """All vectors, or so many drawn by the seed, in their order."""
    if len(vectors) <= rows:
        return vectors
    return vectors[np.sort(np.random.default_rng(seed).choice(len(vectors), rows, replace=False))]


def _distinct(rows: np.ndarray, enough: int, decimals: int | None = None) -> int:
    """Number of distinct rows, to so many decimals; any from `enough` on where there are as many."""
    for some in (rows[: 4 * enough], rows):
        found = len(np.unique(some if decimals is None else some.round(decimals), axis=0))
        if found >= enough:
            break
    return found


def _main_axes(vectors: np.ndarray, axes: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean [dim] and the main axes [at most `axes`, dim], float32.

    Axes along which nothing varies are left out: rounding alone would say where they point, and with it the
    codebook's version would differ from machine to machine.
    """
    fitted = PCA(min(axes, *vectors.shape), svd_solver="covariance_eigh").fit(vectors.astype(np.float64))
    varies = fitted.explained_variance_ > NOTHING * fitted.explained_variance_[0]
    return fitted.mean_.astype(np.float32), fitted.components_[varies].astype(np.float32)


def _fit_level(rest: np.ndarray, codes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres [codes, axes] by scikit-learn, of the best start, and each row's nearest [N]."""
    distinct = _distinct(rest, codes, DECIMALS[rest.dtype.name])
    fitted = KMeans(min(codes, distinct), n_init=RESTARTS, random_state=seed).fit(rest)
    centres = fitted.cluster_centers_.astype(np.float32).astype(rest.dtype)
    if len(centres) < codes:  # fewer distinct residuals than codes: the last levels' spare codes stay unused
        centres = np.concatenate([centres, np.repeat(centres[:1], codes - len(centres), axis=0)])
    return centres, nearest(rest, centres)


def _grow_level(rest: np.ndarray, codes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The same by k-means on 2, 4, 8, ... and at last all main axes of the residual."""
    if _distinct(rest, codes, DECIMALS[rest.dtype.name]) < codes:
        return _fit_level(rest, codes, seed)
    turn = np.ascontiguousarray(np.linalg.eigh(rest.T @ rest)[1][:, ::-1])
    turned = rest @ turn
    widths = [2**power for power in range(1, 32) if 2**power < rest.shape[1]] + [rest.shape[1]]
    start = turned[np.random.default_rng(seed).choice(len(rest), codes, replace=False)]
    chosen = _assign(turned[:, : widths[0]], start[:, : widths[0]])[0]
    for width in widths:
        centres, chosen = _lloyd(np.ascontiguousarray(turned[:, :width]), chosen, codes)
    return centres @ turn.T, chosen


def _lloyd(rows: np.ndarray, chosen: np.ndarray, codes: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres [codes, axes] and each row's nearest [N] after Lloyd's rounds from the clusters given."""
    lengths, before = float(np.vdot(rows, rows)), np.inf
    for _ in range(ROUNDS):
        centres = _means(rows, chosen, codes)
        chosen, gain = _assign(rows, centres)
        if lengths - gain > before * (1 - GAIN):
            break
        before = lengths - gain
    return centres, chosen


def _assign(rows: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, float]:
    """Nearest centre of each row [N], and by how much the centres lower the summed squared length."""
    half, chosen, gain = np.square(centres).sum(axis=1) / 2, np.empty(len(rows), dtype=np.int64), 0.0
    for at in range(0, len(rows), CACHED_ROWS):
        score = rows[at : at + CACHED_ROWS] @ centres.T
        score -= half
        best = chosen[at : at + CACHED_ROWS] = score.argmax(axis=1)
        gain += 2 * float(np.take_along_axis(score, best[:, None], axis=1).sum(dtype=np.float64))
    return chosen, gain


def _means(rows: np.ndarray, chosen: np.ndarray, codes: int) -> np.ndarray:
    """Mean row of each code [codes, axes]; codes without rows get those farthest from their own mean."""
    one_each = (np.ones_like(rows[:, 0]), chosen, np.arange(len(rows) + 1))
    sizes = np.bincount(chosen, minlength=codes)
    means = (csr_matrix(one_each, shape=(len(rows), codes)).T @ rows) / np.maximum(sizes, 1).astype(
        rows.dtype
    )[:, None]
    empty = np.flatnonzero(sizes == 0)
    if len(empty):
        away = np.square(rows - means[chosen]).sum(axis=1)
        means[empty] = rows[np.argsort(-away, kind="stable")[: len(empty)]]
    return means
