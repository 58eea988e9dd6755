"""What items are ranked by, from the states after histories; the rows of the act head are made once.

log P(UID) + scale * sum of log P(SID) over the first `thinking` levels (DESIGN: Recommender).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from car_model.models.car import CAR


class Scorer:
    """Scores of items by a model whose weights no longer change: no answer fuses every item anew.

    Args:
        model: in evaluation mode; later changes of its weights are not seen.
        scale: weight of the SID levels.
        dtype: of states and scores; in double precision no score depends on who else's are computed with it.
    """

    def __init__(self, model: CAR, scale: float, dtype: torch.dtype = torch.float32) -> None:
        self.levels = model.config.n_levels
        self.scale = scale
        with torch.inference_mode():
            self.rows, self.bias = (part.to(dtype) for part in model.act_weights())  # [N + 1, D], [N + 1]
            self.think_rows, self.think_bias = (part.to(dtype) for part in model.think_weights())
            self.codes = model.sids.T.contiguous()  # [L, N + 1]

    def scores(self, states: Tensor, thinking: int | Sequence[int]) -> Tensor:
        """Scores of every UID after states [B, D]: [B, N + 1]; column 0 is padding and -inf.

        Args:
            thinking: SID levels that join, of all states or of each.
        """
        scores = torch.addmm(self.bias, states, self.rows.T).log_softmax(dim=-1)
        levels = torch.as_tensor(thinking).expand(len(states))
        deepest = int(levels.max()) if self.scale and len(states) else 0
        if not deepest:
            return scores
        think = self.scale * self._think(states).log_softmax(dim=-1)  # [B, L, K]
        for level in range(deepest):
            joins = levels > level
            scores[joins] += think[joins, level][:, self.codes[level]]
        return scores

    def some(self, states: Tensor, thinking: int, uids: Tensor) -> Tensor:
        """Scores of UIDs [C] after states [B, D], but for one number a state: [B, C].

        Differences between items are those of `scores`; what all items of a state share is not computed,
        which would take all items.
        """
        scores = torch.addmm(self.bias[uids], states, self.rows[uids].T)
        if not (thinking and self.scale):
            return scores
        think = self._think(states)  # [B, L, K]
        for level in range(thinking):
            scores += self.scale * think[:, level, self.codes[level, uids]]
        return scores

    def _think(self, states: Tensor) -> Tensor:
        """SID logits of states [B, D]: [B, L, K]."""
        return torch.addmm(self.think_bias, states, self.think_rows.T).view(len(states), self.levels, -1)


FIRST = 256  # items whose sum is computed to begin with


def top_of_sum(
    scores: Tensor, more: Callable[[Tensor], Tensor], bound: float, k: int
) -> tuple[Tensor, Tensor]:
    """The k largest of scores + more, exactly; which of equal ones is open.

    An item that is `bound` or further below the k-th best sum known can't be among the best.

    Args:
        scores: [N]; an item with -inf is never better than one without.
        more: of indices [C], what is added to their scores, [C]; never above `bound`.
        bound: at least 0.
        k: at least 1; where N is less, all are returned.

    Returns:
        sums and indices, each [min(k, N)], the largest first.
    """
    k = min(k, len(scores))
    first, at = scores.topk(min(max(FIRST, 4 * k), len(scores)))
    sums = first + more(at)
    least, last = float(sums.topk(k).values[-1]) - bound, float(first[-1])
    if len(at) < len(scores) and last > -torch.inf and last >= least:  # one left out might be among the best
        at = torch.nonzero(scores >= least)[:, 0]
        sums = scores[at] + more(at)
    best = sums.topk(k)
    return best.values, at[best.indices]
