"""A sample of the catalogue stands for all of it in the training loss, and only there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from car_model.models.car import CAR, CARConfig
from car_model.models.losses import Negatives, sampled_cross_entropy

ITEMS, WIDTH = 60, 8


@pytest.fixture
def parts() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, targets, rows and biases of all items."""
    torch.manual_seed(1)
    return (
        torch.randn(20, WIDTH),
        torch.randint(1, ITEMS + 1, (20,)),
        torch.randn(ITEMS + 1, WIDTH),
        torch.randn(ITEMS + 1),
    )


def sampled(parts: tuple[Tensor, Tensor, Tensor, Tensor], drawn: Tensor, log_q: Tensor) -> Tensor:
    states, target_uids, rows, bias = parts
    own = (states * rows[target_uids]).sum(dim=1) + bias[target_uids]
    return sampled_cross_entropy(own, states @ rows[drawn].T + bias[drawn], target_uids, drawn, log_q)


def full(parts: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    states, target_uids, rows, bias = parts
    return F.cross_entropy((states @ rows.T + bias)[:, 1:], target_uids - 1)


def test_every_item_drawn_once_is_the_full_loss(parts: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    drawn = torch.arange(1, ITEMS + 1)
    assert sampled(parts, drawn, torch.zeros(ITEMS + 1)) == pytest.approx(float(full(parts)), abs=1e-5)


def seen_in(sampler: Negatives, counts: Tensor, targets: int) -> Tensor:
    """UIDs of the negatives of a step whose targets are as the data are."""
    target_uids = torch.multinomial(counts.double(), targets, replacement=True)
    return torch.cat([target_uids, sampler.draw()])[sampler.choose(targets)]


@pytest.mark.parametrize("targets", [500, 3_000])  # fewer and more than are drawn
def test_negatives_are_seen_as_often_as_the_correction_says(targets: int) -> None:
    counts = torch.arange(ITEMS + 1) ** 2
    counts[5] = 0
    sampler = Negatives(counts, 1_000)
    seen = torch.stack([seen_in(sampler, counts, targets).bincount(minlength=ITEMS + 1) for _ in range(300)])
    expected = sampler.log_q(targets).exp()
    assert expected[0] == 0
    assert seen[:, 0].sum() == 0
    assert torch.allclose(seen.double().mean(dim=0)[1:], expected[1:], rtol=0.25)
    assert float(expected.sum()) == pytest.approx(1_000 + min(targets, 1_000))
    assert expected[-1] > 20 * expected[1] > 0
    assert expected[5] > 0  # an item that nobody has had is a negative too


def test_the_sample_estimates_the_full_loss_with_the_correction_alone(
    parts: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    counts = torch.arange(ITEMS + 1) ** 2
    sampler = Negatives(counts, 200_000)
    negatives = seen_in(sampler, counts, 200_000)
    log_q = sampler.log_q(200_000)
    assert sampled(parts, negatives, log_q) == pytest.approx(float(full(parts)), rel=0.01)
    assert sampled(parts, negatives, torch.full_like(log_q, float(log_q[1:].mean()))) != pytest.approx(
        float(full(parts)), rel=0.02
    )


@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"layout": "full"}, {"fusion": "none"}])
def test_a_model_trains_on_a_sample_and_is_judged_on_all(changes: dict) -> None:
    torch.manual_seed(0)
    config = replace(CARConfig(ITEMS, 2, 4, d_model=WIDTH, n_heads=2, dropout=0.0), **changes)
    model = CAR(config, torch.randint(0, 4, (ITEMS + 1, 2)))
    uids = torch.randint(1, ITEMS + 1, (3, 6))
    plain = model.train().loss(uids[:, :-1], uids[:, 1:])
    counts = uids[:, 1:].flatten().bincount(minlength=ITEMS + 1)  # what the step's targets are drawn from
    model.negatives = Negatives(counts, 200_000)
    estimate = model.loss(uids[:, :-1], uids[:, 1:])
    assert float(estimate["act"]) == pytest.approx(float(plain["act"]), rel=0.01)
    assert float(estimate["think"]) == pytest.approx(float(plain["think"]), rel=1e-5)
    judged = model.eval().loss(uids[:, :-1], uids[:, 1:])
    assert float(judged["act"]) == pytest.approx(float(plain["act"]), rel=1e-6)


def test_equal_seeds_draw_equally() -> None:
    sampler = Negatives(torch.ones(ITEMS + 1), 50)
    drawn = []
    for _ in range(2):
        torch.manual_seed(7)
        drawn.append(sampler.draw())
    assert torch.equal(*drawn)
