"""Which items of a history an answer rests on: how far a score falls when one of them is taken out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from car_model.kv_cache import KVCache, finish, project
from car_model.model import CAR
from car_model.sequences import pad
from car_model.transformer import Transformer

RECENT = 10  # how many of the latest items are taken out in turn


def without(history: np.ndarray, recent: int = RECENT) -> list[np.ndarray]:
    """The history without one of its latest items, for each of them, the latest first."""
    places = range(len(history) - 1, max(len(history) - recent, 0) - 1, -1)
    return [np.delete(history, at) for at in places]


def states_without(model: CAR, history: np.ndarray, recent: int = RECENT) -> Tensor:
    """State after each of `without(history, recent)`: [R, D].

    What precedes the latest items is read once: no item sees those after it.

    Args:
        history: UIDs, oldest first, at least two.
    """
    shortened = without(history, recent)
    recent = min(recent, model.config.history)
    if not 1 < len(shortened) <= recent < len(history):  # nothing stands before them, or nothing after
        return model.last_state(pad(shortened, model.config.history))
    before = history[:-recent][-(model.config.history - recent + 1) :]
    read = model.embed(torch.from_numpy(before)[None]).flatten(1, 2)  # [1, P, D]
    rest = torch.from_numpy(np.stack([one[len(history) - recent :] for one in shortened]))  # [R, R - 1]
    return _read_on(model.transformer, read, model.embed(rest).flatten(1, 2))


def _read_on(transformer: Transformer, before: Tensor, rest: Tensor) -> Tensor:
    """State after the end of R sequences that begin alike: before [1, P, D], rest [R, S, D] -> [R, D]."""
    length, more = before.shape[1], rest.shape[1]
    cache = KVCache(transformer, before, torch.tensor([length]))
    seen = torch.ones(more, length + more, dtype=torch.bool).tril(length)
    x = rest + transformer.position.weight[length : length + more]
    for block, (keys, values) in zip(cache.blocks, cache.history, strict=True):
        q, k, v = (part.transpose(1, 2) for part in project(block, x))  # [R, H, S, E]
        k = torch.cat([keys.transpose(2, 3).expand(len(k), -1, -1, -1), k], dim=2)
        v = torch.cat([values.expand(len(v), -1, -1, -1), v], dim=2)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        x = finish(block, x, mixed.transpose(1, 2).flatten(2))
    return transformer.norm(x[:, -1])


def falls(scores: Tensor, count: int) -> np.ndarray:
    """By how much taking an item out of a history lowers scores, beyond what it does to other items: [k, R].

    Without the last part every item would rest on the latest one, which says what the user is doing at all.

    Args:
        scores: [1 + R, k + others] after the whole history, and after it without each item.
        count: k, the columns that are explained; the rest are compared with.
    """
    lost = (scores[0] - scores[1:]).double()
    return (lost[:, :count] - lost[:, count:].mean(dim=1, keepdim=True)).T.numpy()
