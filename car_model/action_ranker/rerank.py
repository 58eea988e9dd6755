"""Ranking by action: CAR's top candidates in the order of relevance and of P(liked) together.

    score(i) = relevance(i) + weight * log P(liked | i, history)

relevance is what the Recommender ranks by: log P(next item is i) and what joins it. With weight 1 the score
is the log-probability that the next item is i *and* is liked. The weight is chosen on validation, and 0 is a
possible outcome. Only the `candidates` most relevant items are asked about; all others stay behind them in
their order.

Shape letters: N items, K candidates.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from car_model.action_ranker.attention import MixedBlock, MixedTransformer, NullSlot, PastActions
from car_model.action_ranker.model import ActionRanker
from car_model.metrics.actions import SMALLEST
from car_model.metrics.ranking import per_user, ranks_of
from car_model.models.kv_cache import KVCache
from car_model.models.packing import Packing
from car_model.models.transformer import Transformer

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
def predict_like(
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
    reach = model.config.max_history - 1
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


CANDIDATES = 100
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)


class ScoredHistory(NamedTuple):
    """One history and how relevant every item is after it.

    Attributes:
        scores: [N + 1]; -inf marks what must not be recommended.
        uids: [P] the history, oldest first; actions: [P, M] classes, 0 where unknown.
    """

    scores: Tensor
    uids: np.ndarray
    actions: np.ndarray


@dataclass(frozen=True)
class Reranker:
    """A ranker by action beside CAR.

    Attributes:
        model: in evaluation mode, over the same catalogue as CAR.
        weight: of log P(liked); candidates: how many items it is computed for.
    """

    model: ActionRanker
    weight: float
    candidates: int = CANDIDATES

    def scores(self, asked: ScoredHistory) -> Tensor:
        """The scores [N + 1] that rank by both; -inf stays -inf."""
        return combined(asked.scores, *self.chances(asked), self.weight)

    def reordered(
        self, scores: Tensor, uids: Tensor, history: np.ndarray, actions: np.ndarray
    ) -> tuple[Tensor, dict[int, float]]:
        """Candidates' scores by both, and P(liked) by UID; what must not be recommended (-inf) stays so.

        Args:
            scores, uids: [K] candidates and how relevant they are.
            history: [P] UIDs; actions: [P, M] classes.
        """
        chances = self.log_chances(uids, history, actions)
        said = dict(zip(uids.tolist(), chances.exp().tolist(), strict=True))
        return scores + self.weight * chances, said

    def log_chances(self, uids: Tensor, history: np.ndarray, actions: np.ndarray) -> Tensor:
        """log P(liked) of candidates uids [K] after a history: [K] float64."""
        if not len(uids):
            return torch.zeros(0, dtype=torch.float64)
        past = torch.from_numpy(history), torch.from_numpy(actions)
        return predict_like(self._exact, *past, uids).clamp(min=SMALLEST).log()

    @cached_property
    def _exact(self) -> ActionRanker:
        return precise(self.model)

    def chances(self, asked: ScoredHistory) -> tuple[Tensor, Tensor]:
        """The most relevant UIDs and their log P(liked), [K] each; fewer where fewer may be recommended."""
        top = asked.scores.topk(min(self.candidates, len(asked.scores)))
        uids = top.indices[top.values > -torch.inf]
        return uids, self.log_chances(uids, asked.uids, asked.actions)


def combined(scores: Tensor, uids: Tensor, chances: Tensor, weight: float) -> Tensor:
    """Scores [N + 1] with candidates [K] by relevance and chance [K], and all others behind them."""
    if not len(uids):
        return scores
    mixed = scores[uids] + weight * chances
    others = scores.index_fill(0, uids, -torch.inf)
    behind = (mixed.min() - others.max() - 1).clamp(max=0)  # -inf others: nothing to push back
    moved = others + torch.where(behind.isfinite(), behind, torch.zeros_like(behind))
    return moved.index_copy(0, uids, mixed.to(scores.dtype))


def choose_weight(model: ActionRanker, asked: Iterable[ScoredHistory], targets: np.ndarray) -> float:
    """The weight that ranks liked validation items best (NDCG@10); ties go to the smaller one.

    Args:
        asked: histories before validation items that the user liked.
        targets: [users] those items' UIDs.
    """
    reranker, gains = Reranker(model, 0.0), dict.fromkeys(WEIGHTS, 0.0)
    for one, target in zip(asked, targets, strict=True):
        uids, chances = reranker.chances(one)
        for weight in WEIGHTS:
            scores = combined(one.scores, uids, chances, weight).numpy()[None]
            gains[weight] += float(per_user(ranks_of(scores, np.array([target])))["ndcg@10"][0])
    return max(WEIGHTS, key=lambda weight: (round(gains[weight], 9), -weight))
