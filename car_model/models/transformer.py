"""GPT-2-style causal transformer: pre-norm blocks, learned or rotary positions, one fused attention kernel.

A block's `forward` is the only place of its arithmetic. How its queries find keys and values is an
`Attention` that is passed in: `packed_attention` for whole histories without padding, `KVCache.attend`
(`models/kv_cache.py`) for tokens that continue histories read before.

Shape letters: N packed tokens, B histories, T positions, D width, H heads, E = D / H.
Source: Radford et al. 2019 (GPT-2): layer norm before each sub-block, GELU, residual projections initialised
smaller by 1/sqrt(2 * layers). Rotary positions: Su et al. 2021 (RoFormer, arXiv 2104.09864).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from car_model.models.packing import Packing

PositionEncoding = Literal["learned", "rotary"]
ROTARY_BASE = 10_000  # the slowest pair of features turns once in 2 pi * ROTARY_BASE positions

# Mixed values for a layer's number and q, k, v [..., H, E] of its tokens: [..., H, E]
Attention = Callable[[int, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes that all sequence models share by name, so that all are tuned alike."""

    d_model: int = 64
    n_layers: int = 2
    n_heads: int = 2
    max_history: int = 50  # items read
    dropout: float = 0.2


def check_heads(d_model: int, n_heads: int, position_encoding: PositionEncoding = "learned") -> None:
    """Raise ValueError if a width can't be divided into so many heads."""
    if d_model % n_heads:
        raise ValueError(f"d_model {d_model} must be a multiple of n_heads {n_heads}.")
    if position_encoding == "rotary" and d_model // n_heads % 2:
        raise ValueError(
            "rotary positions rotate pairs of features, so each head needs an even width: d_model "
            f"{d_model} / n_heads {n_heads} is odd."
        )


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention within each row: q, k, v [R, P, H, E] -> [R, P, H, E].

    No dropout on the attention weights, which would rule out the fused kernel. On a CPU always in float32,
    because the backward pass of the kernel for bfloat16 is up to twenty times slower there.
    """
    device_type, dtype = q.device.type, q.dtype
    wide = torch.promote_types(dtype, torch.float32) if device_type == "cpu" else dtype
    with torch.autocast(device_type, enabled=False):
        q, k, v = (x.to(wide).transpose(1, 2) for x in (q, k, v))  # [R, H, P, E]
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).to(dtype)


def packed_attention(packing: Packing) -> Attention:
    """Causal attention within each packed history: q, k, v are [N, H, E]."""

    def attend(layer: int, *qkv: Tensor) -> Tensor:
        segments = zip(*map(packing.segments, qkv), strict=True)  # of [R, P, H, E]
        return packing.join_segments([causal_attention(*segment) for segment in segments])

    return attend


def rotary_angles(positions: Tensor, head_width: int) -> Tensor:
    """Angles by position and pair of features: positions [...] -> [..., E / 2]."""
    half = head_width // 2
    rates = ROTARY_BASE ** (-torch.arange(half, device=positions.device) / half)
    return positions.unsqueeze(-1) * rates


def apply_rotary(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate the pairs of features (e, e + E/2): x [..., H, E], angles [..., E / 2] -> [..., H, E].

    Lengths stay, and so do products at equal distance of positions.
    """
    angles = angles.unsqueeze(-2)  # [..., 1, E/2]: the same for all heads
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class Dropout(nn.Dropout):
    """Dropout that draws uniform numbers on a CPU: four times faster there than PyTorch's Bernoulli."""

    def forward(self, x: Tensor) -> Tensor:  # any shape
        if x.device.type != "cpu" or not self.training or self.p == 0:
            return super().forward(x)
        return x * torch.rand_like(x, dtype=torch.float32).ge_(self.p).div_(1 - self.p)


class Block(nn.Module):
    """Attention and MLP, each behind a layer norm and added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        width = config.d_model
        self.layer, self.heads = layer, config.n_heads
        self.norm_attention = nn.LayerNorm(width)
        self.add_projections(width)
        self.attention_out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)
        self.drop = Dropout(config.dropout)

    def add_projections(self, width: int) -> None:
        """Create the layers of `project`."""
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor, context: Tensor | None, attention: Attention) -> Tensor:
        """Residual stream x [..., D] -> [..., D]; `context` is what `project` reads besides."""
        return self.finish(x, attention(self.layer, *self.project(x, context)))

    def project(self, x: Tensor, angles: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of x [..., D], each [..., H, E]; angles [..., E / 2] if rotary."""
        q, k, v = self.qkv(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1)).unbind(dim=-3)
        if angles is not None:
            q, k = apply_rotary(q, angles), apply_rotary(k, angles)
        return q, k, v

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Residual stream x [..., D] and mixed values [..., H, E] -> residual stream [..., D]."""
        x = x + self.drop(self.attention_out(mixed.flatten(-2)))
        return cast(Tensor, x + self.drop(self.mlp_out(F.gelu(self.mlp_in(self.norm_mlp(x))))))


class Transformer(nn.Module):
    """Causal stack over already embedded tokens, which reads up to `max_positions`."""

    block: type[Block] = Block

    def __init__(
        self, config: ModelConfig, max_positions: int, position_encoding: PositionEncoding = "learned"
    ) -> None:
        super().__init__()
        check_heads(config.d_model, config.n_heads, position_encoding)
        self.config, self.max_positions = config, max_positions
        learned = position_encoding == "learned"
        self.position = nn.Embedding(max_positions, config.d_model) if learned else None
        self.drop = Dropout(config.dropout)
        self.blocks = nn.ModuleList(self.block(config, layer) for layer in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model)
        self.apply(initialise)
        for name, weight in self.named_parameters():
            if name.endswith(("attention_out.weight", "mlp_out.weight")):
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * config.n_layers))

    def forward(self, x: Tensor) -> Tensor:
        """Contextualise embeddings x [B, T, D] -> [B, T, D]; T must not exceed `max_positions`.

        Histories may be right-padded: under a causal mask no real position ever sees padding.
        """
        batch, length, _ = x.shape
        packing = Packing.dense(batch, length, x.device)
        return self.packed(x.flatten(0, 1), packing).unflatten(0, (batch, length))

    def packed(self, x: Tensor, packing: Packing) -> Tensor:
        """Contextualise packed embeddings: x [N, D] -> [N, D]."""
        self.check_length(packing)
        return self.contextualise(x, packing.positions, packed_attention(packing))

    def contextualise(
        self, x: Tensor, positions: Tensor, attention: Attention, context: Tensor | None = None
    ) -> Tensor:
        """Embeddings x [..., D] at positions [...] -> states [..., D]; blocks read angles or a context."""
        x, angles = self.embed_positions(x, positions)
        for block in self.blocks:
            x = block(x, angles if context is None else context, attention)
        return cast(Tensor, self.norm(x))

    def embed_positions(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the first block reads, and the angles if positions are rotary."""
        if self.position is not None:
            return self.drop(x + self.position(positions)), None
        return self.drop(x), rotary_angles(positions, self.config.d_model // self.config.n_heads)

    def check_length(self, packing: Packing) -> None:
        """Raise ValueError if a history is longer than `max_positions`."""
        longest = max(length for _, length in packing.runs)
        if longest > self.max_positions:
            raise ValueError(f"sequence of {longest} positions exceeds the model's {self.max_positions}.")


def initialise(module: nn.Module) -> None:
    """GPT-2 initialisation: normal(0, 0.02) weights, zero biases."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
