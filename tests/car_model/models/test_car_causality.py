"""What a prediction may depend on: all of the past, slot by slot, and nothing that comes later."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from car_model.models.car import CAR
from tests.car_model.builders import SHAPES, tiny_car, tiny_sids
from tests.fixtures import ITEMS

HISTORY = torch.tensor([3, 17, 9, 48, 1, 22, 30, 5])
LAST, TWIN, OTHER = 5, 41, 40  # OTHER shares no code with any of them
SLOTS = (0, 1, 2, 3)  # three levels, then the UID


def small_table() -> torch.Tensor:
    """Codes 0 to 2 everywhere but at OTHER, and two items of one SID."""
    sids = tiny_sids() % 3
    sids[OTHER] = 3
    sids[TWIN] = sids[LAST]
    return sids


@pytest.fixture(params=SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
def car(request: pytest.FixtureRequest) -> CAR:
    return tiny_car(sids=small_table(), **request.param).eval()


@torch.no_grad()
def predicted(car: CAR, uids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """UID logits [T, I] of all items but the last one, and code logits [T, L * K], after every chunk.

    The last item's own column is left out: tied, it moves with its codes whatever the history is.
    """
    states = car.hidden(uids[None])[0]
    others = [uid for uid in range(1, ITEMS + 1) if uid != LAST]
    return car.act_logits(states)[:, others], car.think_logits(states).flatten(1)


def moved(one: torch.Tensor, other: torch.Tensor) -> list[bool]:
    """Whether each position's predictions differ by more than rounding."""
    return ((one - other).abs().amax(dim=1) > 1e-5).tolist()


@pytest.mark.parametrize("at", range(len(HISTORY)))
def test_a_chunk_changes_its_own_and_later_predictions_and_no_earlier_one(car: CAR, at: int) -> None:
    other = HISTORY.clone()
    other[at] = OTHER
    expected = [False] * at + [True] * (len(HISTORY) - at)
    for before, after in zip(predicted(car, HISTORY), predicted(car, other), strict=True):
        assert moved(before, after) == expected
        torch.testing.assert_close(before[:at], after[:at], rtol=0, atol=1e-6)


@pytest.mark.parametrize("slot", SLOTS)
def test_every_slot_of_the_last_chunk_changes_the_next_prediction_alone(car: CAR, slot: int) -> None:
    before, history = predicted(car, HISTORY), HISTORY.clone()
    if slot == 3:
        history[-1] = TWIN
    else:
        car.sids[LAST, slot] = 3
    read = slot == 3 or (car.config.layout, car.config.fusion) != ("collapsed", "none")  # that reads UIDs
    for old, new in zip(before, predicted(car, history), strict=True):
        assert moved(old, new) == [False] * (len(HISTORY) - 1) + [read]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
def test_the_order_of_the_past_counts(shape: dict[str, Any]) -> None:
    """One layer deep, so that positions alone can tell: a second one sees what came before each chunk."""
    car = tiny_car(n_layers=1, sids=small_table(), **shape).eval()
    with torch.no_grad():
        car.transformer.blocks[0].qkv.weight.mul_(9)  # so that attention is uneven without learned positions
    swapped = HISTORY[[1, 0, *range(2, len(HISTORY))]]
    for before, after in zip(predicted(car, HISTORY), predicted(car, swapped), strict=True):
        assert all(moved(before, after))
