"""Approximate nearest neighbour (ANN) index: candidates for the best items without scoring all of them.

For catalogues of hundreds of thousands of items. One inverted file (faiss, inner product) holds the rows of
the act head and is queried with the state after the history; if text similarity counts, a second holds the
texts and is queried with those of the latest items. Candidates are scored exactly, so only items that neither
returns are missed. The index is built when a release is loaded, on one thread from fixed seeds.
faiss is optional (the extra `ann`) and imported only if a release asks for an index.

Shape letters: B histories, N items, D width, A axes of texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError

NEIGHBOURS = 50  # candidates per text of a history
PROBE_SHARE = 0.1  # share of the cells that a query searches
TRAIN_ROWS_PER_CELL = 256  # rows that the cells' centres are fit on
TRAIN_ROUNDS, SEED = 10, 0


class CandidateIndexError(UserError):
    """A candidate index can't be built here; the message says what to do."""


@dataclass(frozen=True)
class InvertedFile:
    """One faiss index of vectors, with the UIDs of its rows."""

    index: Any
    uids: np.ndarray

    @classmethod
    def build(cls, vectors: np.ndarray, uids: np.ndarray) -> InvertedFile:
        """Index vectors [N, D] float32, which belong to UIDs [N]."""
        faiss = require_faiss()
        cells = min(len(vectors), round(4 * len(vectors) ** 0.5))
        flat = faiss.IndexFlatIP(vectors.shape[1])
        index = faiss.IndexIVFFlat(flat, vectors.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
        index.own_fields, _ = True, flat.this.disown()
        index.cp.niter, index.cp.seed = TRAIN_ROUNDS, SEED
        index.cp.max_points_per_centroid = TRAIN_ROWS_PER_CELL
        index.cp.min_points_per_centroid = 1  # no warning for small catalogues
        index.nprobe = max(1, round(PROBE_SHARE * cells))
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)  # sums over several threads come in any order
        try:
            index.train(vectors)
            index.add(vectors)
        finally:
            faiss.omp_set_num_threads(threads)
        return cls(index, uids)

    def search(self, queries: np.ndarray, count: int) -> np.ndarray:
        """UIDs [B, count] of the largest inner products with queries [B, D]; 0 if the cells have no more."""
        _, rows = self.index.search(np.ascontiguousarray(queries, dtype=np.float32), count)
        return np.where(rows < 0, 0, self.uids[rows])


class CandidateIndex:
    """Proposes `size` candidates for a model whose weights no longer change.

    Args:
        rows: [N + 1, D] and bias: [N + 1] of the act head; row 0 is padding.
        texts: [N + 1, A] texts of unit length by UID; None if text similarity does not count.
    """

    def __init__(self, rows: Tensor, bias: Tensor, texts: Tensor | None, size: int) -> None:
        self.size, self.texts, uids = size, texts, np.arange(1, len(rows))
        act = torch.cat([rows[1:], bias[1:, None]], dim=1)
        tables = [act] if texts is None else [act, texts[1:]]
        self.indices = [InvertedFile.build(np.ascontiguousarray(table.float()), uids) for table in tables]

    def candidates(self, states: Tensor, histories: Sequence[np.ndarray], latest: int) -> list[Tensor]:
        """UIDs that may be among the best after each of B histories: [C] each, ascending, without duplicates.

        `states` are [B, D]; `latest` is how many of a history's latest items count for text similarity.
        """
        queries = torch.cat([states, torch.ones(len(states), 1, dtype=states.dtype)], dim=1)
        proposals = [list(row) for row in self.indices[0].search(queries.numpy(), self.size)]
        if self.texts is not None:
            for row, history in zip(proposals, histories, strict=True):
                texts = self.texts[torch.tensor(history[-latest:])]
                row.extend(self.indices[1].search(texts.numpy(), NEIGHBOURS).ravel())
        return [torch.from_numpy(np.setdiff1d(np.array(row), [0])) for row in proposals]


def require_faiss() -> Any:
    """The faiss module. Raises CandidateIndexError if it is not installed."""
    try:
        import faiss  # noqa: PLC0415 - optional
    except ImportError as error:
        raise CandidateIndexError(
            "a release with a candidate index needs faiss: pip install '.[ann]' in a checkout, "
            "make image EXTRAS=ann for containers, or train without it (--set ann_candidates=0)."
        ) from error
    return faiss
