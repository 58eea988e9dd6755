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
    """Children of prefixes. Built once from a SID table, moved with the model, never saved with it.

    Args:
        sids: [I + 1, L] codes by UID; row 0 is padding and left out.

    Attributes:
        sizes: nodes at each depth 0..L + 1.
        widest: M at each depth 0..L.
    """

    def __init__(self, sids: Tensor) -> None:
        super().__init__()
        table = sids[1:].cpu().numpy()
        order = np.lexsort(table.T[::-1])  # stable: equal SIDs stay in the order of their UIDs
        starts = _starts(table[order])
        self.levels = table.shape[1]
        self.sizes = [len(rows) for rows in starts]
        self.widest: list[int] = []
        for depth in range(self.levels + 1):
            child_starts = starts[depth + 1]
            first = np.searchsorted(child_starts, np.append(starts[depth], len(table)))
            token = table[order[child_starts], depth] if depth < self.levels else order + 1
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


def _starts(table: np.ndarray) -> list[np.ndarray]:
    """First row of every node at depths 0..L + 1 in the sorted SIDs `table` [I, L]."""
    starts = [np.zeros(1, dtype=np.int64)]
    new = np.zeros(len(table), dtype=bool)
    new[0] = True
    for codes in table.T:
        new[1:] |= codes[1:] != codes[:-1]
        starts.append(np.flatnonzero(new))
    return [*starts, np.arange(len(table))]
