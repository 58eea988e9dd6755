"""Which items of a history an answer rests on."""

from __future__ import annotations

import torch

from car_model.recommender.explain import leave_one_out_drop


def test_a_fall_is_beyond_what_others_lose() -> None:
    scores = torch.tensor([[5.0, 3.0, 1.0], [1.0, 2.0, 0.0]])
    assert leave_one_out_drop(scores, 1).tolist() == [[3.0]]
    assert leave_one_out_drop(scores, 2).tolist() == [[3.0], [0.0]]
