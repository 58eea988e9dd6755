"""The prefixes of a SID table as sorted arrays: which codes, and at the end which items, may come next.

Items sorted by (SID, UID) make every prefix a run of rows, so the children of a node are a range of the
next depth's nodes (compressed sparse rows), and looking them up for many nodes at once is two gathers.

Depth d holds the distinct prefixes of d codes, in order; depth 0 is the root, depth L + 1 the items.
Shape letters: L levels, I items, M the most children a node of that depth has.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class Trie(nn.Module):
    """Children of prefixes in a SID table [I + 1, L] (row 0, padding, left out); never saved with a model."""

    def __init__(self, sids: Tensor) -> None:
        super().__init__()
        table = sids[1:].cpu().numpy()
        order = np.lexsort(table.T[::-1])  # stable: equal SIDs stay in the order of their UIDs
        levels = table.shape[1]
        new = np.zeros((len(table), levels), dtype=bool)  # whether a prefix begins in a row
        new[0] = True
        new[1:] = np.logical_or.accumulate(table[order][1:] != table[order][:-1], axis=1)
        starts = [np.zeros(1, dtype=np.int64), *map(np.flatnonzero, new.T), np.arange(len(table))]
        self.sizes = [len(rows) for rows in starts]  # nodes at each depth 0..L + 1
        self.widest: list[int] = []  # M at each depth 0..L
        for depth in range(levels + 1):
            child_starts = starts[depth + 1]
            first = np.searchsorted(child_starts, np.append(starts[depth], len(table)))
            token = table[order[child_starts], depth] if depth < levels else order + 1
            self.widest.append(int(np.diff(first).max()))
            self.register_buffer(f"first{depth}", torch.from_numpy(first), persistent=False)
            self.register_buffer(f"token{depth}", torch.from_numpy(token), persistent=False)

    def children_of(self, depth: int, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What may follow nodes [...] of a depth.

        Returns:
            tokens [..., M]: codes of level `depth`, or UIDs at depth L; nodes [..., M] of depth + 1;
            real [..., M]: False where a node has fewer than M children (token and node then mean nothing,
            but are in range).
        """
        first, token = self.get_buffer(f"first{depth}"), self.get_buffer(f"token{depth}")
        children = first[nodes].unsqueeze(-1) + torch.arange(self.widest[depth], device=nodes.device)
        real = children < first[nodes + 1].unsqueeze(-1)
        children = children.clamp(max=len(token) - 1)
        return token[children], children, real
