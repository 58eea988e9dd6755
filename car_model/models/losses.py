"""Cross-entropy of a linear head, in blocks, so that all logits never exist at once.

The gradient of softmax cross-entropy is known in closed form (softmax minus one-hot), so each block's is
computed while its logits are still in cache, in memory of a block instead of rows x classes. A block is some
rows and all classes where those fit; with more classes it is rows x a tile of classes, whose logits are
computed twice: once for the softmax's mass, once for the gradient.
Under `torch.autocast` logits and products are of the autocast type, as for any linear layer, while the
softmax's mass, the loss and the sums of gradients keep at least float32.

Shape letters: N rows, C classes, D width, b rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK_BYTES = 3 << 20  # of a block's logits: they stay in a CPU's cache
GPU_BLOCK_BYTES = 256 << 20  # a GPU wants large products
BLOCK_ROWS = 32  # of all classes, at least: fewer make slow products
TILE_ROWS = 512  # where classes are tiled: the more, the fewer times all weights are read


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        parts, kind = (states, weight, bias), states.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        with torch.autocast(kind, enabled=False):
            loss, *grads = _loss_and_gradients(states.to(dtype), weight.to(dtype), bias.to(dtype), targets)
        ctx.save_for_backward(*(grad.to(part.dtype) for grad, part in zip(grads, parts, strict=True)))
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        d_states, d_weight, d_bias = ctx.saved_tensors
        return d_states * grads[0], d_weight * grads[0], d_bias * grads[0], None


def _loss_and_gradients(
    states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean loss, and its gradients of states, weight and bias, in float32 at least."""
    rows, (size, tile) = len(states), block_sizes(states, len(weight))
    wide = torch.promote_types(states.dtype, torch.float32)
    d_states, d_weight, d_bias = (torch.zeros_like(x, dtype=wide) for x in (states, weight, bias))
    own = weight[targets]  # [N, D] the one-hot part needs no blocks
    total = -(torch.linalg.vecdot(states.to(wide), own.to(wide)) + bias[targets].to(wide)).sum()
    for begin in range(0, rows, size):
        block = states[begin : begin + size]
        shift, log_mass, shares = _softmax(block, weight, bias, tile)
        total += log_mass.sum()
        scale = (shift.to(wide) - log_mass).exp() / rows  # [b, 1] applied to rows of D entries, not of C
        scaled, row = (block * scale).to(block.dtype), scale.T.to(block.dtype)
        for start, share in shares:
            stop = start + share.shape[1]
            d_states[begin : begin + size] += (share @ weight[start:stop]).to(wide) * scale
            d_weight[start:stop] += share.T @ scaled
            d_bias[start:stop] += (row @ share)[0]
    d_states -= own.to(wide) / rows
    d_weight.index_add_(0, targets, states.to(wide), alpha=-1 / rows)
    d_bias -= targets.bincount(minlength=len(weight)).to(wide) / rows
    return total / rows, d_states, d_weight, d_bias


def block_sizes(states: Tensor, classes: int) -> tuple[int, int]:
    """Rows and classes of a block: all classes where enough rows of them fit, else a tile of them."""
    fit = (BLOCK_BYTES if states.device.type == "cpu" else GPU_BLOCK_BYTES) // states.element_size()
    if fit >= BLOCK_ROWS * classes:
        return fit // classes, classes
    rows = min(len(states), TILE_ROWS)
    return rows, min(max(fit // rows, 1), classes)


def _softmax(
    block: Tensor, weight: Tensor, bias: Tensor, tile: int
) -> tuple[Tensor, Tensor, Iterator[tuple[int, Tensor]]]:
    """A shift [b, 1], log of the exponentials' sum [b, 1], and by tile: first class, exp(logits - shift)."""

    def logits(start: int) -> Tensor:
        return torch.addmm(bias[start : start + tile], block, weight[start : start + tile].T)

    wide, starts = torch.promote_types(block.dtype, torch.float32), range(0, len(weight), tile)
    top = block.new_full((len(block), 1), torch.finfo(block.dtype).min)  # finite: a tile may be all barred
    mass = torch.zeros_like(top, dtype=wide)
    for start in starts:
        share = logits(start)
        old, top = top, torch.maximum(top, share.amax(dim=1, keepdim=True))
        part = share.sub_(top).exp_().sum(dim=1, keepdim=True).to(wide)
        mass = part if start == 0 else mass * (old - top).to(wide).exp() + part
    log_mass = top.to(wide) + mass.log()
    if len(starts) == 1:
        return top, log_mass, iter([(0, share)])
    shift = log_mass.to(block.dtype)
    return shift, log_mass, ((start, logits(start).sub_(shift).exp_()) for start in starts)


def linear_cross_entropy(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of a linear classifier; gradients flow to states, weight and bias.

    Args:
        states: [N, D]; weight: [C, D]; bias: [C], -inf for a class that can't be had; targets: [N] classes.
    """
    return _LinearCrossEntropy.apply(states, weight, bias, targets)


def label_smoothing_term(
    states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, share: float
) -> Tensor:
    """What label smoothing adds to the mean cross-entropy, without any logits but the targets'.

    A share of every target is spread evenly over all real classes (Szegedy et al. 2016, arXiv 1512.00567,
    section 7): share * (the target's logit - the mean logit). Class 0, padding, is none of them.

    Args:
        states: [N, D]; weight: [C, D]; bias: [C]; targets: [N] classes; share: 0 to 1.
    """
    with torch.autocast(states.device.type, enabled=False):  # few products, so exact ones
        states = states.to(weight.dtype)
        target_logits = torch.linalg.vecdot(states, weight[targets]) + bias[targets]  # [N]
        mean_logits = states @ weight[1:].mean(dim=0) + bias[1:].mean()  # [N]
        return share * (target_logits - mean_logits).mean()


def mask_padding(bias: Tensor) -> Tensor:
    """The bias of an item head [I + 1] with -inf for UID 0, which is padding and never predicted."""
    return bias.index_fill(0, torch.zeros(1, dtype=torch.long, device=bias.device), -torch.inf)


class Negatives:
    """A training step's negatives: S = `size` draws with replacement, by the root of an item's interactions.

    `counts` are training interactions by UID [I + 1]; items without any are drawn as if they had one.
    """

    def __init__(self, counts: Tensor, size: int) -> None:
        chance = counts.double().clamp(min=1).pow(0.5)
        chance[0] = 0  # padding
        seen = counts.double().index_fill(0, torch.tensor(0), 0)
        self.size = size
        self._ends = chance.cumsum(0) / chance.sum()
        self._drawn = size * chance / chance.sum()  # [I + 1] expected draws
        self._share = seen / seen.sum().clamp(min=1)  # [I + 1] of all targets

    def draw(self) -> Tensor:
        """UIDs [S]; torch's own seed decides."""
        draws = torch.rand(self.size, dtype=torch.float64)
        return torch.searchsorted(self._ends, draws).clamp(1, len(self._ends) - 1)

    def choose(self, targets: int) -> Tensor:
        """Of a step's targets and draws [N + S], the indices of its negatives [C]."""
        target_rows = torch.arange(targets) if targets <= self.size else torch.randperm(targets)[: self.size]
        return torch.cat([target_rows, torch.arange(targets, targets + self.size)])

    def log_q(self, targets: int) -> Tensor:
        """log of how often an item is expected among the negatives of a step with so many targets [I + 1]."""
        return (self._drawn + min(targets, self.size) * self._share).log()


def sampled_cross_entropy(
    target_logits: Tensor, negative_logits: Tensor, targets: Tensor, negatives: Tensor, log_q: Tensor
) -> Tensor:
    """Mean cross-entropy of targets against themselves and the negatives.

    Args:
        target_logits, targets: [N] of UIDs; negative_logits: [N, C]; negatives: [C] UIDs.
        log_q: [I + 1] log of how often an item is expected among the negatives.
    """
    corrected = negative_logits - log_q[negatives].to(negative_logits.dtype)
    own_negatives = targets[:, None] == negatives[None]  # [N, C] a target is no negative of itself
    logits = torch.cat([target_logits[:, None], corrected.masked_fill(own_negatives, -torch.inf)], dim=1)
    return F.cross_entropy(logits, torch.zeros_like(targets))
