"""Histories read many at once, in double precision, so that what is read of one never depends on the others.

A sum in single precision comes out differently, in its last digits, by how many rows are computed together:
one answer in some tens would differ in a printed digit by who else asked at that moment. In double precision
the difference is a million times smaller than what is kept. So a server may read together what asks together,
in a fraction of the time, and each answer is still the one that is given alone.

Shape letters: B histories, R items taken out in turn, S those of them that stay, P items before them, N
tokens, D width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from car_model.data.histories import pad
from car_model.models.car import CAR
from car_model.models.kv_cache import KVCache
from car_model.models.packing import Packing
from car_model.models.transformer import Transformer

RECENT = 10  # how many of the latest items are taken out in turn
SHORT = 14  # items up to which reading all that is left anew costs less than reading what comes first once


class Reader:
    """States after histories by a model whose weights no longer change.

    Args:
        model: in evaluation mode; later changes of its weights are not seen.

    Attributes:
        chunks: [N + 1, slots, D] fused chunks by UID.
    """

    def __init__(self, model: CAR) -> None:
        self.config = model.config
        self.transformer = copy.deepcopy(model.transformer).double()
        with torch.inference_mode():
            self.chunks = model.embed(torch.arange(model.config.n_items + 1))

    def states(self, histories: Sequence[np.ndarray]) -> Tensor:
        """State after each of B histories of UIDs, oldest first, none empty: [B, D] float64."""
        uids = pad(histories, self.config.max_history)  # [B, T]
        packing = Packing.from_mask(uids != 0)
        slots = packing.repeat_interleave(self.config.slots)
        read = self.transformer.packed(self._chunks(packing.pack(uids)), slots)  # [N * slots, D]
        return slots.last(read)

    def without(self, histories: Sequence[np.ndarray], recent: int = RECENT) -> list[Tensor]:
        """For each history the states after `without` of it, [R, D] float64; R is 0 where it has one item."""
        apart = max(SHORT, recent) if 1 < recent <= self.config.max_history else np.inf
        long = {at for at, one in enumerate(histories) if len(one) > apart}
        left = [[] if at in long else without(one, recent) for at, one in enumerate(histories)]
        some = [one for short in left for one in short]
        states = self.states(some) if some else torch.zeros(0, self.config.d_model, dtype=torch.float64)
        read = states.split([len(one) for one in left])
        return [self._long(histories[at], recent) if at in long else one for at, one in enumerate(read)]

    def _long(self, history: np.ndarray, recent: int) -> Tensor:
        """`without` for one history, [R, D]: what precedes the latest items is read once."""
        before = history[:-recent][-(self.config.max_history - recent + 1) :]  # no item sees those after it
        shortened = without(history, recent)
        read = self._chunks(torch.from_numpy(before)[None])  # [1, P, D]
        rest = torch.from_numpy(np.stack([one[len(history) - recent :] for one in shortened]))  # [R, S]
        return _read_on(self.transformer, read, self._chunks(rest))

    def _chunks(self, uids: Tensor) -> Tensor:
        """Chunks of UIDs, slot after slot: [..., T] -> [..., T * slots, D] float64."""
        return self.chunks[uids].double().flatten(-3, -2)


def without(history: np.ndarray, recent: int = RECENT) -> list[np.ndarray]:
    """The history without one of its latest items, for each of them, the latest first; none of one."""
    places = range(len(history) - 1, max(len(history) - recent, 0) - 1, -1)
    return [np.delete(history, at) for at in places] if len(history) > 1 else []


def _read_on(transformer: Transformer, before: Tensor, rest: Tensor) -> Tensor:
    """State after the end of R sequences that begin alike: before [1, P, D], rest [R, S, D] -> [R, D]."""
    lengths = torch.tensor([before.shape[1]])
    return KVCache(transformer, before, lengths).extend(rest.unsqueeze(0))[0, :, -1]
