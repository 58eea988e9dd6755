"""What items are ranked by, from the states after histories; the rows of the act head are made once.

log P(UID) + scale * sum of log P(SID) over the first `thinking` levels (DESIGN: Recommender).
"""

from __future__ import annotations

import torch
from torch import Tensor

from car_model.model import CAR


class Scorer:
    """Scores of items by a model whose weights no longer change: no answer fuses every item anew.

    Args:
        model: in evaluation mode; later changes of its weights are not seen.
        scale: weight of the SID levels.
    """

    def __init__(self, model: CAR, scale: float) -> None:
        self.model = model
        self.scale = scale
        with torch.inference_mode():
            self.rows, self.bias = model.act_weights()  # [N + 1, D], [N + 1]
            self.codes = model.sids.T.contiguous()  # [L, N + 1]

    def scores(self, states: Tensor, thinking: int) -> Tensor:
        """Scores of every UID after states [B, D]: [B, N + 1]; column 0 is padding and -inf."""
        scores = torch.addmm(self.bias, states, self.rows.T).log_softmax(dim=-1)
        if not (thinking and self.scale):
            return scores
        think = self.model.think_logits(states).log_softmax(dim=-1)  # [B, L, K]
        for level in range(thinking):
            scores += self.scale * think[:, level, self.codes[level]]
        return scores

    def some(self, states: Tensor, thinking: int, uids: Tensor) -> Tensor:
        """Scores of UIDs [C] after states [B, D], but for one number a state: [B, C].

        Differences between items are those of `scores`; what all items of a state share is not computed,
        which would take all items.
        """
        scores = torch.addmm(self.bias[uids], states, self.rows[uids].T)
        if not (thinking and self.scale):
            return scores
        think = self.model.think_logits(states)  # [B, L, K]
        for level in range(thinking):
            scores += self.scale * think[:, level, self.codes[level, uids]]
        return scores
