"""Rotary positions: what a product says is the distance, and every way of reading agrees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from car_model.models.kv_cache import KVCache
from car_model.models.transformer import ModelConfig, Transformer, apply_rotary, rotary_angles
from tests.car_model.builders import tiny_car, tiny_sasrec

CONFIG = ModelConfig(d_model=16, n_layers=2, n_heads=2, dropout=0.0)


def rotate(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return apply_rotary(x, rotary_angles(positions, x.shape[-1]))


def teach(model: torch.nn.Module) -> None:
    """Weights large enough that attention is not even."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("qkv.weight", "attention_out.weight")):
                weight.mul_(40)


@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_products_depend_on_the_distance_alone_and_lengths_stay(one: int, other: int, moved: int) -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 8, dtype=torch.float64)

    def product(at: int, to: int) -> torch.Tensor:
        return (rotate(q, torch.tensor([at])) * rotate(k, torch.tensor([to]))).sum()

    torch.testing.assert_close(product(one, other), product(one + moved, other + moved), atol=1e-4, rtol=0)
    torch.testing.assert_close(rotate(q, torch.tensor([one])).norm(), q.norm(), atol=1e-5, rtol=0)


def test_pairs_turn_at_the_published_rates() -> None:
    """Position m turns pair i of d / 2 by m * 10000^(-2i / d) (RoFormer, section 3.2.2)."""
    expected = [[m * 10_000 ** (-2 * i / 8) for i in range(4)] for m in (0, 1, 7)]
    torch.testing.assert_close(rotary_angles(torch.tensor([0, 1, 7]), 8), torch.tensor(expected))


def test_different_distances_give_different_products_and_position_0_turns_nothing() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 8)
    at = rotate(k.expand(9, 1, 8), torch.arange(9))[:, 0] @ q[0, 0]
    assert len(set(at.tolist())) == 9
    assert torch.equal(rotate(k, torch.tensor([0])), k)


@pytest.mark.parametrize("build", [tiny_car, tiny_sasrec])
def test_orders_are_told_apart_and_nothing_is_learned_of_positions(build: Callable[..., Any]) -> None:
    model = build(position_encoding="rotary", n_layers=1).eval()
    teach(model)
    with torch.no_grad():
        one, other = (model.score(torch.tensor([uids])) for uids in ([3, 7, 9], [7, 3, 9]))
    assert not torch.allclose(one[0, 1:], other[0, 1:], atol=1e-4)
    assert not [name for name in model.state_dict() if "position" in name]


@torch.no_grad()
def test_one_token_at_a_time_is_all_at_once() -> None:
    torch.manual_seed(1)
    model = Transformer(CONFIG, 12, "rotary").eval()
    teach(model)
    x = torch.randn(3, 9, 16)
    known = torch.tensor([2, 4, 6])
    cache = KVCache(model, x, known)
    for step in range(3):
        at = known + step
        found = cache.extend(x[torch.arange(3), at][:, None, None])[:, 0, 0]
        expected = torch.stack([model(x[row : row + 1, : end + 1])[0, -1] for row, end in enumerate(at)])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_pairs_that_do_not_come_out_even_are_refused() -> None:
    with pytest.raises(ValueError, match="d_model 6 / n_heads 2 is odd"):
        Transformer(ModelConfig(d_model=6, n_heads=2), 12, "rotary")
