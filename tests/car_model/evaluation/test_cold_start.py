"""Recall of cold items: ranked among themselves, compared with chance, and silent where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from car_model.data.catalogue import Catalogue
from car_model.evaluation.evaluate import Holdout, cold_recall
from car_model.evidence.evaluation import ColdItems

ITEMS = [f"i{at}" for at in range(400)]
WARM = ITEMS[:100]


@dataclass
class Fixed:
    """Ranks items by a fixed score."""

    catalogue: Catalogue
    values: np.ndarray

    def scores(self, histories: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.tile(np.concatenate([[-np.inf], self.values]), (len(histories), 1)))


def ranker(values: np.ndarray, retired: frozenset[str] = frozenset()) -> Fixed:
    return Fixed(Catalogue(ITEMS, ITEMS, np.zeros((len(ITEMS), 1), dtype=np.int32), retired), values)


def holdout(targets: list[str]) -> Holdout:
    users = [f"u{at}" for at in range(len(targets))]
    return Holdout(users, [["i0"]] * len(targets), targets, dict.fromkeys(WARM, 3))


DOWN = -np.arange(400.0)  # the lower the number of the item, the better


def test_cold_items_are_ranked_among_themselves() -> None:
    cold = cold_recall(ranker(DOWN), holdout(["i100", "i109", "i110", "i149", "i150", "i5"]))
    assert (cold.users, cold.items) == (5, 300)
    assert (cold.recall_10, cold.recall_50) == (0.4, 0.8)
    assert (cold.random_10, cold.random_50) == (round(10 / 300, 6), round(50 / 300, 6))
    assert cold.shortfall == 0


def test_retired_items_do_not_count() -> None:
    cold = cold_recall(ranker(DOWN, frozenset(ITEMS[100:150])), holdout(["i150", "i120"]))
    assert (cold.users, cold.items, cold.recall_10) == (1, 250, 1.0)


def test_surely_worse_than_chance_is_a_shortfall() -> None:
    cold = cold_recall(ranker(DOWN), holdout(["i399"] * 200))
    assert cold.recall_50 == 0
    assert 0.1 < cold.shortfall < cold.random_50


def test_a_few_misses_prove_nothing() -> None:
    assert cold_recall(ranker(DOWN), holdout(["i399", "i398"])).shortfall == 0


def test_nobody_with_a_cold_item_is_said() -> None:
    assert cold_recall(ranker(DOWN), holdout(["i5"])) == ColdItems(users=0, items=300, shortfall=0.0)
