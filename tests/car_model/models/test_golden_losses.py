"""Losses of five training steps, recorded: a change of the model's arithmetic shows here first.

After a change that is meant to alter them, run this file with REGENERATE_GOLDEN=1
and say in the commit why they moved.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from car_model.data.histories import batches
from car_model.models.baselines import SASRec
from car_model.models.car import CAR
from tests.car_model.builders import tiny_car, tiny_sasrec
from tests.fixtures import tiny_histories

GOLDEN = Path(__file__).parent / "golden" / "losses.json"
STEPS = 5
MODELS: dict[str, Callable[[], CAR | SASRec]] = {
    "car": tiny_car,
    "car, untied": lambda: tiny_car(tied=False),
    "car, full layout": lambda: tiny_car(layout="full", think_weight=1.0),
    "sasrec": tiny_sasrec,
}


def losses(model: CAR | SASRec) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    inputs, targets = next(batches(tiny_histories().train, 10, 16, np.random.default_rng(0)))
    found = []
    for _ in range(STEPS):
        loss = model.loss(inputs, targets)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(round(loss.item(), 6))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_five_steps_give_the_recorded_losses(name: str) -> None:
    found = losses(MODELS[name]())
    if os.environ.get("REGENERATE_GOLDEN") == "1":
        known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps({**known, name: found}, indent=1, sort_keys=True) + "\n")
    assert found == pytest.approx(json.loads(GOLDEN.read_text())[name], abs=1e-4)
    assert len(found) == STEPS
    assert found[-1] < found[0]
