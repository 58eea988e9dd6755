"""How like an item's text is to what a history holds: the cosine to the nearest of its texts.

Codes say which cluster a text is in, and a model of some tens of dimensions says what is bought after what.
Neither says "this is the refill of what was bought last month". The nearest text does, also of an item that
nobody has bought yet. It joins the ranking with one weight, chosen on validation (`fitting.choose_scales`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from car_model.data.catalogue import Catalogue


class Likeness:
    """Cosines of items' texts to the nearest text of a history.

    Args:
        text: [N + 1, A] coordinates by UID (`Catalogue.text_table`); row 0 is padding.
        history: how many of the latest items count, as for the model.
    """

    def __init__(self, text: np.ndarray, history: int) -> None:
        self.texts = F.normalize(
            torch.from_numpy(text).float(), dim=-1
        )  # [N + 1, A]; no direction: like none
        self.history = history

    def of(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Likeness [B, N + 1] of every UID to B histories of UIDs, none empty: -1 to 1; 0 for padding.

        One history at a time: never [B, T, N], and no answer depends on its batch.
        """
        return torch.stack([self._near(self.texts, one) for one in histories])

    def some(self, histories: Sequence[np.ndarray], uids: Tensor) -> Tensor:
        """Likeness [B, C] of UIDs [C] to B histories that share most of their items."""
        if len(histories) == 1:
            return self._near(self.texts[uids], histories[0])[None]
        recent = [history[-self.history :] for history in histories]
        seen, places = np.unique(np.concatenate(recent), return_inverse=True)
        table = self.texts[torch.from_numpy(seen)] @ self.texts[uids].T  # [distinct items, C]
        ends = np.cumsum([len(history) for history in recent])[:-1]
        return torch.stack([table[torch.from_numpy(rows)].amax(dim=0) for rows in np.split(places, ends)])

    def _near(self, texts: Tensor, history: np.ndarray) -> Tensor:
        """Cosines of texts [C, A] to the nearest one of a history: [C]."""
        return (texts @ self.texts[torch.tensor(history[-self.history :])].T).amax(dim=1)


def likeness_of(catalogue: Catalogue, history: int) -> Likeness | None:
    """The likeness of a catalogue's texts; None where it has no coordinates of them."""
    return None if catalogue.text_table is None else Likeness(catalogue.text_table, history)
