"""Relevance scores of items from the states after histories.

    score(i) = log P(UID i) + think_scale * sum over the first `thinking` levels of log P(code of i)

The rows of the act head are computed once, when the scorer is built.

Shape letters: B histories, N items, C candidates, D width, L levels, K codebook size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from car_model.models.car import CAR

FIRST_CANDIDATES = 256  # items whose full sum `top_of_sum` computes to begin with


class Scorer:
    """Scores items with a model in evaluation mode; later changes of its weights are not seen.

    `dtype` is that of states and scores. In float64 no score depends on what else is in its batch.
    """

    def __init__(self, model: CAR, think_scale: float, dtype: torch.dtype = torch.float32) -> None:
        self.n_levels, self.think_scale = model.config.n_levels, think_scale
        with torch.inference_mode():
            self.rows, self.bias = (part.to(dtype) for part in model.act_weights())  # [N + 1, D], [N + 1]
            self.think_rows, self.think_bias = (part.to(dtype) for part in model.think_weights())
            self.codes = model.sids.T.contiguous()  # [L, N + 1]

    def score_all(self, states: Tensor, thinking: int | Sequence[int]) -> Tensor:
        """Scores of every UID after states [B, D]: [B, N + 1]; column 0 is padding and -inf.

        `thinking` is how many SID levels join: one number for all states, or one per state.
        """
        scores = torch.addmm(self.bias, states, self.rows.T).log_softmax(dim=-1)
        levels = torch.as_tensor(thinking).expand(len(states))
        deepest = int(levels.max()) if self.think_scale and len(states) else 0
        if not deepest:
            return scores
        think = self.think_scale * self._think_logits(states).log_softmax(dim=-1)  # [B, L, K]
        for level in range(deepest):
            joins = levels > level
            scores[joins] += think[joins, level][:, self.codes[level]]
        return scores

    def score_some(self, states: Tensor, thinking: int, uids: Tensor) -> Tensor:
        """Scores of UIDs [C] after states [B, D]: [B, C], equal to `score_all` up to a constant per state.

        The constant needs the logits of all items, so it is left out.
        """
        scores = torch.addmm(self.bias[uids], states, self.rows[uids].T)
        if not (thinking and self.think_scale):
            return scores
        think = self._think_logits(states)
        for level in range(thinking):
            scores += self.think_scale * think[:, level, self.codes[level, uids]]
        return scores

    def _think_logits(self, states: Tensor) -> Tensor:  # [B, D] -> [B, L, K]
        return torch.addmm(self.think_bias, states, self.think_rows.T).view(len(states), self.n_levels, -1)


def top_of_sum(
    scores: Tensor, addend: Callable[[Tensor], Tensor], bound: float, k: int
) -> tuple[Tensor, Tensor]:
    """The k largest values of scores + addend, exactly, without computing the addend for every item.

    An item whose score is `bound` or more below the k-th best sum known so far can't be among the best.
    Which of several equal sums is returned is not defined.

    Args:
        scores: [N]; an item with -inf is never better than one without.
        addend: indices [C] -> what is added to their scores [C], never above `bound`, which is at least 0.
        k: at least 1.

    Returns:
        sums and indices, each [min(k, N)], the largest first.
    """
    k = min(k, len(scores))
    first, indices = scores.topk(min(max(FIRST_CANDIDATES, 4 * k), len(scores)))
    sums = first + addend(indices)
    least, last = float(sums.topk(k).values[-1]) - bound, float(first[-1])
    if len(indices) < len(scores) and last > -torch.inf and last >= least:  # an item left out might be better
        indices = torch.nonzero(scores >= least)[:, 0]
        sums = scores[indices] + addend(indices)
    best = sums.topk(k)
    return best.values, indices[best.indices]
