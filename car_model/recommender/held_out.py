"""Held-out interactions for the ranker by action, and the relevance of every item before them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from car_model.action_ranker.data import PARTS, ActionHistories, Part
from car_model.action_ranker.model import LIKED
from car_model.action_ranker.rerank import ScoredHistory
from car_model.data.histories import MAX_HISTORY
from car_model.recommender.recommender import Recommender

BATCH_SIZE = 256


class HeldOut(NamedTuple):
    """Held-out interactions of n histories.

    Attributes:
        rows, indices: int64 [n] which history an interaction is in, and its index there.
        uids: int64 [n] its item.
        liked: bool [n] whether its action is known and counts as liked.
    """

    rows: np.ndarray
    indices: np.ndarray
    uids: np.ndarray
    liked: np.ndarray

    def select(self, choice: slice | np.ndarray) -> HeldOut:
        """Some of them, by a slice or an array of indices."""
        return HeldOut(*(column[choice] for column in self))


def held_out(data: ActionHistories, part: Part) -> HeldOut:
    """The first interaction of a part in every history that has one and something before it."""
    rows, indices = [], []
    for row, parts in enumerate(data.parts):
        in_part = np.flatnonzero(parts == PARTS.index(part))
        if len(in_part) and in_part[0]:
            rows.append(row)
            indices.append(int(in_part[0]))
    pairs = list(zip(rows, indices, strict=True))
    return HeldOut(
        rows=np.array(rows, dtype=np.int64),
        indices=np.array(indices, dtype=np.int64),
        uids=np.array([data.uids[row][i] for row, i in pairs], dtype=np.int64),
        liked=np.array([data.actions[row][i] == LIKED for row, i in pairs], dtype=bool),
    )


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
