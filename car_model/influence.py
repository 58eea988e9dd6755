"""Which items of a history an answer rests on: how far a score falls when one of them is taken out."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def falls(scores: Tensor, count: int) -> np.ndarray:
    """By how much taking an item out of a history lowers scores, beyond what it does to other items: [k, R].

    Without the last part every item would rest on the latest one, which says what the user is doing at all.

    Args:
        scores: [1 + R, k + others] after the whole history, and after it without each item.
        count: k, the columns that are explained; the rest are compared with.
    """
    lost = (scores[0] - scores[1:]).double()
    return (lost[:, :count] - lost[:, count:].mean(dim=1, keepdim=True)).T.numpy()
