"""Rotary positions (RoPE, Su et al. 2021, arXiv 2104.09864): queries and keys are turned by position.

A product of a query and a key then depends on how far apart they are, not on where; nothing is learned.

Shape letters: P positions, H heads, E features of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

BASE = 10_000  # the slowest pair of features turns once in 2 pi * BASE positions


def turned(x: Tensor, at: Tensor) -> Tensor:
    """Features turned by position, in pairs (e, e + E/2).

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
