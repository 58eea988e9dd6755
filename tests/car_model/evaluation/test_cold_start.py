"""Cold items: ranked among themselves against chance, among all against other models; None without any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from car_model.data.catalogue import Catalogue
from car_model.evaluation.evaluate import Holdout, cold_items, holdout_ranks
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


def measured(challenger: Fixed, parts: Holdout, text: Fixed | None = None) -> ColdItems:
    rankers = {"challenger": challenger} | ({"nearest_text": text} if text else {})
    ranks = {name: holdout_ranks(each, parts) for name, each in rankers.items()}
    cold = cold_items(challenger, parts, ranks)
    assert cold
    return cold


def test_cold_items_are_ranked_among_themselves() -> None:
    cold = measured(ranker(DOWN), holdout(["i100", "i109", "i110", "i149", "i150", "i5"]))
    assert (cold.users, cold.items) == (5, 300)
    assert (cold.recall_10, cold.recall_50) == (0.4, 0.8)
    assert (cold.random_10, cold.random_50) == (round(10 / 300, 6), round(50 / 300, 6))
    behind = [299, 290, 289, 250, 249]  # cold items after each
    assert cold.ahead.mean == round(np.mean(behind) / 299, 6)


def test_retired_items_do_not_count() -> None:
    cold = measured(ranker(DOWN, frozenset(ITEMS[100:150])), holdout(["i150", "i120"]))
    assert (cold.users, cold.items, cold.recall_10) == (1, 250, 1.0)


def test_the_share_of_cold_items_behind_is_told_from_chance_either_way() -> None:
    best, worst = (measured(ranker(DOWN), holdout([item] * 73)).ahead for item in ("i100", "i399"))
    assert best.mean == 1.0 and best.low and best.low > 0.9
    assert worst.mean == 0.0 and worst.high and worst.high < 0.1
    few = measured(ranker(DOWN), holdout(["i399"])).ahead
    assert few.high and few.high > 0.5  # a single miss proves nothing


def test_equal_scores_are_chance() -> None:
    ahead = measured(ranker(np.zeros(400)), holdout(["i100", "i250", "i399"] * 30)).ahead
    assert ahead.mean == 0.5
    assert ahead.low and ahead.high and ahead.low < 0.5 < ahead.high


def test_a_model_that_never_finds_what_its_text_finds_is_behind_it() -> None:
    """Good order among cold items says nothing if popular ones always come first."""
    text = DOWN + 1000 * (np.arange(400) >= 100)
    cold = measured(ranker(DOWN), holdout(["i100", "i101"] * 36), ranker(text))
    assert cold.models["challenger"]["ndcg@10"].mean == 0.0
    difference = cold.paired["nearest_text"]["ndcg@10"]
    assert difference.high is not None and difference.high < 0
    assert cold.ahead.low and cold.ahead.low > 0.5


def test_a_single_cold_item_cannot_be_ranked_among_itself() -> None:
    counts = dict.fromkeys(ITEMS[:399], 3)
    alone = Holdout(["u"], [["i0"]], ["i399"], counts)
    cold = measured(ranker(DOWN), alone)
    assert (cold.users, cold.items, cold.ahead.mean, cold.ahead.low) == (1, 1, None, None)


def test_without_a_cold_test_item_there_is_nothing_to_measure() -> None:
    parts = holdout(["i5"])
    assert cold_items(ranker(DOWN), parts, {"challenger": holdout_ranks(ranker(DOWN), parts)}) is None
