"""The items that may be among the best, found without scoring all: for catalogues of hundreds of thousands.

Two inverted files (faiss, inner product): one over the act head's rows, asked with the state after the
history, and, where likeness of texts counts, one over the texts, asked with those of the latest items. What
they find is scored exactly, so that only an item that neither finds is missed: recall is measured by
`recall_at`. Faiss is optional (the extra `shortlist`); without a shortlist nothing of it
is loaded. An index is built when a release is loaded, on one thread from fixed seeds, in seconds.

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

NEIGHBOURS = 50  # of each of the latest items' texts
PROBED = 0.1  # share of the cells that are looked at
ROWS_A_CELL = 256  # that cells are fit on
ROUNDS, SEED = 10, 0


class ShortlistError(UserError, RuntimeError):
    """A shortlist can't be made here; the message says what to do."""


@dataclass(frozen=True)
class Index:
    """Vectors by cell; `found` gives the UIDs whose inner product with a query is greatest."""

    index: Any
    uids: np.ndarray

    @classmethod
    def over(cls, vectors: np.ndarray, uids: np.ndarray) -> Index:
        """An index of vectors [N, D] float32, the rows of UIDs [N]."""
        faiss = require_faiss()
        cells = min(len(vectors), round(4 * len(vectors) ** 0.5))
        flat = faiss.IndexFlatIP(vectors.shape[1])
        index = faiss.IndexIVFFlat(flat, vectors.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
        index.own_fields, _ = True, flat.this.disown()
        index.cp.niter, index.cp.seed, index.cp.max_points_per_centroid = ROUNDS, SEED, ROWS_A_CELL
        index.cp.min_points_per_centroid = 1  # small catalogues are no reason to warn
        index.nprobe = max(1, round(PROBED * cells))
        before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)  # sums over threads come in any order
        try:
            index.train(vectors)
            index.add(vectors)
        finally:
            faiss.omp_set_num_threads(before)
        return cls(index, uids)

    def found(self, queries: np.ndarray, count: int) -> np.ndarray:
        """UIDs [B, count] for queries [B, D]; 0 where the cells looked at hold no more."""
        _, places = self.index.search(np.ascontiguousarray(queries, dtype=np.float32), count)
        return np.where(places < 0, 0, self.uids[places])


class Shortlist:
    """The shortlist of a model whose weights no longer change.

    Args:
        rows: [N + 1, D] and bias: [N + 1] of the act head; row 0 is padding.
        texts: [N + 1, A] unit texts by UID; None where likeness does not count.
        size: items that the act head is asked for.
    """

    def __init__(self, rows: Tensor, bias: Tensor, texts: Tensor | None, size: int) -> None:
        self.size = size
        uids = np.arange(1, len(rows))
        act = torch.cat([rows[1:], bias[1:, None]], dim=1).float().numpy()
        self._act = Index.over(np.ascontiguousarray(act), uids)
        self._texts = texts
        self._near = None if texts is None else Index.over(np.ascontiguousarray(texts[1:].float()), uids)

    @property
    def indices(self) -> list[Index]:
        """Of the act head's rows, and of the texts where they count."""
        return [one for one in (self._act, self._near) if one is not None]

    def of(self, states: Tensor, histories: Sequence[np.ndarray], latest: int) -> list[Tensor]:
        """UIDs [C] that may be among the best after each of B histories; ascending, none twice.

        Args:
            states: [B, D]; latest: how many of a history's items count for likeness.
        """
        queries = torch.cat([states, torch.ones(len(states), 1, dtype=states.dtype)], dim=1)
        found = [list(row) for row in self._act.found(queries.numpy(), self.size)]
        if self._near is not None and self._texts is not None:
            for row, history in zip(found, histories, strict=True):
                asked = self._texts[torch.tensor(history[-latest:])]
                row.extend(self._near.found(asked.numpy(), NEIGHBOURS).ravel())
        return [torch.from_numpy(np.setdiff1d(np.array(row), [0])) for row in found]


def recall_at(k: int, exact: Sequence[Sequence[int]], found: Sequence[Sequence[int]]) -> float:
    """Share of the k best that are among those found, over all histories."""
    hits = [
        len(set(best[:k]) & set(one[:k])) / max(1, len(best[:k]))
        for best, one in zip(exact, found, strict=True)
    ]
    return float(np.mean(hits)) if hits else 1.0


def require_faiss() -> Any:
    """The library.

    Raises:
        ShortlistError: it is not installed.
    """
    try:
        import faiss  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ShortlistError(
            "a release that ranks by a shortlist needs faiss: pip install '.[shortlist]' in a checkout, "
            "make image EXTRAS=shortlist for containers, or train it without (--recipe '{\"shortlist\": 0}')."
        ) from error
    return faiss
