"""Attention to the strict past, of which AttnLFA and AttnMVP are made (formulas: `action_ranker/model.py`).

Shape letters: N packed items, D width, H heads, E = D / H, R histories of a run, P its length.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from car_model.models.packing import Packing
from car_model.models.transformer import Dropout, TransformerConfig, initialise


class NullSlot(nn.Module):
    """A learned key and value before the first item: what is attended to where the past says nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.key = nn.Parameter(torch.zeros(width))
        self.value = nn.Parameter(torch.zeros(width))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, packing: Packing, heads: int) -> Tensor:
        """Mix the values of the strict past: q, k, v [N, D] -> [N, D].

        Keys and values of a run move on by one behind the null slot, so that plain causal attention at item n
        sees the null slot and items 1..n-1: the fused kernel, no mask.
        """
        mixed = []
        for queries, keys, values in zip(*map(packing.segments, (q, k, v)), strict=True):
            past = [
                torch.cat([null.to(x.dtype).expand(len(x), 1, -1), x[:, :-1]], dim=1)
                for null, x in ((self.key, keys), (self.value, values))
            ]
            mixed.append(causal(queries, past[0], past[1], heads))
        return packing.join_segments(mixed)


def causal(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Causal attention of heads: [R, P, D] each -> [R, P, D]; float32 on a CPU, as in `transformer`."""
    kind, dtype = q.device.type, q.dtype
    wide = torch.promote_types(dtype, torch.float32) if kind == "cpu" else dtype
    with torch.autocast(kind, enabled=False):
        q, k, v = (x.to(wide).unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # [R, H, P, E]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return mixed.transpose(1, 2).flatten(2).to(dtype)


class PastActions(nn.Module):
    """AttnLFA's pooling: past actions, weighted by how like their items are to the one asked about."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qk = nn.Linear(width, 2 * width)
        self.norm_action = nn.LayerNorm(width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.null = NullSlot(width)
        self.apply(initialise)

    def forward(self, h: Tensor, actions: Tensor, packing: Packing) -> Tensor:
        """States of items h [N, D] and their actions [N, D] -> pooled actions of the strict past [N, D]."""
        q, k = self.qk(h).chunk(2, dim=-1)
        return self.out(self.null.attend(q, k, self.values(actions), packing, self.heads))

    def values(self, actions: Tensor) -> Tensor:
        """What an action is worth in the pool: [N, D] -> [N, D]."""
        return self.value(self.norm_action(actions))


class MixedBlock(nn.Module):
    """AttnMVP's block: a pre-norm block whose values mix items with actions and come from the strict past."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.n_heads
        self.norm_attention = nn.LayerNorm(config.d_model)
        self.norm_value = nn.LayerNorm(config.d_model)
        self.qk = nn.Linear(config.d_model, 2 * config.d_model)
        self.value = nn.Linear(config.d_model, config.d_model)
        self.null = NullSlot(config.d_model)
        self.attention_out = nn.Linear(config.d_model, config.d_model)
        self.norm_mlp = nn.LayerNorm(config.d_model)
        self.mlp_in = nn.Linear(config.d_model, 4 * config.d_model)
        self.mlp_out = nn.Linear(4 * config.d_model, config.d_model)
        self.drop = Dropout(config.dropout)

    def forward(self, x: Tensor, actions: Tensor, packing: Packing) -> Tensor:
        """Item stream x [N, D] and actions [N, D] -> item stream [N, D]."""
        q, k, v = self.project(x, actions)
        return self.finish(x, self.null.attend(q, k, v, packing, self.heads))

    def project(self, x: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys of the item stream, values of items and actions: [N, D] each."""
        q, k = self.qk(self.norm_attention(x)).chunk(2, dim=-1)
        return q, k, self.value(self.norm_value(x + actions))

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The rest of the block after attention mixed the values: both [N, D] -> [N, D]."""
        x = x + self.drop(self.attention_out(mixed))
        return x + self.drop(self.mlp_out(F.gelu(self.mlp_in(self.norm_mlp(x)))))


class MixedTransformer(nn.Module):
    """AttnMVP's stack over embedded items; initialised as `transformer.Transformer`."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.position = nn.Embedding(config.max_positions, config.d_model)
        self.drop = Dropout(config.dropout)
        self.blocks = nn.ModuleList(MixedBlock(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model)
        self.apply(initialise)
        for name, weight in self.named_parameters():
            if name.endswith(("attention_out.weight", "mlp_out.weight")):
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * config.n_layers))

    def forward(self, items: Tensor, actions: Tensor, packing: Packing) -> Tensor:
        """Items [N, D] and actions [N, D] in the packing's order -> states [N, D].

        Raises:
            ValueError: a history is longer than `max_positions`.
        """
        longest = max(length for _, length in packing.runs)
        if longest > self.config.max_positions:
            raise ValueError(f"sequence of {longest} items exceeds the model's {self.config.max_positions}.")
        x = self.drop(items + self.position(packing.positions))
        for block in self.blocks:
            x = block(x, actions, packing)
        return cast(Tensor, self.norm(x))
