"""Progressive context fusion against its definition, slot by slot."""

from __future__ import annotations

import pytest
import torch

from car_model.models.car import CAR
from tests.car_model.builders import tiny_car

ITEMS = torch.tensor([[1, 7, 7], [48, 20, 0]])


def naive_slots(car: CAR, uid: int) -> torch.Tensor:
    """Inputs [L + 1, D] of one chunk: slot k's own embedding fused with the think levels before it."""
    config = car.config
    own = [
        car.code.weight[level * config.codebook_size + code]
        for level, code in enumerate(car.sids[uid].tolist())
    ]
    own.append(car.uid.weight[uid])
    slots = []
    for k, embedding in enumerate(own):
        before = torch.zeros(config.d_model)
        for level in range(min(k, config.n_levels)):
            before = before + own[level]
        slots.append(embedding if config.fusion == "none" else embedding + before)
    return torch.stack(slots)


@pytest.mark.parametrize("fusion", ["sum", "none"])
def test_full_layout_is_the_definition(fusion: str) -> None:
    car = tiny_car(layout="full", fusion=fusion)
    found = car.embed(ITEMS)
    assert found.shape == (2, 3, 4, 16)
    for row, column in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        torch.testing.assert_close(found[row, column], naive_slots(car, int(ITEMS[row, column])))


@pytest.mark.parametrize("fusion", ["sum", "none"])
def test_collapsed_layout_is_the_full_chunks_last_slot(fusion: str) -> None:
    full, collapsed = tiny_car(layout="full", fusion=fusion), tiny_car(seed=1, fusion=fusion)
    shared = {name: w for name, w in full.state_dict().items() if "position" not in name}
    collapsed.load_state_dict(shared, strict=False)
    assert collapsed.embed(ITEMS).shape == (2, 3, 1, 16)
    torch.testing.assert_close(collapsed.embed(ITEMS)[..., 0, :], full.embed(ITEMS)[..., -1, :])


@pytest.mark.parametrize("layout", ["collapsed", "full"])
@pytest.mark.parametrize("fusion", ["sum", "none"])
def test_tied_act_rows_are_the_items_last_slots(layout: str, fusion: str) -> None:
    car = tiny_car(layout=layout, fusion=fusion)
    weight, bias = car.act_weights()
    assert (weight.shape, bias.shape) == ((49, 16), (49,))
    torch.testing.assert_close(weight[7], naive_slots(car, 7)[-1])
    states = torch.randn(3, 16)
    expected = states @ naive_slots(car, 7)[-1] + car.act_bias[7]
    torch.testing.assert_close(car.act_logits(states)[:, 7], expected)


def test_a_chunks_state_is_that_of_its_last_slot() -> None:
    """Full layout: slots run through the transformer in order, and every fourth state is the chunk's."""
    car = tiny_car(layout="full").eval()
    slots = torch.cat([naive_slots(car, uid) for uid in (5, 9, 2)])[None]
    torch.testing.assert_close(car.hidden(torch.tensor([[5, 9, 2]])), car.transformer(slots)[:, 3::4])


def test_without_fusion_items_of_one_code_share_nothing() -> None:
    car = tiny_car(fusion="none")
    torch.testing.assert_close(car.embed(ITEMS)[..., 0, :], car.uid(ITEMS))
