"""Relevance of every item before held-out interactions, for the ranker by action."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from car_model.action_ranker.data import PARTS, ActionHistories, Part
from car_model.action_ranker.model import LIKED
from car_model.action_ranker.rerank import ScoredHistory
from car_model.data.histories import MAX_HISTORY
from car_model.recommender.recommender import Recommender

ROWS = 256
Place = tuple[int, int]  # which history, and where in it


def held_out(data: ActionHistories, part: Part) -> list[Place]:
    """The first interaction of a part in every history that has one and something before it."""
    at = PARTS.index(part)
    firsts = [(row, np.flatnonzero(parts == at)) for row, parts in enumerate(data.parts)]
    return [(row, int(places[0])) for row, places in firsts if len(places) and places[0]]


def asked_before(
    recommender: Recommender, data: ActionHistories, places: Sequence[Place]
) -> Iterator[ScoredHistory]:
    """Relevance of every item after what precedes each place; what is barred or known already is -inf."""
    uids, offered = recommender.catalogue.uids, recommender.catalogue.offered
    barred = [0, *(uid for item, uid in uids.items() if item not in offered)]
    for start in range(0, len(places), ROWS):
        group = places[start : start + ROWS]
        past = [(row, slice(max(0, place - MAX_HISTORY), place)) for row, place in group]
        histories = [data.uids[row][part] for row, part in past]
        scores = recommender.scores(histories).numpy()
        scores[:, barred] = -np.inf
        for (row, part), history, one in zip(past, histories, scores, strict=True):
            one[history] = -np.inf
            yield ScoredHistory(torch.from_numpy(one), history, data.actions[row][part])


def targets_of(data: ActionHistories, places: Sequence[Place]) -> np.ndarray:
    """UIDs at places, [places]."""
    return np.array([data.uids[row][place] for row, place in places], dtype=np.int64)


def liked_at(data: ActionHistories, places: Sequence[Place]) -> np.ndarray:
    """Whether the action at each place is known and counts as liked, [places]."""
    return np.array([data.actions[row][place] == LIKED for row, place in places], dtype=bool)
