"""Levers are what their names say, and at their neutral setting they are CAR."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from benchmarks.lever_models import (
    SMOOTHING,
    Attending,
    CoarseFirst,
    Smoothed,
    Weighted,
    from_texts,
    rotary,
    turned,
)
from car_model.model import CAR, CARConfig

CONFIG = CARConfig(30, 3, 4, width=8, heads=2, dropout=0.0, think_weight=0.0)


@pytest.fixture
def sids() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randint(0, 4, (31, 3))


def test_smoothed_targets_give_the_loss_that_torch_gives(sids: torch.Tensor) -> None:
    model = Smoothed(CONFIG, sids).train()
    uids = torch.randint(1, 31, (4, 7))
    found = model.loss(uids[:, :-1], uids[:, 1:])["loss"]
    logits = model.act_logits(model.hidden(uids[:, :-1]).flatten(0, 1))[:, 1:].detach()
    wanted = uids[:, 1:].flatten() - 1
    assert float(found.detach()) == pytest.approx(
        float(F.cross_entropy(logits, wanted, label_smoothing=SMOOTHING)), abs=1e-5
    )
    judged = model.eval().loss(uids[:, :-1], uids[:, 1:])["loss"]
    assert float(judged.detach()) == pytest.approx(float(F.cross_entropy(logits, wanted)), abs=1e-5)


def test_attention_that_asks_nothing_is_the_sum(sids: torch.Tensor) -> None:
    model = Attending(CONFIG, sids)
    uids = torch.arange(1, 31)
    plain = CAR(CONFIG, sids)
    plain.load_state_dict(model.state_dict(), strict=False)
    assert not torch.allclose(model.embed(uids), plain.embed(uids), atol=1e-7)
    with torch.no_grad():
        model.ask.weight.zero_()
    assert torch.allclose(model.embed(uids), plain.embed(uids), atol=1e-6)
    assert torch.allclose(model.item_vectors(), plain.item_vectors(), atol=1e-6)


def test_rows_from_texts_follow_the_texts(sids: torch.Tensor) -> None:
    text = torch.randn(31, 5)
    text[4] = text[9]
    rows = from_texts(CONFIG, sids, text).uid.weight.detach()
    assert torch.equal(rows[4, :5], rows[9, :5])
    assert not torch.equal(rows[4, 5:], rows[9, 5:])
    assert float(rows[0].abs().sum()) == 0
    assert float(rows[1:, :5].std()) == pytest.approx(float(rows[1:, 5:].std()), rel=0.3)


def test_level_weights_of_one_are_the_sum_and_others_are_not(sids: torch.Tensor) -> None:
    model, plain = Weighted(CONFIG, sids), CAR(CONFIG, sids)
    plain.load_state_dict(model.state_dict(), strict=False)
    uids = torch.arange(1, 31)
    assert torch.allclose(model.embed(uids), plain.embed(uids), atol=1e-6)
    assert torch.allclose(model.item_vectors(), plain.item_vectors(), atol=1e-6)
    with torch.no_grad():
        model.level[1] = 0
    without = plain.embed(uids)[:, 0] - plain.code(plain._slots(uids))[:, 1]
    assert torch.allclose(model.embed(uids)[:, 0], without, atol=1e-6)


def test_think_losses_halve_by_level(sids: torch.Tensor) -> None:
    config = replace(CONFIG, think_weight=1.0)
    model, plain = CoarseFirst(config, sids), CAR(config, sids)
    plain.load_state_dict(model.state_dict())
    uids = torch.randint(1, 31, (4, 7))
    found, usual = (one.loss(uids[:, :-1], uids[:, 1:]) for one in (model, plain))
    assert model.shares().tolist() == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert float(found["act"]) == pytest.approx(float(usual["act"]), abs=1e-6)
    logits = plain.think_logits(plain.hidden(uids[:, :-1]).flatten(0, 1))  # [N, L, K]
    codes = sids[uids[:, 1:].flatten()]
    by_level = [float(F.cross_entropy(logits[:, level], codes[:, level]).detach()) for level in range(3)]
    assert float(found["think"]) == pytest.approx(
        sum(a * b for a, b in zip([4 / 7, 2 / 7, 1 / 7], by_level, strict=True)), abs=1e-5
    )
    model.shares = lambda: torch.full((3,), 1 / 3)  # type: ignore[method-assign]
    assert float(model.loss(uids[:, :-1], uids[:, 1:])["think"]) == pytest.approx(
        float(usual["think"]), abs=1e-5
    )


def test_turned_products_depend_on_the_distance_alone() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 1, 1, 1, 8)
    at = turned(a.expand(1, 9, 1, 8))[0, :, 0], turned(b.expand(1, 9, 1, 8))[0, :, 0]
    products = at[0] @ at[1].T  # [9, 9]
    for distance in range(-4, 5):
        line = products.diagonal(distance)
        assert torch.allclose(line, line[0].expand_as(line), atol=1e-5)
    assert float((products[0] - products[0, 0]).abs()[1:].min()) > 1e-4


def test_rotary_positions_tell_orders_apart_and_stay_causal(sids: torch.Tensor) -> None:
    model = rotary(replace(CONFIG, layers=1), sids).eval()
    with torch.no_grad():
        for block in model.transformer.blocks:
            block.qkv.weight.mul_(40)
            block.attention_out.weight.mul_(40)
        one, other = (model.hidden(torch.tensor([uids])) for uids in ([3, 7, 9], [7, 3, 9]))
        longer = model.hidden(torch.tensor([[3, 7, 9, 11]]))
    assert not torch.allclose(one[0, 2], other[0, 2], atol=1e-4)
    assert torch.allclose(longer[0, :3], one[0], atol=1e-6)
    assert float(model.transformer.position.weight.abs().sum()) == 0
