"""Ranks of targets among all items, on whatever device the scores are: never sampled, the history masked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from car_model.metrics import UNRANKED


@torch.inference_mode()
def mask_histories(scores: Tensor, histories: Sequence[np.ndarray], value: float = -torch.inf) -> Tensor:
    """Scores [B, N + 1] with the items of each row's history of UIDs set to a value, in place."""
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    columns = np.concatenate(histories)
    where = (torch.from_numpy(part).long().to(scores.device) for part in (rows, columns))
    return scores.index_put_(tuple(where), scores.new_tensor(value))


@torch.inference_mode()
def device_ranks(scores: Tensor, targets: np.ndarray) -> np.ndarray:
    """`metrics.ranks_of` of scores [B, N] on their device; only the ranks [B] leave it."""
    wanted = scores.gather(1, torch.from_numpy(targets).long().to(scores.device).unsqueeze(1))
    above = (scores > wanted).sum(dim=1)
    equal = (scores == wanted).sum(dim=1) - 1
    barred = wanted[:, 0].isneginf() | scores.isnan().any(dim=1)
    ranks = (1 + above + equal.double() / 2).masked_fill_(barred, UNRANKED)
    return ranks.cpu().numpy()
