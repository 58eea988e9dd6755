"""Batches of histories without their padding.

The tokens of all histories lie in one row, histories of equal length next to each other. Operations on single
tokens (norms, projections, MLP, dropout) then touch real tokens only, and attention reads dense segments
[histories, length] with the plain causal kernel: no mask, no padding. On a GPU many small kernels cost more
than padding does, so there attention alone reads the padded batch. Under a causal mask no real token sees
padding.

Shape letters: B histories, T longest, N real tokens, R histories of a run, P its length.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the real tokens of a right-padded batch lie once they are packed."""

    shape: tuple[int, int]  # (B, T) of the batch
    indices: Tensor  # [N] index of each packed token in the flattened batch
    positions: Tensor  # [N] its position in its own history
    runs: list[tuple[int, int]]  # (histories, length) of each run of equal lengths; they cover all N
    padded: bool = False  # whether attention reads the padded batch instead of the runs

    @classmethod
    def from_mask(cls, mask: Tensor) -> Packing:
        """The packing of a right-padded batch: mask [B, T] is True where there is a token."""
        batch, length = mask.shape
        sizes, order = mask.sum(dim=1).sort(stable=True)  # [B]
        positions = torch.arange(length, device=mask.device).expand(batch, length)
        valid_mask = positions < sizes[:, None]  # [B, T], shortest history first
        distinct, counts = sizes.unique_consecutive(return_counts=True)
        runs = [(count, size) for count, size in zip(counts.tolist(), distinct.tolist(), strict=True) if size]
        padded = mask.device.type != "cpu" and len(runs) > 1
        indices = (order[:, None] * length + positions)[valid_mask]
        return cls((batch, length), indices, positions[valid_mask], runs, padded)

    @classmethod
    def dense(cls, batch: int, length: int, device: torch.device) -> Packing:
        """The packing of a batch without padding: one run."""
        indices = torch.arange(batch * length, device=device)
        return cls((batch, length), indices, indices % length, [(batch, length)])

    def pack(self, x: Tensor) -> Tensor:
        """The real tokens of a padded batch: [B, T, ...] -> [N, ...]."""
        return x.flatten(0, 1)[self.indices]

    def unpack(self, x: Tensor) -> Tensor:
        """The padded batch again, zeros where there is no token: [N, ...] -> [B, T, ...]."""
        batch, length = self.shape
        rows = x.new_zeros(batch * length, *x.shape[1:]).index_copy(0, self.indices, x)
        return rows.unflatten(0, (batch, length))

    def segments(self, x: Tensor) -> list[Tensor]:
        """All tokens as dense segments for attention: [N, ...] -> a list of [R, P, ...], one per run."""
        if self.padded:
            return [self.unpack(x)]
        parts = x.split([count * length for count, length in self.runs])
        return [part.unflatten(0, run) for part, run in zip(parts, self.runs, strict=True)]

    def join_segments(self, segments: list[Tensor]) -> Tensor:
        """The inverse of `segments`: a list of [R, P, ...] -> [N, ...]."""
        if self.padded:
            return self.pack(segments[0])
        rows = [segment.flatten(0, 1) for segment in segments]
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def last(self, x: Tensor) -> Tensor:
        """The last real token of each history, in the order of the batch: [N, D] -> [B, D]; none is empty."""
        batch, length = self.shape
        counts = torch.tensor([size for count, size in self.runs for _ in range(count)], device=x.device)
        ends = counts.cumsum(0) - 1  # [B] in packed order
        return x.new_empty(batch, x.shape[1]).index_copy_(0, self.indices[ends] // length, x[ends])

    def repeat_interleave(self, slots: int) -> Packing:
        """The packing after every token has become `slots` tokens in its place."""
        if slots == 1:
            return self
        inner = torch.arange(slots, device=self.indices.device)
        indices, positions = ((x[:, None] * slots + inner).flatten() for x in (self.indices, self.positions))
        batch, length = self.shape
        runs = [(count, size * slots) for count, size in self.runs]
        return Packing((batch, length * slots), indices, positions, runs, self.padded)
