"""Attention to the strict past, of which AttnLFA and AttnMVP are made (formulas: `action_ranker/model.py`).

Keys and values are shifted one position behind a learned *null slot*. Plain causal attention at item n then
sees the null slot and items 1..n-1, so the fused kernel needs no mask.

Shape letters: N packed items, D width, H heads, E = D / H, R histories of a run, P its length, C candidates.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from car_model.models.packing import Packing
from car_model.models.transformer import Attention, Block, Transformer, causal_attention, initialise


class NullSlot(nn.Module):
    """A learned key and value before the first item: what is attended to if the past says nothing."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.key = nn.Parameter(torch.zeros(d_model))
        self.value = nn.Parameter(torch.zeros(d_model))

    def before(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [..., P, H, E] behind the null slot: [..., P + 1, H, E]."""

        def prepend(null: Tensor, x: Tensor) -> Tensor:
            slot = null.to(x.dtype).unflatten(0, x.shape[-2:]).expand(*x.shape[:-3], 1, -1, -1)
            return torch.cat([slot, x], dim=-3)

        return prepend(self.key, keys), prepend(self.value, values)


def past_attention(packing: Packing, nulls: list[NullSlot]) -> Attention:
    """Attention of each item of packed histories to the strict past; a null slot per layer."""

    def attend(layer: int, *qkv: Tensor) -> Tensor:
        segments = zip(*map(packing.segments, qkv), strict=True)  # of [R, P, H, E]
        return packing.join_segments(
            [causal_attention(q, *nulls[layer].before(k[:, :-1], v[:, :-1])) for q, k, v in segments]
        )

    return attend


def candidate_attention(past: list[tuple[Tensor, Tensor]]) -> Attention:
    """Attention of candidates to all of one history; candidates don't see each other.

    `past` holds each layer's keys and values behind the null slot [P + 1, H, E]. Queries are [C, H, E]; the
    candidates' own keys and values are not read.
    """

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, keys, values = (x.transpose(0, 1) for x in (q, *past[layer]))  # [H, C or P + 1, E]
        return F.scaled_dot_product_attention(q, keys, values).transpose(0, 1)

    return attend


class PastActions(nn.Module):
    """AttnLFA's pooling: past actions, weighted by how similar their items are to the current one."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.heads = n_heads
        self.qk = nn.Linear(d_model, 2 * d_model)
        self.norm_action = nn.LayerNorm(d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.null = NullSlot(d_model)
        self.apply(initialise)

    def forward(self, h: Tensor, actions: Tensor, attention: Attention) -> Tensor:
        """States of items h [N, D] and their actions [N, D] -> pooled actions of the strict past [N, D]."""
        return cast(Tensor, self.out(attention(0, *self.project(h, actions)).flatten(-2)))

    def project(self, h: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys of items, values of actions: [N, H, E] each."""
        q, k = self.qk(h).unflatten(-1, (2, self.heads, -1)).unbind(dim=-3)
        return q, k, self.value(self.norm_action(actions)).unflatten(-1, (self.heads, -1))


class MixedBlock(Block):
    """AttnMVP's block: values mix items with actions and come from the strict past."""

    def add_projections(self, width: int) -> None:
        self.norm_value = nn.LayerNorm(width)
        self.qk = nn.Linear(width, 2 * width)
        self.value = nn.Linear(width, width)
        self.null = NullSlot(width)

    def project(self, x: Tensor, actions: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys of the item stream, values of items and actions [N, D]: [N, H, E] each."""
        q, k = self.qk(self.norm_attention(x)).unflatten(-1, (2, self.heads, -1)).unbind(dim=-3)
        return q, k, self.value(self.norm_value(x + actions)).unflatten(-1, (self.heads, -1))


class MixedTransformer(Transformer):
    """AttnMVP's stack over embedded items."""

    block = MixedBlock

    def mix(self, items: Tensor, actions: Tensor, packing: Packing) -> Tensor:
        """Items [N, D] and actions [N, D] in the packing's order -> states [N, D]."""
        self.check_length(packing)
        return self.contextualise(items, packing.positions, self._past_attention(packing), actions)

    def candidate_states(self, items: Tensor, actions: Tensor, candidates: Tensor) -> Tensor:
        """States of candidates [C, D], each alone after a history's items and actions [P, D]: [C, D]."""
        packing = Packing.dense(1, len(items), items.device)
        attention, past = self._past_attention(packing), []
        x, _ = self.embed_positions(items, packing.positions)
        for module in self.blocks:
            block = cast(MixedBlock, module)
            q, k, v = block.project(x, actions)
            past.append(block.null.before(k, v))
            if block is not self.blocks[-1]:  # nobody reads the last block's output
                x = block.finish(x, attention(block.layer, q, k, v))
        positions = packing.positions.new_full((len(candidates),), len(items))
        return self.contextualise(
            candidates, positions, candidate_attention(past), torch.zeros_like(candidates)
        )

    def _past_attention(self, packing: Packing) -> Attention:
        return past_attention(packing, [cast(MixedBlock, block).null for block in self.blocks])
