"""Encode many histories at once, in float64, so that no state depends on the other histories of its batch.

In float32 the last digits of a sum depend on how many rows are computed together: an answer in some tens
would differ in a printed digit, depending on concurrent requests. In float64 the difference is a million
times smaller than what is printed, so concurrent requests may be encoded together.

Shape letters: B histories, R items left out in turn, S latest items that stay, P items before them, N tokens,
D width.
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

RECENT = 10  # how many of the latest items are left out in turn
SHORT = 14  # up to this length, encoding each shortened history anew is faster than sharing its beginning


class HistoryEncoder:
    """States after histories, by a model in evaluation mode; later changes of its weights are not seen."""

    def __init__(self, model: CAR) -> None:
        self.config = model.config
        self.transformer = copy.deepcopy(model.transformer).double()
        with torch.inference_mode():  # fused chunks by UID: [N + 1, slots, D]
            self.chunks = model.embed(torch.arange(model.config.n_items + 1))

    def encode(self, histories: Sequence[np.ndarray]) -> Tensor:
        """State after each of B histories of UIDs, oldest first, none empty: [B, D] float64."""
        uids = pad(histories, self.config.max_history)  # [B, T]
        packing = Packing.from_mask(uids != 0)
        slots = packing.repeat_interleave(self.config.slots)
        states = self.transformer.packed(self._chunks(packing.pack(uids)), slots)  # [N * slots, D]
        return slots.last(states)

    def encode_leave_one_out(self, histories: Sequence[np.ndarray], recent: int = RECENT) -> list[Tensor]:
        """Per history the states after each of its `leave_one_out` histories: [R, D] float64 each.

        R is 0 for a history of one item.
        """
        shared_from = max(SHORT, recent) if 1 < recent <= self.config.max_history else np.inf
        short = [len(history) <= shared_from for history in histories]
        pairs = list(zip(histories, short, strict=True))
        shortened = [leave_one_out(history, recent) if anew else [] for history, anew in pairs]
        flat = [history for group in shortened for history in group]
        states = self.encode(flat) if flat else torch.zeros(0, self.config.d_model, dtype=torch.float64)
        groups = zip(pairs, states.split([len(group) for group in shortened]), strict=True)
        return [group if anew else self._encode_shared(history, recent) for (history, anew), group in groups]

    def _encode_shared(self, history: np.ndarray, recent: int) -> Tensor:
        """`encode_leave_one_out` of one long history: [R, D].

        What precedes the latest items is the same in all shortened histories, so it is encoded once.
        """
        prefix = history[:-recent][-(self.config.max_history - recent + 1) :]
        endings = np.stack([short[len(history) - recent :] for short in leave_one_out(history, recent)])
        before = self._chunks(torch.from_numpy(prefix)[None])  # [1, P, D]
        x = self._chunks(torch.from_numpy(endings))  # [R, S, D]
        cache = KVCache(self.transformer, before, torch.tensor([before.shape[1]]))
        return cache.extend(x.unsqueeze(0))[0, :, -1]

    def _chunks(self, uids: Tensor) -> Tensor:
        """Chunks of UIDs, slot after slot: [..., T] -> [..., T * slots, D] float64."""
        return self.chunks[uids].double().flatten(-3, -2)


def leave_one_out(history: np.ndarray, recent: int = RECENT) -> list[np.ndarray]:
    """The history without one of its latest items, once for each, latest first; empty if it has one item."""
    positions = range(len(history) - 1, max(len(history) - recent, 0) - 1, -1)
    return [np.delete(history, i) for i in positions] if len(history) > 1 else []
