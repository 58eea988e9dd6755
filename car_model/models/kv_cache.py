"""One token at a time through a `Transformer`, for many beams of many histories at once.

Keys and values of a history are computed once and shared by its beams; a beam keeps those of its own few
tokens. The weights are the transformer's; the results are those of its `forward` without dropout.

Shape letters: B batch, P positions, W beams, S tokens of a beam so far, D width, H heads, E = D / H.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from car_model.models.transformer import Block, Transformer


class KVCache:
    """Keys and values of histories that end at different positions, and of their beams.

    Args:
        transformer: whose weights are used.
        x: [B, P, D] embeddings of the histories, right-padded.
        known: [B] how many positions of each row count; the rest is never seen. The first `step` is the
            position after them, of one beam a history; `reorder` makes more of it.
    """

    def __init__(self, transformer: Transformer, x: Tensor, known: Tensor) -> None:
        self.transformer = transformer
        self.blocks = [cast(Block, block) for block in transformer.blocks]
        self.known = known
        length = x.shape[1]
        hidden = torch.arange(length, device=x.device) >= known[:, None]
        self.mask = torch.zeros(hidden.shape, device=x.device).masked_fill_(hidden, -torch.inf)[:, None, None]
        self.history: list[tuple[Tensor, Tensor]] = []  # a layer's keys [B, H, E, P], values [B, H, P, E]
        at = torch.arange(length, device=x.device)
        x = transformer.placed(x, at)
        for block in self.blocks:
            q, k, v = (part.transpose(1, 2) for part in project(block, x, at))  # [B, H, P, E]
            self.history.append((k.transpose(2, 3).contiguous(), v.contiguous()))
            if block is not self.blocks[-1]:  # the last block's outputs are read by nobody
                mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
                x = finish(block, x, mixed.transpose(1, 2).flatten(2))
        empty = x.new_zeros(len(x), 1, 0, self.blocks[0].heads, x.shape[2] // self.blocks[0].heads)
        self.own = [(empty, empty) for _ in self.blocks]  # a layer's keys, values [B, W, S, H, E]

    def step(self, x: Tensor) -> Tensor:
        """Append one embedded token to every beam: [B, W, D] -> its state [B, W, D]."""
        at = self.known + self.own[0][0].shape[2]
        at = at.unsqueeze(1).expand(x.shape[:2])  # [B, W]
        x = self.transformer.placed(x, at)
        for layer, block in enumerate(self.blocks):
            q, k, v = project(block, x, at)  # [B, W, H, E]
            keys, values = (
                torch.cat([old, new.unsqueeze(2)], dim=2)
                for old, new in zip(self.own[layer], (k, v), strict=True)
            )
            self.own[layer] = (keys, values)
            x = finish(block, x, self._attend(layer, q))
        return cast(Tensor, self.transformer.norm(x))

    def reorder(self, parents: Tensor) -> None:
        """Go on with the beams `parents` [B, W'] (indices into the W of before)."""
        rows = torch.arange(len(parents), device=parents.device).unsqueeze(1)
        self.own = [(keys[rows, parents], values[rows, parents]) for keys, values in self.own]

    def _attend(self, layer: int, q: Tensor) -> Tensor:
        """Mix the history's and the beam's own values: q [B, W, H, E] -> [B, W, D]."""
        past_keys, past_values = self.history[layer]
        keys, values = self.own[layer]
        q = q * q.shape[-1] ** -0.5
        past = q.transpose(1, 2) @ past_keys + self.mask  # [B, H, W, P]
        own = (keys * q.unsqueeze(2)).sum(dim=-1).permute(0, 3, 1, 2)  # [B, H, W, S]
        weights = torch.cat([past, own], dim=-1).softmax(dim=-1)
        past, own = weights.split([past.shape[-1], own.shape[-1]], dim=-1)
        mixed = (past @ past_values).transpose(1, 2)  # [B, W, H, E]
        own = own.permute(0, 2, 3, 1).unsqueeze(-1)  # [B, W, S, H, 1]
        return (mixed + (own * values).sum(dim=2)).flatten(2)


def project(block: Block, x: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys, values of x [B, N, D] at positions [N] or [B, N], each [B, N, H, E]."""
    q, k, v = block.placed(block.qkv(block.norm_attention(x)), at).unbind(dim=2)
    return q, k, v


def finish(block: Block, x: Tensor, mixed: Tensor) -> Tensor:
    """The rest of a block after attention mixed the values: both [B, N, D] -> [B, N, D]."""
    x = x + block.attention_out(mixed)
    return cast(Tensor, x + block.mlp_out(F.gelu(block.mlp_in(block.norm_mlp(x)))))
