"""Held-out interactions for the ranker by action, and the relevance of every item before them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from car_model.action_ranker.data import PARTS, ActionHistories, Part
from car_model.action_ranker.model import LIKED
from car_model.action_ranker.rerank import ScoredHistory
from car_model.recommender.recommender import Recommender
from common.limits import MAX_HISTORY

BATCH_SIZE = 256


class HeldOut(NamedTuple):
    """Held-out interactions of n histories."""

    rows: np.ndarray  # int64 [n] which history an interaction is in
    indices: np.ndarray  # int64 [n] its index there
    uids: np.ndarray  # int64 [n] its item
    liked: np.ndarray  # bool [n] whether its action is known and counts as liked

    def select(self, choice: slice | np.ndarray) -> HeldOut:
        """Some of them, by a slice or an array of indices."""
        return HeldOut(*(column[choice] for column in self))


def held_out(data: ActionHistories, part: Part) -> HeldOut:
    """The first interaction of a part in every history that has one and something before it."""
    table = []
    for row, parts in enumerate(data.parts):
        index = int(np.argmax(parts == PARTS.index(part))) if len(parts) else 0
        if index:  # 0: none is in the part, or nothing precedes it
            table.append((row, index, data.uids[row][index], data.actions[row][index] == LIKED))
    rows, indices, uids, liked = np.array(table, dtype=np.int64).reshape(-1, 4).T
    return HeldOut(rows, indices, uids, liked.astype(bool))


def score_before(
    recommender: Recommender, data: ActionHistories, targets: HeldOut
) -> Iterator[ScoredHistory]:
    """Score every item after what precedes each target; items of the history and retired ones get -inf."""
    for start in range(0, len(targets.rows), BATCH_SIZE):
        batch = targets.select(slice(start, start + BATCH_SIZE))
        past = [
            (row, slice(max(0, i - MAX_HISTORY), i)) for row, i in zip(batch.rows, batch.indices, strict=True)
        ]
        histories = [data.uids[row][before] for row, before in past]
        batch_scores = recommender.scores(histories).numpy()
        batch_scores[:, recommender.catalogue.barred] = -np.inf
        for (row, before), history, scores in zip(past, histories, batch_scores, strict=True):
            scores[history] = -np.inf
            yield ScoredHistory(torch.from_numpy(scores), history, data.actions[row][before])
