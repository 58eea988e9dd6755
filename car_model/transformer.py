"""GPT-2-style causal transformer: pre-norm blocks, learned positions, one fused attention kernel.

Shape letters: B batch, T positions, D width, H heads.
Source: Radford et al. 2019 (GPT-2): layer norm before each sub-block, GELU, residual projections
initialised smaller by 1/sqrt(2 * layers).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of the backbone; `positions` is the longest sequence it can read."""

    width: int = 64
    layers: int = 2
    heads: int = 2
    positions: int = 50
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}.")


class Block(nn.Module):
    """Attention and MLP, each behind a layer norm and added to the residual stream."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm_attention = nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.attention_out = nn.Linear(config.width, config.width)
        self.norm_mlp = nn.LayerNorm(config.width)
        self.mlp_in = nn.Linear(config.width, 4 * config.width)
        self.mlp_out = nn.Linear(4 * config.width, config.width)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, D] -> [B, T, D]
        x = x + self.drop(self.attention_out(self._attend(self.norm_attention(x))))
        return x + self.drop(self.mlp_out(F.gelu(self.mlp_in(self.norm_mlp(x)))))

    def _attend(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        parts = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (part.view(shape).transpose(1, 2) for part in parts)  # [B, H, T, D/H]
        # No dropout on the attention weights: it bars the fused kernel.
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return mixed.transpose(1, 2).reshape(batch, length, width)


class Transformer(nn.Module):
    """Causal stack over already embedded positions.

    Histories are right-padded: under a causal mask no real position ever sees padding, so no
    padding mask is needed.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.position = nn.Embedding(config.positions, config.width)
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.apply(initialise)
        for name, weight in self.named_parameters():
            if name.endswith(("attention_out.weight", "mlp_out.weight")):
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * config.layers))

    def forward(self, x: Tensor) -> Tensor:
        """Contextualise embeddings x [B, T, D] -> [B, T, D]; T must not exceed `positions`."""
        length = x.shape[1]
        if length > self.config.positions:
            raise ValueError(f"sequence of {length} positions exceeds the model's {self.config.positions}.")
        x = self.drop(x + self.position.weight[:length])
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def initialise(module: nn.Module) -> None:
    """GPT-2 initialisation: normal(0, 0.02) weights, zero biases."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
