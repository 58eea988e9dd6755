"""Levers are what their names say, and at their neutral setting they are CAR."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from benchmarks.levers import SMOOTHING, Attending, Smoothed, from_texts
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
