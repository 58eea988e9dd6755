"""Cross-entropy against a sample of the catalogue, corrected for how likely an item is to be sampled.

A full softmax over hundreds of thousands of items costs a training step most of its time. Here every step
draws negatives, shared by all its targets, with a chance that grows with the square root of an item's
interactions. log Q, how often an item is expected among them, is taken off their logits (Bengio and Senecal
2008), so that the sum over the sample estimates the sum over all items, and popular ones are not pushed down
for being drawn more often. A target is there with certainty, so its own logit is not corrected ("Correcting
the LogQ Correction", RecSys 2025).

Shape letters: N targets, S negatives, I items.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

POWER = 0.5  # of an item's interactions


class Negatives:
    """What a training step's negatives are drawn from.

    Args:
        counts: [I + 1] training interactions by UID; items without any are drawn as if they had one.
        size: how many a step draws, with replacement.
    """

    def __init__(self, counts: Tensor, size: int) -> None:
        chance = counts.double().clamp(min=1).pow(POWER)
        chance[0] = 0  # padding
        self.size = size
        self.log_q = (size * chance / chance.sum()).log()  # [I + 1] of the expected number of draws
        self._ends = chance.cumsum(0) / chance.sum()

    def draw(self) -> Tensor:
        """UIDs [S]; torch's own seed decides."""
        return torch.searchsorted(self._ends, torch.rand(self.size, dtype=torch.float64)).clamp(
            1, len(self._ends) - 1
        )


def sampled_cross_entropy(
    own: Tensor, others: Tensor, wanted: Tensor, drawn: Tensor, log_q: Tensor
) -> Tensor:
    """Mean cross-entropy of targets against themselves and the negatives.

    Args:
        own: [N] logits of the targets; others: [N, S] those of the negatives.
        wanted: [N] the targets' UIDs; drawn: [S] the negatives'.
        log_q: [I + 1] log of how often an item is expected among the negatives.
    """
    corrected = others - log_q[drawn].to(others.dtype)
    corrected = corrected.masked_fill(wanted[:, None] == drawn[None], -torch.inf)  # no negative of its own
    logits = torch.cat([own[:, None], corrected], dim=1)
    return F.cross_entropy(logits, torch.zeros_like(wanted))
