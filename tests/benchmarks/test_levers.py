"""Levers are what their names say, and at their neutral setting they are CAR."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from benchmarks.lever_models import Attending, CoarseFirst, Weighted, from_texts
from benchmarks.levers import BASE, add, known, sheets
from car_model.models.car import CAR, CARConfig

CONFIG = CARConfig(30, 3, 4, d_model=8, n_heads=2, dropout=0.0, think_weight=0.0)


@pytest.fixture
def sids() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randint(0, 4, (31, 3))


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


def test_runs_are_added_once_and_compared_seed_by_seed(tmp_path: Path) -> None:
    output = tmp_path / "levers.json"
    for title, seed, valid in ((BASE, 9, 0.05), ("fusion by attention", 9, 0.06), (BASE, 10, 0.04)):
        add(output, {"data": "x", "epochs": 2, "lever": title, "seed": seed, "valid": valid, "machine": "m"})
    assert len(known(output)) == 3
    (sheet,) = sheets({"runs": known(output)})
    assert sheet.title == "x, 2 epochs"
    assert [(row[0], row[1], row[3]) for row in sheet.rows] == [
        (BASE, "2", "+0.0%, +0.0%"),
        ("fusion by attention", "1", "+20.0%"),
    ]
