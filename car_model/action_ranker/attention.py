"""Attention to the strict past, of which AttnLFA and AttnMVP are made (formulas: `action_ranker/model.py`).

Keys and values are shifted one position behind a learned *null slot*. Plain causal attention at item n then
sees the null slot and items 1..n-1, so the fused kernel needs no mask.

Shape letters: N packed items, D width, H heads, E = D / H, R histories of a run, P its length, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from car_model.models.packing import Packing
from car_model.models.transformer import (
    Attention,
    Dropout,
    ResidualBlock,
    TransformerConfig,
    causal_attention,
    check_length,
    initialise,
    initialise_stack,
)


class NullSlot(nn.Module):
    """A learned key and value before the first item: what is attended to if the past says nothing."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.key = nn.Parameter(torch.zeros(d_model))
        self.value = nn.Parameter(torch.zeros(d_model))

    def before(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [..., P, H, E] behind the null slot: [..., P + 1, H, E]."""
        slots = (
            null.to(x.dtype).unflatten(0, x.shape[-2:]).expand(*x.shape[:-3], 1, -1, -1)
            for null, x in ((self.key, keys), (self.value, values))
        )
        return cast(
            tuple[Tensor, Tensor],
            tuple(torch.cat([slot, x], dim=-3) for slot, x in zip(slots, (keys, values), strict=True)),
        )


@dataclass(frozen=True)
class PastAttention:
    """Attention of each item of packed histories to the strict past."""

    packing: Packing
    nulls: list[NullSlot]  # of each layer

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[N, H, E] each -> [N, H, E]."""
        mixed = []
        for queries, keys, values in zip(*map(self.packing.segments, (q, k, v)), strict=True):
            mixed.append(causal_attention(queries, *self.nulls[layer].before(keys[:, :-1], values[:, :-1])))
        return self.packing.join_segments(mixed)


@dataclass(frozen=True)
class CandidateAttention:
    """Attention of candidates to all of one history; candidates don't see each other."""

    past: list[tuple[Tensor, Tensor]]  # of each layer: keys, values behind the null slot [P + 1, H, E]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries [C, H, E] -> [C, H, E]; the candidates' own keys and values are not read."""
        keys, values = self.past[layer]
        q, keys, values = (x.transpose(0, 1) for x in (q, keys, values))  # [H, C or P + 1, E]
        return F.scaled_dot_product_attention(q, keys, values).transpose(0, 1)


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
        return cast(Tensor, self.out(attention.attend(0, *self.project(h, actions)).flatten(-2)))

    def project(self, h: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys of items, values of actions: [N, H, E] each."""
        q, k = self.qk(h).unflatten(-1, (2, self.heads, -1)).unbind(dim=-3)
        return q, k, self.value(self.norm_action(actions)).unflatten(-1, (self.heads, -1))


class MixedBlock(ResidualBlock):
    """AttnMVP's block: a pre-norm block whose values mix items with actions and come from the strict past."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads = config.n_heads
        self.norm_attention = nn.LayerNorm(config.d_model)
        self.norm_value = nn.LayerNorm(config.d_model)
        self.qk = nn.Linear(config.d_model, 2 * config.d_model)
        self.value = nn.Linear(config.d_model, config.d_model)
        self.null = NullSlot(config.d_model)
        self.add_output(config)

    def forward(self, x: Tensor, actions: Tensor, attention: Attention) -> Tensor:
        """Item stream x [N, D] and actions [N, D] -> item stream [N, D]."""
        return self.finish(x, attention.attend(self.layer, *self.project(x, actions)))

    def project(self, x: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys of the item stream, values of items and actions: [N, H, E] each."""
        q, k = self.qk(self.norm_attention(x)).unflatten(-1, (2, self.heads, -1)).unbind(dim=-3)
        return q, k, self.value(self.norm_value(x + actions)).unflatten(-1, (self.heads, -1))


class MixedTransformer(nn.Module):
    """AttnMVP's stack over embedded items; initialised like `transformer.Transformer`."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.position = nn.Embedding(config.max_positions, config.d_model)
        self.drop = Dropout(config.dropout)
        self.blocks = nn.ModuleList(MixedBlock(config, layer) for layer in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model)
        initialise_stack(self, config)

    def forward(self, items: Tensor, actions: Tensor, packing: Packing) -> Tensor:
        """Items [N, D] and actions [N, D] in the packing's order -> states [N, D].

        Raises:
            ValueError: a history is longer than `max_positions`.
        """
        check_length(packing, self.config)
        return self.contextualise(items, actions, packing.positions, self.past_attention(packing))

    def contextualise(
        self, items: Tensor, actions: Tensor, positions: Tensor, attention: Attention
    ) -> Tensor:
        """Items and actions [N, D] at positions [N] -> states [N, D]."""
        x = self.drop(items + self.position(positions))
        for block in self.blocks:
            x = block(x, actions, attention)
        return cast(Tensor, self.norm(x))

    def candidate_states(self, items: Tensor, actions: Tensor, candidates: Tensor) -> Tensor:
        """States of candidates [C, D], each alone after a history's items and actions [P, D]: [C, D]."""
        packing = Packing.dense(1, len(items), items.device)
        attention, past = self.past_attention(packing), []
        x = items + self.position(packing.positions)
        for module in self.blocks:
            block = cast(MixedBlock, module)
            q, k, v = block.project(x, actions)
            past.append(block.null.before(k, v))
            if block is not self.blocks[-1]:  # nobody reads the last block's output
                x = block.finish(x, attention.attend(block.layer, q, k, v))
        positions = packing.positions.new_full((len(candidates),), len(items))
        nothing = torch.zeros_like(candidates)
        return self.contextualise(candidates, nothing, positions, CandidateAttention(past))

    def past_attention(self, packing: Packing) -> PastAttention:
        """Attention to the strict past with this stack's null slots."""
        return PastAttention(packing, [cast(MixedBlock, block).null for block in self.blocks])
