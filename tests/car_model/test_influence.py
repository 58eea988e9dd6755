"""Taking items out of a history: the quick way gives the states of the plain one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from car_model.influence import falls, states_without, without
from car_model.sequences import pad
from tests.car_model.builders import SHAPES, tiny_car


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("length", [2, 3, 4, 5, 9, 10, 11, 30])  # the model reads ten
def test_states_are_those_of_the_shortened_histories(shape: dict[str, Any], length: int) -> None:
    model = tiny_car(**shape).eval()
    history = np.random.default_rng(length).integers(1, 49, size=length)
    with torch.inference_mode():
        found = states_without(model, history, recent=4)
        rest = without(history, recent=4)
        expected = torch.cat([model.last_state(pad([one], model.config.history)) for one in rest])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("recent", [1, 10, 11, 99])
def test_any_number_of_items_may_be_taken_out(recent: int) -> None:
    model = tiny_car().eval()
    history = np.arange(1, 31)
    with torch.inference_mode():
        found = states_without(model, history, recent)
        expected = model.last_state(pad(without(history, recent), model.config.history))
    assert len(found) == min(recent, 30)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_each_of_the_latest_items_is_left_out_once_the_latest_first() -> None:
    assert [one.tolist() for one in without(np.array([7, 8, 9]), 2)] == [[7, 8], [7, 9]]
    assert [one.tolist() for one in without(np.array([7, 7]), 5)] == [[7], [7]]


def test_a_fall_is_beyond_what_others_lose() -> None:
    scores = torch.tensor([[5.0, 3.0, 1.0], [1.0, 2.0, 0.0]])
    assert falls(scores, 1).tolist() == [[3.0]]
    assert falls(scores, 2).tolist() == [[3.0], [0.0]]
