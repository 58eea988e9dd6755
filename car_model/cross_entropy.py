"""Cross-entropy of a linear head, in blocks of rows, so that all logits never exist at once.

The gradient of softmax cross-entropy is known in closed form (softmax minus one-hot), so each block's is
computed while its logits are still in cache, in memory of block x classes instead of rows x classes.
Under `torch.autocast` logits and products are of the autocast type, as for any linear layer, while the
softmax's mass, the loss and the sums of gradients keep at least float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BLOCK_BYTES = 3 << 20  # of a block's logits: they stay in cache
BLOCK_ROWS = 32  # at least, however many the classes: fewer make slow products


class _LinearCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of `states @ weight.T + bias` against targets."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        """states [N, D], weight [C, D], bias [C], targets [N] -> scalar."""
        kind = states.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        with torch.autocast(kind, enabled=False):
            loss, *grads = _blockwise(states.to(dtype), weight.to(dtype), bias.to(dtype), targets)
        ctx.save_for_backward(
            *(grad.to(like.dtype) for grad, like in zip(grads, (states, weight, bias), strict=True))
        )
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Scale the gradients found on the way forward."""
        d_states, d_weight, d_bias = ctx.saved_tensors
        return d_states * grads[0], d_weight * grads[0], d_bias * grads[0], None


def _blockwise(
    states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean loss, and its gradients of states, weight and bias, in float32 at least."""
    rows, classes = len(states), len(weight)
    wide = torch.promote_types(states.dtype, torch.float32)
    size = max(BLOCK_ROWS, BLOCK_BYTES // (classes * states.element_size()))
    d_states, d_weight, d_bias = (torch.zeros_like(x, dtype=wide) for x in (states, weight, bias))
    total = torch.zeros((), dtype=torch.float64, device=states.device)
    columns = weight.T.contiguous()  # [D, C]
    for at in range(0, rows, size):
        block, wanted = states[at : at + size], targets[at : at + size]
        share = torch.addmm(bias, block, columns)  # [b, C] logits
        share.sub_(share.amax(dim=1, keepdim=True))
        picked = share.gather(1, wanted[:, None]).to(wide)
        mass = share.exp_().sum(dim=1, keepdim=True).to(wide)
        total += (mass.log() - picked).sum()
        scale = 1 / (mass * rows)  # applied to rows of D entries, not of C
        d_states[at : at + size] = (share @ weight).to(wide) * scale - weight[wanted].to(wide) / rows
        scale = scale.to(share.dtype)
        d_weight += share.T @ (block * scale)
        d_bias += (scale.T @ share)[0]
    d_weight.index_add_(0, targets, states.to(wide), alpha=-1 / rows)  # the one-hot part of all blocks
    d_bias -= targets.bincount(minlength=classes).to(wide) / rows
    return (total / rows).to(wide), d_states, d_weight, d_bias


def linear_cross_entropy(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of a linear classifier.

    Args:
        states: [N, D]; weight: [C, D]; bias: [C], -inf for a class that can't be had; targets: [N] classes.

    Returns:
        a scalar; gradients flow to states, weight and bias.
    """
    return _LinearCrossEntropy.apply(states, weight, bias, targets)
