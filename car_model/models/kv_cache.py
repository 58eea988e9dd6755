"""Continue histories without reading them again: their keys and values are computed once.

Each history may be continued several ways at once: beams of a search, candidates that a ranker scores, or the
rests of a history that explanations take items out of. A continuation keeps the keys and values of its own
few tokens. The results are those of the transformer's `forward`.

Shape letters: B histories, P their positions, W continuations of each, S own tokens of a continuation so far,
M tokens appended now, D width, H heads, E = D / H.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from car_model.models.transformer import Block, Transformer, causal_attention


class KVCache:
    """Keys and values of histories that end at different positions, and of their continuations.

    `x` are the histories' embeddings [B, P, D], right-padded; `lengths` [B] says how many positions of each
    are real. The first `extend` appends the position after them. In evaluation mode only.
    """

    def __init__(self, transformer: Transformer, x: Tensor, lengths: Tensor) -> None:
        self.transformer, self.lengths = transformer, lengths
        positions = torch.arange(x.shape[1], device=x.device)
        padding = (positions >= lengths[:, None])[:, None, None]  # [B, 1, 1, P]
        self.mask = torch.zeros(padding.shape, device=x.device).masked_fill_(padding, -torch.inf)
        self.prefix: list[tuple[Tensor, Tensor]] = []  # a layer's keys [B, H, E, P], values [B, H, P, E]
        x, angles = transformer.embed_positions(x, positions)
        for layer in transformer.blocks:
            block = cast(Block, layer)
            q, k, v = block.project(x, angles)  # [B, P, H, E]
            keys, values = k.permute(0, 2, 3, 1).contiguous(), v.transpose(1, 2).contiguous()
            self.prefix.append((keys, values))
            if block is not transformer.blocks[-1]:  # nobody reads the last block's output
                x = block.finish(x, causal_attention(q, k, v))
        empty = x.new_zeros(len(x), 1, 0, *q.shape[2:])
        self.own = [(empty, empty) for _ in transformer.blocks]  # a layer's keys, values [B, W, S, H, E]

    def extend(self, x: Tensor) -> Tensor:
        """Append M tokens to every continuation (the first call starts W): [B, W, M, D] -> their states."""
        tokens = torch.arange(x.shape[2], device=x.device)
        positions = self.lengths[:, None, None] + self.own[0][0].shape[2] + tokens  # [B, 1, M]
        return self.transformer.contextualise(x, positions.expand(x.shape[:3]), self.attend)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Mix the values of the history and of the continuation itself: [B, W, M, H, E] each -> the same."""
        old_keys, old_values = (part.expand(-1, q.shape[1], -1, -1, -1) for part in self.own[layer])
        keys, values = torch.cat([old_keys, k], dim=2), torch.cat([old_values, v], dim=2)
        self.own[layer] = keys, values
        continuations, new, total = q.shape[1], q.shape[2], keys.shape[2]
        q = q * q.shape[-1] ** -0.5
        prefix_keys, prefix_values = self.prefix[layer]
        rows = q.flatten(1, 2).transpose(1, 2)  # [B, H, W * M, E]
        past = rows @ prefix_keys + self.mask  # [B, H, W * M, P]
        own = (keys.unsqueeze(2) * q.unsqueeze(3)).sum(dim=-1)  # [B, W, M, S, H]
        if new > 1:
            later = torch.ones(new, total, dtype=torch.bool, device=q.device).triu(total - new + 1)
            own = own.masked_fill(later[:, :, None], -torch.inf)
        own = own.flatten(1, 2).permute(0, 3, 1, 2)  # [B, H, W * M, S]
        past, own = torch.cat([past, own], dim=-1).softmax(dim=-1).split([past.shape[-1], total], dim=-1)
        mixed = (past @ prefix_values).transpose(1, 2).unflatten(1, (continuations, new))  # [B, W, M, H, E]
        own = own.permute(0, 2, 3, 1).unflatten(1, (continuations, new)).unsqueeze(-1)  # [B, W, M, S, H, 1]
        return mixed + (own * values.unsqueeze(2)).sum(dim=3)

    def select(self, parents: Tensor) -> None:
        """Go on with the continuations `parents` [B, W'] (indices into the W of before)."""
        rows = torch.arange(len(parents), device=parents.device).unsqueeze(1)
        self.own = [(keys[rows, parents], values[rows, parents]) for keys, values in self.own]
