"""P(liked) of many candidates as the next item of one history, with the history read once.

Each candidate gets what `ActionRanker.probabilities` says of it at the end of the history; candidates never
see each other. In AttnMVP a candidate is a query alone: it attends to the null slot and the whole history,
unmasked.

Shape letters: P items of the history, C candidates, M tasks, D width, H heads, E = D / H.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from car_model.kv_cache import KVCache
from car_model.packing import Packing
from car_model.ranking import ActionRanker
from car_model.ranking_blocks import MixedBlock, MixedTransformer, NullSlot, PastActions
from car_model.transformer import Transformer

TABLES = ("uid", "code")  # rows that are read, not multiplied


def precise(model: ActionRanker) -> ActionRanker:
    """The model computing in double precision, so that threads and processors change no printed digit.

    Its tables of items stay in single precision and are shared with the model given.
    """
    shared = {id(getattr(model, name)): getattr(model, name) for name in (*TABLES, "sids")}
    exact = copy.deepcopy(model, shared).eval()
    for name, part in exact.named_children():
        if name not in TABLES:
            part.double()
    return exact


@torch.inference_mode()
def liked_next(
    model: ActionRanker, uids: Tensor, actions: Tensor, candidates: Tensor, task: int = 0
) -> Tensor:
    """P(the user would like it) of each candidate, were it the next item.

    Args:
        model: in evaluation mode.
        uids: [P] the history, oldest first; it may be empty. Only the latest that the model reads count.
        actions: [P, M] classes, 0 where unknown.
        candidates: [C] UIDs.

    Returns:
        [C]
    """
    reach = model.config.history - 1
    uids, actions = (uids[-reach:], actions[-reach:]) if reach else (uids[:0], actions[:0])
    if not len(uids):
        nothing = actions.new_zeros(len(candidates), 1, len(model.config.tasks))
        return model.probabilities(candidates.unsqueeze(1), nothing, task)[:, 0]
    kind = cast(Tensor, model.action[0].weight).dtype
    items, asked = (model.embed_items(x).to(kind) for x in (uids, candidates))
    acted = model.embed_actions(actions)
    if model.mixed is not None:
        states = _mixed(model.mixed, items, acted, asked)
    elif model.late is not None:
        transformer = cast(Transformer, model.transformer)
        h = transformer(items.unsqueeze(0))[0]
        own = _after(transformer, items, asked)
        states = torch.cat([own, _pooled(model.late, h, acted, own)], dim=-1)
    else:
        tokens = torch.stack([items, acted], dim=1).flatten(0, 1)
        states = _after(cast(Transformer, model.transformer), tokens, asked)
    return model.liked(model.by_task(model.head(states))[task], task)


def _after(transformer: Transformer, tokens: Tensor, asked: Tensor) -> Tensor:
    """States of candidates [C, D], each alone behind tokens [P, D]: [C, D]."""
    cache = KVCache(transformer, tokens.unsqueeze(0), torch.tensor([len(tokens)], device=tokens.device))
    cache.reorder(torch.zeros(1, len(asked), dtype=torch.long, device=tokens.device))
    return cache.step(asked.unsqueeze(0))[0]


def _pooled(late: PastActions, h: Tensor, acted: Tensor, own: Tensor) -> Tensor:
    """AttnLFA's pool for candidates' states own [C, D] over a history's states, actions [P, D]: [C, D]."""
    q, k = late.qk(own).chunk(2, dim=-1)[0], late.qk(h).chunk(2, dim=-1)[1]
    return cast(Tensor, late.out(_attend(late.null, q, k, late.values(acted), late.heads)))


def _mixed(mixed: MixedTransformer, items: Tensor, acted: Tensor, asked: Tensor) -> Tensor:
    """AttnMVP's states of candidates [C, D] after a history's items and actions [P, D]: [C, D]."""
    length = len(items)
    packing = Packing.dense(1, length, items.device)
    x, own = items + mixed.position.weight[:length], asked + mixed.position.weight[length]
    for layer in mixed.blocks:
        block = cast(MixedBlock, layer)
        q, k, v = block.project(x, acted)
        queries = block.project(own, torch.zeros_like(own))[0]
        own = block.finish(own, _attend(block.null, queries, k, v, block.heads))
        if layer is not mixed.blocks[-1]:
            x = block.finish(x, block.null.attend(q, k, v, packing, block.heads))
    return cast(Tensor, mixed.norm(own))


def _attend(null: NullSlot, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention of q [C, D] to the null slot and all of k, v [P, D]: [C, D]."""
    keys, values = torch.cat([null.key[None], k]), torch.cat([null.value[None], v])
    parts = (x.unflatten(-1, (heads, -1)).transpose(0, 1) for x in (q, keys, values))  # [H, C or P + 1, E]
    return F.scaled_dot_product_attention(*parts).transpose(0, 1).flatten(1)
