"""Reading many histories at once: the states are those of each alone, and of the model itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from car_model.data.histories import pad
from car_model.recommender.history_encoder import HistoryEncoder, leave_one_out
from tests.car_model.builders import SHAPES, tiny_car

ITEMS = 48
histories = st.lists(
    st.lists(st.integers(1, ITEMS), min_size=1, max_size=25).map(np.array), min_size=1, max_size=9
)


@pytest.mark.parametrize("shape", SHAPES)
def test_states_are_those_of_the_model(shape: dict[str, Any]) -> None:
    model = tiny_car(**shape).eval()
    batch = [np.arange(1, n + 1) for n in (3, 1, 10, 30, 3)]
    with torch.inference_mode():
        encoded, expected = (
            HistoryEncoder(model).encode(batch),
            model.last_state(pad(batch, model.config.max_history)),
        )
    assert encoded.dtype == torch.float64
    torch.testing.assert_close(encoded.float(), expected, rtol=0, atol=1e-5)


@given(histories)
@settings(max_examples=50, deadline=None)
def test_what_is_read_of_one_does_not_depend_on_the_others(batch: list[np.ndarray]) -> None:
    encoder = HistoryEncoder(tiny_car().eval())
    with torch.inference_mode():
        alone = torch.cat([encoder.encode([sequence]) for sequence in batch])
        torch.testing.assert_close(encoder.encode(batch), alone, rtol=0, atol=1e-12)
        for sequence, states in zip(batch, encoder.encode_leave_one_out(batch), strict=True):
            torch.testing.assert_close(
                states, encoder.encode_leave_one_out([sequence])[0], rtol=0, atol=1e-12
            )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("recent", [1, 4, 10, 11, 99])
def test_what_is_left_is_read_as_if_it_were_all(shape: dict[str, Any], recent: int) -> None:
    model = tiny_car(**shape).eval()  # reads ten
    batch = [
        np.random.default_rng(n).integers(1, 49, size=n) for n in (1, 2, 3, 4, 9, 10, 11, 14, 15, 16, 30)
    ]
    with torch.inference_mode():
        for history, encoded in zip(
            batch, HistoryEncoder(model).encode_leave_one_out(batch, recent), strict=True
        ):
            shortened = leave_one_out(history, recent)
            expected = [model.last_state(pad([sequence], model.config.max_history)) for sequence in shortened]
            assert len(encoded) == (0 if len(history) == 1 else min(recent, len(history)))
            if shortened:
                torch.testing.assert_close(encoded.float(), torch.cat(expected), rtol=0, atol=1e-5)


def test_each_of_the_latest_items_is_left_out_once_the_latest_first() -> None:
    assert [sequence.tolist() for sequence in leave_one_out(np.array([7, 8, 9]), 2)] == [[7, 8], [7, 9]]
    assert [sequence.tolist() for sequence in leave_one_out(np.array([7, 7]), 5)] == [[7], [7]]
    assert leave_one_out(np.array([7])) == []
