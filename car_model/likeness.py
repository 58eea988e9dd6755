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

from car_model.catalogue import Catalogue


class Likeness:
    """Cosines of items' texts to the nearest text of a history.

    Args:
        text: [N + 1, A] coordinates by UID (`Catalogue.text_table`); row 0 is padding.
        history: how many of the latest items count, as for the model.
    """

    def __init__(self, text: np.ndarray, history: int) -> None:
        # A text without a direction is like none.
        self.rows = F.normalize(torch.from_numpy(text).float(), dim=-1)
        self.history = history

    def of(self, histories: Sequence[np.ndarray], uids: Tensor | None = None) -> Tensor:
        """Likeness [B, N + 1] of every UID to B histories of UIDs, none empty: -1 to 1; 0 for padding.

        Args:
            uids: [C] the UIDs that are asked for; [B, C] is returned.
        """
        rows = self.rows if uids is None else self.rows[uids]
        return torch.stack([self._one(history[-self.history :], rows) for history in histories])

    def _one(self, history: np.ndarray, rows: Tensor) -> Tensor:
        """[rows]; one history at a time: never [B, T, N], and no answer depends on its batch."""
        return (self.rows[torch.tensor(np.asarray(history))] @ rows.T).amax(dim=0)


def likeness_of(catalogue: Catalogue, history: int) -> Likeness | None:
    """The likeness of a catalogue's texts; None where it has no coordinates of them."""
    return None if catalogue.text_table is None else Likeness(catalogue.text_table, history)
