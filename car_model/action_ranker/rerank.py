"""Ranking by action: CAR's top candidates in the order of relevance and of P(liked) together.

    score(i) = relevance(i) + weight * log P(liked | i, history)

relevance is what the Recommender ranks by: log P(next item is i) and what joins it. If nothing does, weight 1
makes the score the log-probability that the next item is i *and* is liked. The weight is chosen on
validation, and 0 is a possible outcome. Only the `candidates` most relevant items are asked about; all others
stay behind them in their order.

Shape letters: N items, K candidates.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from car_model.action_ranker.model import ActionRanker, like_probability
from car_model.metrics.actions import SMALLEST
from car_model.metrics.ranking import per_user, ranks_of

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)


def double_precision(model: ActionRanker) -> ActionRanker:
    """The model computing in double precision, so that threads and processors change no printed digit.

    Its tables of items, which are read and not multiplied, stay in single precision and are shared.
    """
    shared = {id(table): table for table in (model.uid, model.code, model.sids)}
    exact = copy.deepcopy(model, shared).eval()
    for name, part in exact.named_children():
        if name not in ("uid", "code"):
            part.double()
    return exact


@torch.inference_mode()
def predict_like(model: ActionRanker, uids: Tensor, actions: Tensor, candidates: Tensor) -> Tensor:
    """P(liked) of each candidate if it were the next item: candidates [C] UIDs -> [C].

    Args:
        model: in evaluation mode.
        uids: [P] the history, oldest first; it may be empty. Only the latest items count, as many as the
            model reads.
        actions: [P] classes, 0 if unknown.
    """
    latest = slice(max(0, len(uids) - (model.config.max_history - 1)), len(uids))
    if not len(uids):
        return model.probabilities(candidates.unsqueeze(1), torch.zeros_like(candidates).unsqueeze(1))[:, 0]
    return like_probability(model.candidate_logits(uids[latest], actions[latest], candidates))


class ScoredHistory(NamedTuple):
    """One history and how relevant every item is after it."""

    scores: Tensor  # [N + 1]; -inf marks what must not be recommended
    uids: np.ndarray  # [P] the history, oldest first
    actions: np.ndarray  # [P] classes, 0 if unknown


@dataclass(frozen=True)
class Reranker:
    """An action ranker together with how much it counts."""

    model: ActionRanker  # in evaluation mode, over the same catalogue as CAR
    weight: float  # of log P(liked)
    candidates: int = 100  # how many items it is computed for

    def scores(self, history: ScoredHistory) -> Tensor:
        """The scores [N + 1] that rank by both; -inf stays -inf."""
        return combine(history.scores, *self.top_log_chances(history), self.weight)

    def rerank(
        self, scores: Tensor, uids: Tensor, history: np.ndarray, actions: np.ndarray
    ) -> tuple[Tensor, dict[int, float]]:
        """Candidates' scores by both [K], and P(liked) by UID; what must not be recommended (-inf) stays so.

        `uids` and `scores` [K] are candidates and how relevant they are; `history` and `actions` are [P].
        """
        chances = self.log_chances(uids, history, actions)
        like_by_uid = dict(zip(uids.tolist(), chances.exp().tolist(), strict=True))
        return scores + self.weight * chances, like_by_uid

    def log_chances(self, uids: Tensor, history: np.ndarray, actions: np.ndarray) -> Tensor:
        """log P(liked) of candidates uids [K] after a history: [K] float64."""
        if not len(uids):
            return torch.zeros(0, dtype=torch.float64)
        past = torch.from_numpy(history), torch.from_numpy(actions)
        return predict_like(self._exact, *past, uids).clamp(min=SMALLEST).log()

    @cached_property
    def _exact(self) -> ActionRanker:
        return double_precision(self.model)

    def top_log_chances(self, history: ScoredHistory) -> tuple[Tensor, Tensor]:
        """The most relevant UIDs and their log P(liked), [K] each; fewer if fewer may be recommended."""
        top = history.scores.topk(min(self.candidates, len(history.scores)))
        uids = top.indices[top.values > -torch.inf]
        return uids, self.log_chances(uids, history.uids, history.actions)


def combine(scores: Tensor, uids: Tensor, chances: Tensor, weight: float) -> Tensor:
    """Scores [N + 1] with candidates [K] by relevance and chance [K], and all others behind them."""
    if not len(uids):
        return scores
    mixed = scores[uids] + weight * chances
    others = scores.index_fill(0, uids, -torch.inf)
    behind = (mixed.min() - others.max() - 1).clamp(max=0)  # -inf others: nothing to push back
    moved = others + torch.where(behind.isfinite(), behind, torch.zeros_like(behind))
    return moved.index_copy(0, uids, mixed.to(scores.dtype))


def choose_weight(model: ActionRanker, histories: Iterable[ScoredHistory], targets: np.ndarray) -> float:
    """The weight that ranks liked validation items best (NDCG@10); ties go to the smaller one.

    `histories` precede validation items that the user liked, whose UIDs are `targets` [users].
    """
    reranker, gains = Reranker(model, 0.0), dict.fromkeys(WEIGHTS, 0.0)
    for history, target in zip(histories, targets, strict=True):
        uids, chances = reranker.top_log_chances(history)
        for weight in WEIGHTS:
            scores = combine(history.scores, uids, chances, weight).numpy()[None]
            gains[weight] += float(per_user(ranks_of(scores, np.array([target])))["ndcg@10"][0])
    return max(WEIGHTS, key=lambda weight: (round(gains[weight], 9), -weight))
