"""Text similarity: the cosine between an item's text and the nearest text in a history.

SIDs only give a text's cluster, and the model what follows what. The nearest text also finds the refill of
what was bought last month, even if nobody has bought it yet. It joins the ranking with one weight, which is
chosen on validation (`train_car.choose_scales`).

Shape letters: B histories, N items, C candidates, A axes of the texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from car_model.data.catalogue import Catalogue


class TextSimilarity:
    """Cosine of each item's text to the nearest text among the latest `max_history` items of a history.

    `text` are coordinates by UID [N + 1, A] (`Catalogue.text_table`); row 0 is padding.
    """

    def __init__(self, text: np.ndarray, max_history: int) -> None:
        self.texts = F.normalize(torch.from_numpy(text).float(), dim=-1)  # [N + 1, A]; a zero row stays zero
        self.max_history = max_history

    @classmethod
    def of_catalogue(cls, catalogue: Catalogue, max_history: int) -> TextSimilarity | None:
        """Similarity over a catalogue's texts; None if the catalogue has no text coordinates."""
        return None if catalogue.text_table is None else cls(catalogue.text_table, max_history)

    def to_all(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Similarity of every UID to B histories of UIDs, none empty: [B, N + 1], -1 to 1, padding 0.

        Histories are compared one by one: there is never a [B, T, N] tensor, and no row depends on its batch.
        """
        return torch.stack([self._nearest(self.texts, history) for history in histories])

    def to_some(self, histories: Sequence[np.ndarray], uids: Tensor) -> Tensor:
        """Similarity of UIDs [C] to B histories that share most of their items: [B, C]."""
        if len(histories) == 1:
            return self._nearest(self.texts[uids], histories[0])[None]
        recent = [history[-self.max_history :] for history in histories]
        items, columns = np.unique(np.concatenate(recent), return_inverse=True)
        cosines = self.texts[torch.from_numpy(items)] @ self.texts[uids].T  # [distinct items, C]
        ends = np.cumsum([len(history) for history in recent])[:-1]
        return torch.stack([cosines[torch.from_numpy(rows)].amax(dim=0) for rows in np.split(columns, ends)])

    def _nearest(self, texts: Tensor, history: np.ndarray) -> Tensor:
        """Cosine of texts [C, A] to the nearest text of a history: [C]."""
        return (texts @ self.texts[torch.tensor(history[-self.max_history :])].T).amax(dim=1)
