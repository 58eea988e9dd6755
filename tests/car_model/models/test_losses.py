"""The blocked cross-entropy equals PyTorch's, value and gradients, wherever the blocks fall."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from car_model.models import losses as cross_entropy
from car_model.models.losses import linear_cross_entropy
from tests.car_model.builders import tiny_car, tiny_sasrec


def problem(rows: int, classes: int, width: int, barred: bool, scale: float) -> list[torch.Tensor]:
    random_generator = torch.Generator().manual_seed(rows * 31 + classes)
    sizes = ((rows, width), (classes, width), (classes,))
    states, weight, bias = (
        torch.randn(size, generator=random_generator, dtype=torch.float64) * scale for size in sizes
    )
    targets = torch.randint(1 if barred else 0, classes, (rows,), generator=random_generator)
    if barred:
        bias[0] = -torch.inf
    return [states, weight, bias, targets]


def measured(loss: object, parts: list[torch.Tensor]) -> list[torch.Tensor]:
    states, weight, bias = (part.clone().requires_grad_() for part in parts[:3])
    value = loss(states, weight, bias, parts[3])  # type: ignore[operator]
    (3.0 * value).backward()
    return [value.detach(), states.grad, weight.grad, bias.grad]


def plain(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    return F.cross_entropy(states @ weight.T + bias, targets)


@given(
    rows=st.integers(1, 23),
    classes=st.integers(2, 40),
    fit=st.integers(1, 1000),
    least=st.integers(1, 23),
    tall=st.integers(1, 23),
    barred=st.booleans(),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
)
def test_value_and_gradients_in_any_blocks(
    rows: int, classes: int, fit: int, least: int, tall: int, *, barred: bool, scale: float
) -> None:
    parts = problem(rows, classes, 3, barred, scale)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "BLOCK_BYTES", 8 * fit)
        patch.setattr(cross_entropy, "BLOCK_ROWS", least)
        patch.setattr(cross_entropy, "TILE_ROWS", tall)
        found = measured(linear_cross_entropy, parts)
    for ours, exact in zip(found, measured(plain, parts), strict=True):
        torch.testing.assert_close(ours, exact.nan_to_num(), rtol=1e-9, atol=1e-11)


def test_a_barred_class_gets_no_gradient() -> None:
    _, _, weight, bias = measured(linear_cross_entropy, problem(9, 5, 3, True, 1.0))
    assert not weight[0].any()
    assert bias[0] == 0


def test_logits_beyond_float_range_of_exp_stay_finite() -> None:
    states, weight = torch.tensor([[1000.0]]), torch.tensor([[1.0], [-1.0]])
    loss = linear_cross_entropy(states, weight, torch.zeros(2), torch.tensor([1]))
    assert float(loss) == 2000.0


def test_the_gradient_is_the_slope() -> None:
    parts = problem(6, 7, 3, False, 1.0)
    inputs = tuple(part.requires_grad_() for part in parts[:3])
    assert torch.autograd.gradcheck(lambda *moved: linear_cross_entropy(*moved, parts[3]), inputs)


def test_inputs_are_left_as_they_were() -> None:
    parts = problem(6, 7, 3, False, 1.0)
    before = [part.clone() for part in parts]
    measured(linear_cross_entropy, parts)
    assert all(torch.equal(part, old) for part, old in zip(parts, before, strict=True))


@pytest.mark.parametrize("fit", [1 << 20, 1 << 8])
def test_under_autocast_products_are_bfloat16_and_the_rest_stays_close(
    fit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "BLOCK_BYTES", fit)
    parts = [part.float() if part.is_floating_point() else part for part in problem(200, 50, 8, True, 1.0)]
    exact = measured(linear_cross_entropy, parts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = measured(linear_cross_entropy, parts)
    assert not torch.equal(rough[1], exact[1])
    assert [part.dtype for part in rough] == [torch.float32] * 4
    for ours, full in zip(rough, exact, strict=True):
        assert float((ours - full).norm() / full.norm()) < 0.02


@pytest.mark.parametrize(
    ("classes", "rows", "tile"), [(12_000, 65, 12_000), (20_000, 39, 20_000), (1_000_000, 512, 1536)]
)
def test_blocks_fit_the_cache_and_products_stay_large(classes: int, rows: int, tile: int) -> None:
    states = torch.zeros(1000, 64)
    assert cross_entropy.block_sizes(states, classes) == (rows, tile)
    assert rows * tile * 4 <= cross_entropy.BLOCK_BYTES
    assert cross_entropy.block_sizes(states[:2], classes)[1] >= tile
    assert cross_entropy.block_sizes(states.to("meta"), classes) == ((256 << 18) // classes, classes)


def test_all_logits_never_exist_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = torch.addmm

    def spy(bias: torch.Tensor, block: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        seen.append(len(block) * weight.shape[1])
        return real(bias, block, weight)

    monkeypatch.setattr(torch, "addmm", spy)
    for classes in (30_000, 20_000):  # tiled, and not
        states, weight = torch.zeros(600, 1), torch.zeros(classes, 1)
        linear_cross_entropy(states, weight, torch.zeros(classes), torch.zeros(600, dtype=torch.long))
    assert max(seen) * 4 <= cross_entropy.BLOCK_BYTES
    assert sum(seen) == 600 * (2 * 30_000 + 20_000)


@pytest.mark.parametrize("build", [tiny_car, tiny_sasrec])
@given(share=st.floats(0.01, 0.99))
@settings(max_examples=20, deadline=None)
def test_smoothed_targets_give_the_loss_that_torch_gives(build: Callable[..., Any], share: float) -> None:
    model = build(label_smoothing=share, **({"think_weight": 0.0} if build is tiny_car else {}))
    uids = torch.randint(1, 49, (4, 7))
    found = model.loss(uids[:, :-1], uids[:, 1:])
    states = [model.score(uids[:, : end + 1])[:, 1:] for end in range(6)]  # log-probabilities of real items
    logits, target_classes = torch.stack(states, dim=1).flatten(0, 1), uids[:, 1:].flatten() - 1
    expected = F.cross_entropy(logits, target_classes, label_smoothing=share)
    torch.testing.assert_close(found["loss"], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(found["act"], F.cross_entropy(logits, target_classes), atol=1e-4, rtol=0)
    (slope,) = torch.autograd.grad(found["loss"], model.act_bias)
    (other,) = torch.autograd.grad(expected, model.act_bias)
    torch.testing.assert_close(slope, other, atol=1e-5, rtol=0)
