"""Near-duplicates: items whose texts are almost those of another item, such as one listed twice.

An answer that skips them holds no item that is nearly one of the history, or nearly a better-ranked one. A
release says by its header whether it skips, so evaluation, golden requests and servers do alike.

Shape letters: B histories, N items, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from car_model.data.catalogue import Catalogue

PROBES = 2000  # items, at most, whose nearest other item is looked for
RANKED = 100  # best-ranked items of a history among which evaluation skips
MANY = 0.05  # share of the items with a near-duplicate from which a release skips by itself,
FROM_ITEMS = 200  # if it has so many items


class NearDuplicates:
    """Which items to skip: those whose text has at least this cosine to another one's."""

    def __init__(self, catalogue: Catalogue, cosine: float) -> None:
        self.texts = F.normalize(torch.from_numpy(catalogue.text_table).float(), dim=-1)  # [N + 1, A]
        self.cosine = cosine

    def distinct(self, uids: Tensor, history: np.ndarray) -> np.ndarray:
        """Which of ranked UIDs [C], best first, are not nearly one of the history or a better one: [C]."""
        texts = self.texts[uids]
        keep = np.ones(len(uids), dtype=bool)
        if len(history):
            keep = ((texts @ self.texts[torch.from_numpy(history)].T).amax(dim=1) < self.cosine).numpy()
        close = np.triu((texts @ texts.T >= self.cosine).numpy(), 1)
        for better in np.flatnonzero(close.any(axis=1)):
            if keep[better]:
                keep &= ~close[better]
        return keep

    def bar(self, scores: Tensor, histories: Sequence[np.ndarray]) -> None:
        """Set what is skipped among the best of each row to -inf, in place: scores [B, N + 1], masked."""
        best = scores.topk(min(RANKED, scores.shape[1]))
        values, uids = best.values.cpu(), best.indices.cpu()
        for row, history in enumerate(histories):
            ranked = uids[row][values[row] > -torch.inf]
            skipped = ranked[torch.from_numpy(~self.distinct(ranked, history))]
            scores[row, skipped.to(scores.device)] = -torch.inf


def share_with_near_duplicates(catalogue: Catalogue, cosine: float) -> float:
    """Share of the items that have a near-duplicate, of some that are evenly spread; 0 without texts."""
    if catalogue.text_table is None:
        return 0.0
    texts = NearDuplicates(catalogue, cosine).texts[1:]
    picks = np.unique(np.linspace(0, len(texts) - 1, min(PROBES, len(texts))).astype(int))
    shared = 0
    for part in np.array_split(picks, 1 + len(picks) // 100):
        close = texts[part] @ texts.T >= cosine
        close[torch.arange(len(part)), torch.from_numpy(part)] = False
        shared += int(close.any(dim=1).sum())
    return shared / len(picks)
