"""Beam search over the tokens of the next item, held to real items; all rows and beams at once.

The score of an item is the joint log-probability of its tokens. Tokens that lead to no item are left out
but keep their share of the probability, so scores need no knowledge of the trie and do not depend on it.

Shape letters: B batch, T chunks, W beams, M children, D width, C classes, I items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from car_model.kv_cache import KVCache

if TYPE_CHECKING:
    from car_model.autoregressive import AutoRegressive

BLOCK_BYTES = 3 << 20  # of a block's logits: they stay in cache


@torch.no_grad()
def beam_search(
    model: AutoRegressive, uids: Tensor, width: int, exclude: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The likeliest next items.

    Args:
        uids: [B, T] histories, right-padded with 0, none empty.
        width: prefixes kept after each token.
        exclude: [B, X] UIDs that must not be found (0 for none), barred where items are reached.

    Returns:
        UIDs and log-probabilities [B, W'], best first; where fewer than W' were found, UID 0 with -inf.
        With a UID token W' is at most `width`; without, every item of a found SID is there and ties.

    Raises:
        ValueError: the width is not positive, or a history is longer than the model's.
    """
    if width < 1:
        raise ValueError(f"the beam's width is {width}; it must be at least 1.")
    trie, last = model.trie, model.config.slots - 1
    cache, x = _read(model, uids)
    nodes = torch.zeros(len(uids), 1, dtype=torch.long, device=uids.device)
    scores = torch.zeros(len(uids), 1, device=uids.device)
    for depth in range(model.config.slots):
        states = cache.step(x)  # [B, W, D]
        tokens, below, real = trie.below(depth, nodes)  # [B, W, M]
        gains = log_probabilities(states.flatten(0, 1), *model.head(depth), tokens.flatten(0, 1))
        if model.config.uid and depth == last:
            real = real & ~_barred(tokens, exclude, model.config.items)
        total = (scores.unsqueeze(-1) + gains.view(real.shape)).masked_fill(~real, -torch.inf).flatten(1)
        scores, at = total.topk(min(width, total.shape[1], trie.sizes[depth + 1]))
        tokens, nodes = tokens.flatten(1).gather(1, at), below.flatten(1).gather(1, at)
        if depth < last:
            cache.reorder(at // real.shape[2])
            x = model.embed_token(depth, tokens)
    if model.config.uid:
        return tokens.masked_fill(scores.isneginf(), 0), scores
    return _items(model, nodes, scores, exclude)


def _read(model: AutoRegressive, uids: Tensor) -> tuple[KVCache, Tensor]:
    """Histories but for their last token in a cache, and that token's embedding [B, 1, D]."""
    if uids.shape[1] > model.config.history:
        raise ValueError(
            f"a history of {uids.shape[1]} items exceeds the {model.config.history} the model reads."
        )
    x = model.embed(uids).flatten(1, 2)  # [B, T * slots, D]
    last = (uids != 0).sum(dim=1) * model.config.slots - 1
    return KVCache(model.transformer, x, last), x[torch.arange(len(x), device=x.device), last].unsqueeze(1)


def _items(
    model: AutoRegressive, nodes: Tensor, scores: Tensor, exclude: Tensor | None
) -> tuple[Tensor, Tensor]:
    """All items of whole SIDs: nodes, scores [B, W] -> UIDs, scores [B, W'], ties in the order of UIDs."""
    found, _, real = model.trie.below(model.config.levels, nodes)
    real = real & ~_barred(found, exclude, model.config.items)
    total = scores.unsqueeze(-1).masked_fill(~real, -torch.inf).flatten(1)  # [B, W * M]
    total, at = total.sort(dim=1, descending=True, stable=True)
    found = found.flatten(1).gather(1, at).masked_fill(total.isneginf(), 0)
    return found[:, : model.config.items], total[:, : model.config.items]


def _barred(uids: Tensor, exclude: Tensor | None, items: int) -> Tensor:
    """Which of uids [B, ...] a row excludes."""
    table = torch.zeros(len(uids), items + 1, dtype=torch.bool, device=uids.device)
    if exclude is not None:
        table.scatter_(1, exclude, True)
    return table.gather(1, uids.flatten(1)).view(uids.shape)


@torch.no_grad()
def log_probabilities(states: Tensor, weight: Tensor, bias: Tensor, wanted: Tensor) -> Tensor:
    """Log-softmax of a linear head at some classes, in blocks of rows.

    Args:
        states: [N, D]; weight: [C, D]; bias: [C]; wanted: [N, M] classes.

    Returns:
        [N, M]
    """
    size = max(1, BLOCK_BYTES // (4 * len(weight)))
    parts = []
    for rows, classes in zip(states.split(size), wanted.split(size), strict=True):
        logits = F.linear(rows, weight, bias).float()  # [b, C]
        logits = logits.sub_(logits.amax(dim=1, keepdim=True))
        picked = logits.gather(1, classes)
        parts.append(picked - logits.exp_().sum(dim=1, keepdim=True).log())
    return torch.cat(parts)
