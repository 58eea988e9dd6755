"""Cross-entropy of a linear head, in blocks of rows, so that all logits never exist at once.

The gradient of softmax cross-entropy is known in closed form (softmax minus one-hot), so each block's is
computed while its logits are still in cache, in memory of block x classes instead of rows x classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BLOCK_LOGITS = 1 << 19  # 2 MiB of float32


class _LinearCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of `states @ weight.T + bias` against targets."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        """states [N, D], weight [C, D], bias [C], targets [N] -> scalar."""
        rows, classes = len(states), len(weight)
        size = max(1, BLOCK_LOGITS // classes)
        d_states, d_weight, d_bias = (
            torch.empty_like(states),
            torch.zeros_like(weight),
            torch.zeros_like(bias),
        )
        total = torch.zeros((), dtype=torch.float64, device=states.device)
        for at in range(0, rows, size):
            block, wanted = states[at : at + size], targets[at : at + size, None]
            logits = torch.addmm(bias, block, weight.T)  # [b, C]
            top = logits.amax(dim=1, keepdim=True)
            picked = logits.gather(1, wanted) - top
            grad = logits.sub_(top).exp_()
            mass = grad.sum(dim=1, keepdim=True)
            total += (mass.log() - picked).sum()
            grad.div_(mass).scatter_add_(1, wanted, torch.full_like(mass, -1.0))
            torch.mm(grad, weight, out=d_states[at : at + size])
            d_weight.addmm_(grad.T, block)
            d_bias += grad.sum(dim=0)
        ctx.save_for_backward(d_states / rows, d_weight / rows, d_bias / rows)
        return (total / rows).to(states.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Scale the gradients found on the way forward."""
        d_states, d_weight, d_bias = ctx.saved_tensors
        return d_states * grads[0], d_weight * grads[0], d_bias * grads[0], None


def linear_cross_entropy(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of a linear classifier.

    Args:
        states: [N, D]; weight: [C, D]; bias: [C], -inf for a class that can't be had; targets: [N] classes.

    Returns:
        a scalar; gradients flow to states, weight and bias.
    """
    return _LinearCrossEntropy.apply(states, weight, bias, targets)
