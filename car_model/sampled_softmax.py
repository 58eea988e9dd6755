"""Cross-entropy against a sample of the catalogue, corrected for how likely an item is to be sampled.

A full softmax over hundreds of thousands of items costs a training step most of its time. Here every step
scores a mixture of negatives, shared by all its targets ("Mixed Negative Sampling", WWW 2020): items drawn
with a chance that grows with the square root of their interactions, and as many of the step's own targets,
which come as the data have them. log Q, how often an item is expected among them, is taken off their logits
(Bengio and Senecal 2008), so that the sum over the sample estimates the sum over all items. A target is there
with certainty, so its own logit is not corrected ("Correcting the LogQ Correction", RecSys 2025).

Shape letters: N targets, S negatives drawn, C = S + min(N, S) negatives, I items.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

POWER = 0.5  # of an item's interactions


class Negatives:
    """What a training step's negatives are.

    Args:
        counts: [I + 1] training interactions by UID; items without any are drawn as if they had one.
        size: S, how many a step draws, with replacement.
    """

    def __init__(self, counts: Tensor, size: int) -> None:
        chance = counts.double().clamp(min=1).pow(POWER)
        chance[0] = 0  # padding
        seen = counts.double().index_fill(0, torch.tensor(0), 0)
        self.size = size
        self._ends = chance.cumsum(0) / chance.sum()
        self._drawn = size * chance / chance.sum()  # [I + 1] expected draws
        self._share = seen / seen.sum().clamp(min=1)  # [I + 1] of all targets

    def draw(self) -> Tensor:
        """UIDs [S]; torch's own seed decides."""
        return torch.searchsorted(self._ends, torch.rand(self.size, dtype=torch.float64)).clamp(
            1, len(self._ends) - 1
        )

    def choose(self, targets: int) -> Tensor:
        """Of a step's targets and draws [N + S], the places of its negatives [C]."""
        lent = torch.arange(targets) if targets <= self.size else torch.randperm(targets)[: self.size]
        return torch.cat([lent, torch.arange(targets, targets + self.size)])

    def log_q(self, targets: int) -> Tensor:
        """log of how often an item is expected among the negatives of a step with so many targets [I + 1]."""
        return (self._drawn + min(targets, self.size) * self._share).log()


def sampled_cross_entropy(
    own: Tensor, others: Tensor, wanted: Tensor, negatives: Tensor, log_q: Tensor
) -> Tensor:
    """Mean cross-entropy of targets against themselves and the negatives.

    Args:
        own: [N] logits of the targets; others: [N, C] those of the negatives.
        wanted: [N] the targets' UIDs; negatives: [C] UIDs.
        log_q: [I + 1] log of how often an item is expected among the negatives.
    """
    corrected = others - log_q[negatives].to(others.dtype)
    corrected = corrected.masked_fill(
        wanted[:, None] == negatives[None], -torch.inf
    )  # no negative of its own
    logits = torch.cat([own[:, None], corrected], dim=1)
    return F.cross_entropy(logits, torch.zeros_like(wanted))
