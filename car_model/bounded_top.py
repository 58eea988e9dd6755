"""The best of a sum whose second part is costly and bounded: it is computed only where it can matter."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

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
