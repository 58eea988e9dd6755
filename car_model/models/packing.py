"""Batches of histories without their padding.

Tokens of all histories lie in one row, histories of equal length side by side. What is done to single tokens
(norms, projections, MLP, dropout) then touches real ones only, and attention reads dense runs [histories,
length] through the plain causal kernel: no mask, no padding. Many small kernels cost a GPU more than padding:
there attention alone reads the padded batch. Behind a causal mask no real token sees padding.

Shape letters: B histories, T longest, N real tokens, R histories of a run, P its length, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the real tokens of a right-padded batch lie once packed.

    Attributes:
        shape: (B, T) of the batch.
        at: [N] each packed token's place in the flattened batch.
        positions: [N] its place in its own history.
        runs: (histories, length) of every run of equally long histories, in order; they cover all N.
        padded: whether attention reads the padded batch instead.
    """

    shape: tuple[int, int]
    at: Tensor
    positions: Tensor
    runs: list[tuple[int, int]]
    padded: bool = False

    @classmethod
    def of(cls, real: Tensor) -> Packing:
        """The packing of a right-padded batch: real [B, T] is True where there is a token."""
        batch, length = real.shape
        sizes, order = real.sum(dim=1).sort(stable=True)  # [B]
        places = torch.arange(length, device=real.device).expand(batch, length)
        keep = places < sizes[:, None]  # [B, T], shortest history first
        distinct, counts = sizes.unique_consecutive(return_counts=True)
        runs = [(count, size) for count, size in zip(counts.tolist(), distinct.tolist(), strict=True) if size]
        padded = real.device.type != "cpu" and len(runs) > 1
        return cls((batch, length), (order[:, None] * length + places)[keep], places[keep], runs, padded)

    @classmethod
    def dense(cls, batch: int, length: int, device: torch.device) -> Packing:
        """The packing of a batch without padding: one run."""
        at = torch.arange(batch * length, device=device)
        return cls((batch, length), at, at % length, [(batch, length)])

    def pack(self, x: Tensor) -> Tensor:
        """The real tokens of a padded batch: [B, T, ...] -> [N, ...]."""
        return x.flatten(0, 1)[self.at]

    def unpack(self, x: Tensor) -> Tensor:
        """The padded batch again, zeros where there is no token: [N, D] -> [B, T, D]."""
        batch, length = self.shape
        return x.new_zeros(batch * length, x.shape[1]).index_copy(0, self.at, x).view(batch, length, -1)

    def segments(self, x: Tensor) -> list[Tensor]:
        """All tokens as dense pieces for attention: [N, F] -> a list of [R, P, F], run by run or padded."""
        if self.padded:
            return [self.unpack(x)]
        parts = x.split([count * length for count, length in self.runs])
        return [part.view(*run, -1) for part, run in zip(parts, self.runs, strict=True)]

    def join_segments(self, pieces: list[Tensor]) -> Tensor:
        """The tokens of `segments` again: a list of [R, P, F] -> [N, F]."""
        if self.padded:
            return self.pack(pieces[0])
        return pieces[0].flatten(0, 1) if len(pieces) == 1 else torch.cat([x.flatten(0, 1) for x in pieces])

    def last(self, x: Tensor) -> Tensor:
        """The last real token of each history, in the order of the batch: [N, D] -> [B, D]; none is empty."""
        batch, length = self.shape
        counts = torch.tensor([size for count, size in self.runs for _ in range(count)], device=x.device)
        ends = counts.cumsum(0) - 1  # [B] in packed order
        return x.new_empty(batch, x.shape[1]).index_copy_(0, self.at[ends] // length, x[ends])

    def repeat_interleave(self, slots: int) -> Packing:
        """The packing once every token has become `slots` tokens in its place."""
        if slots == 1:
            return self
        inner = torch.arange(slots, device=self.at.device)
        at, positions = ((x[:, None] * slots + inner).flatten() for x in (self.at, self.positions))
        batch, length = self.shape
        runs = [(count, size * slots) for count, size in self.runs]
        return Packing((batch, length * slots), at, positions, runs, self.padded)
