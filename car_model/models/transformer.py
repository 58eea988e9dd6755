"""GPT-2-style causal transformer: pre-norm blocks, learned or rotary positions, one fused attention kernel.

It reads packed tokens (`car_model.models.packing`): one row of all histories' tokens, no padding.

Shape letters: B batch, T positions, N packed tokens, D width, H heads.
Source: Radford et al. 2019 (GPT-2): layer norm before each sub-block, GELU, residual projections
initialised smaller by 1/sqrt(2 * layers).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from car_model.models.packing import Packing

BASE = 10_000  # the slowest pair of features turns once in 2 pi * BASE positions


def apply_rotary(x: Tensor, at: Tensor) -> Tensor:
    """Features apply_rotary by position, in pairs (e, e + E/2).

    Args:
        x: [..., P, H, E], E even.
        at: positions [..., P].

    Returns:
        [..., P, H, E] of x's type; lengths and products at equal distance stay.
    """
    half = x.shape[-1] // 2
    rates = BASE ** (-torch.arange(half, device=x.device) / half)  # [E/2]
    angles = (at.unsqueeze(-1) * rates).unsqueeze(-2)  # [..., P, 1, E/2]
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


PositionEncoding = Literal["learned", "rotary"]


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of the backbone."""

    d_model: int = 64
    n_layers: int = 2
    n_heads: int = 2
    max_positions: int = 50  # the longest sequence it can read
    dropout: float = 0.2
    position_encoding: PositionEncoding = "learned"

    def __post_init__(self) -> None:
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} must be a multiple of n_heads {self.n_heads}.")
        if self.position_encoding == "rotary" and self.d_model // self.n_heads % 2:
            raise ValueError(
                f"rotary positions rotate pairs of features, so each head needs an even width: d_model "
                f"{self.d_model} / n_heads {self.n_heads} is odd."
            )


class Dropout(nn.Dropout):
    """Dropout that draws uniform numbers on a CPU: four times faster there than PyTorch's Bernoulli."""

    def forward(self, x: Tensor) -> Tensor:  # any shape
        if x.device.type != "cpu" or not self.training or self.p == 0:
            return super().forward(x)
        return x * torch.rand_like(x, dtype=torch.float32).ge_(self.p).div_(1 - self.p)


class Block(nn.Module):
    """Attention and MLP, each behind a layer norm and added to the residual stream."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.n_heads
        self.rotary = config.position_encoding == "rotary"
        self.norm_attention = nn.LayerNorm(config.d_model)
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model)
        self.attention_out = nn.Linear(config.d_model, config.d_model)
        self.norm_mlp = nn.LayerNorm(config.d_model)
        self.mlp_in = nn.Linear(config.d_model, 4 * config.d_model)
        self.mlp_out = nn.Linear(4 * config.d_model, config.d_model)
        self.drop = Dropout(config.dropout)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:  # [N, D] -> [N, D]
        x = x + self.drop(self.attention_out(self._attend(self.norm_attention(x), packing)))
        return x + self.drop(self.mlp_out(F.gelu(self.mlp_in(self.norm_mlp(x)))))

    def _attend(self, x: Tensor, packing: Packing) -> Tensor:
        pieces = packing.segments(self.qkv(x))  # [R, P, 3 * D] each
        return packing.join_segments([attention(self.placed(piece)).flatten(2) for piece in pieces])

    def placed(self, qkv: Tensor, at: Tensor | None = None) -> Tensor:
        """Queries, keys and values by head, apply_rotary by position where positions are rotary.

        Args:
            qkv: [..., P, 3 * D].
            at: positions [..., P]; from 0 on by default.

        Returns:
            [..., P, 3, H, D/H]
        """
        parts = qkv.unflatten(-1, (3, self.heads, -1))
        if not self.rotary:
            return parts
        at = torch.arange(qkv.shape[-2], device=qkv.device) if at is None else at
        both = parts[..., :2, :, :].flatten(-3, -2)  # [..., P, 2 * H, D/H] queries and keys
        return torch.cat([apply_rotary(both, at).unflatten(-2, (2, -1)), parts[..., 2:, :, :]], dim=-3)


def attention(qkv: Tensor) -> Tensor:
    """Causal attention: queries, keys and values [B, T, 3, H, D/H] -> [B, T, H, D/H].

    No dropout on the attention weights: it bars the fused kernel. On a CPU always in float32, since the
    backward pass of the kernel for bfloat16 is up to twenty times slower there.
    """
    kind, dtype = qkv.device.type, qkv.dtype
    wide = torch.promote_types(dtype, torch.float32) if kind == "cpu" else dtype
    with torch.autocast(kind, enabled=False):
        q, k, v = qkv.to(wide).permute(2, 0, 3, 1, 4)  # [B, H, T, D/H] each
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).to(dtype)


class Transformer(nn.Module):
    """Causal stack over already embedded positions."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.position = (
            nn.Embedding(config.max_positions, config.d_model)
            if config.position_encoding == "learned"
            else None
        )
        self.drop = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
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
        return self.packed(x.flatten(0, 1), Packing.dense(batch, length, x.device)).unflatten(
            0, (batch, length)
        )

    def placed(self, x: Tensor, positions: Tensor) -> Tensor:
        """Embeddings [..., D] told their positions [...], where these are learned."""
        return x if self.position is None else x + self.position(positions)

    def packed(self, x: Tensor, packing: Packing) -> Tensor:
        """Contextualise packed embeddings: x [N, D] -> [N, D].

        Raises:
            ValueError: a history is longer than `max_positions`.
        """
        longest = max(length for _, length in packing.runs)
        if longest > self.config.max_positions:
            raise ValueError(
                f"sequence of {longest} positions exceeds the model's {self.config.max_positions}."
            )
        x = self.drop(self.placed(x, packing.positions))
        for block in self.blocks:
            x = block(x, packing)
        return self.norm(x)


def initialise(module: nn.Module) -> None:
    """GPT-2 initialisation: normal(0, 0.02) weights, zero biases."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
