"""Small rankers and histories with actions that several test modules need."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from car_model.action_ranker.data import ActionHistories
from car_model.action_ranker.model import ActionRanker, RankerConfig
from tests.car_model.builders import tiny_sids
from tests.fixtures import ITEMS

LIKED = 4.0  # the least action that counts as liked


def tiny_ranker(architecture: str, seed: int = 0, **changes: Any) -> ActionRanker:
    """An untrained ranker over 48 items whose every weight counts: nothing is left at zero."""
    torch.manual_seed(seed)
    config = RankerConfig(ITEMS, 3, 4, LIKED, d_model=16, n_layers=2, n_heads=2, max_history=12, dropout=0.0)
    config = replace(config, architecture=architecture, **changes)
    model = ActionRanker(config, tiny_sids())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.add_(0.3 * torch.randn_like(weight))
        for table in (model.uid, model.action):
            table.weight[0].zero_()
    return model.eval()


def random_batch(lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """uids and actions [B, T], right-padded."""
    rng = np.random.default_rng(seed)
    uids = np.zeros((len(lengths), max(lengths)), dtype=np.int64)
    actions = np.zeros(uids.shape, dtype=np.int64)
    for row, length in enumerate(lengths):
        uids[row, :length] = rng.integers(1, ITEMS + 1, length)
        actions[row, :length] = rng.integers(1, 3, length)
    return torch.from_numpy(uids), torch.from_numpy(actions)


def tastes(users: int = 60, seed: int = 0) -> ActionHistories:
    """Users who like one genre (UID modulo 4) and no other: past actions on alike items tell the next one."""
    rng = np.random.default_rng(seed)
    uids = [rng.integers(1, ITEMS + 1, int(rng.integers(8, 30))) for _ in range(users)]
    liked = [(row % 4 == user % 4).astype(np.int64) for user, row in enumerate(uids)]
    parts = [np.array([0] * (len(row) - 4) + [1, 1, 2, 2], dtype=np.int8) for row in uids]
    return ActionHistories([f"u{at}" for at in range(users)], uids, [1 + row for row in liked], parts)


def halves(users: int, seed: int = 0) -> ActionHistories:
    """Users who like the items of one half of the first codes (even or odd) and no other."""
    data, rng = tastes(users, seed), np.random.default_rng(seed)
    codes = tiny_sids()[:, 0].numpy()
    liked = [(codes[row] % 2 == rng.integers(2)).astype(np.int64) for row in data.uids]
    return replace(data, actions=[1 + row for row in liked])
