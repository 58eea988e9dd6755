"""A model read back is the model that was written, bit for bit, and scores like it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from car_model.models.baselines import SASRec
from car_model.models.car import CAR
from car_model.weights import CheckpointError, load_car, load_sasrec, save_model
from tests.car_model.builders import SHAPES, tiny_car, tiny_sasrec, tiny_sids

HISTORIES = torch.tensor([[3, 17, 9, 48, 1], [22, 30, 0, 0, 0]])


def stirred(model: CAR | SASRec) -> CAR | SASRec:
    """Every weight another than a fresh model's, as training leaves it."""
    torch.manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def same(back: CAR | SASRec, model: CAR | SASRec) -> None:
    assert type(back) is type(model)
    assert back.config == model.config
    assert not back.training
    assert back.state_dict().keys() == model.state_dict().keys()
    for name, weight in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], weight), name
    assert torch.equal(back.score(HISTORIES), model.eval().score(HISTORIES))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
def test_car_comes_back_as_it_was(shape: dict[str, Any], tmp_path: Path) -> None:
    model = stirred(tiny_car(**shape, dropout=0.3, think_weight=0.7))
    save_model(model, tmp_path)
    torch.manual_seed(99)  # what a fresh model would be filled with must not show
    back = load_car(tmp_path, tiny_sids())
    same(back, model)
    assert torch.equal(
        back.think_logits(back.last_state(HISTORIES)), model.think_logits(model.last_state(HISTORIES))
    )


def test_the_baseline_comes_back_as_it_was(tmp_path: Path) -> None:
    model = stirred(tiny_sasrec(dropout=0.3))
    save_model(model, tmp_path)
    torch.manual_seed(99)
    same(load_sasrec(tmp_path), model)


def test_writing_twice_gives_the_same_bytes_and_changes_nothing(tmp_path: Path) -> None:
    model = stirred(tiny_car())
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    save_model(model, tmp_path / "one")
    save_model(load_car(tmp_path / "one", tiny_sids()), tmp_path / "two")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in before.items())


def test_the_sid_table_is_the_callers(tmp_path: Path) -> None:
    """It is the catalogue's, and written there alone."""
    model = stirred(tiny_car())
    save_model(model, tmp_path)
    assert "sids" not in load_file(tmp_path / "model.safetensors")
    other = tiny_sids(seed=9)
    back = load_car(tmp_path, other)
    assert torch.equal(back.sids, other)
    assert not torch.equal(back.score(HISTORIES), model.eval().score(HISTORIES))


def test_the_configuration_is_plain_json(tmp_path: Path) -> None:
    model = tiny_car(tied=False, layout="full")
    save_model(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {"kind": "CAR", **asdict(model.config)}


def test_weights_of_another_kind_or_size_are_refused(tmp_path: Path) -> None:
    save_model(tiny_sasrec(), tmp_path / "sasrec")
    save_model(tiny_car(), tmp_path / "car")
    with pytest.raises(CheckpointError, match="does not describe a CAR"):
        load_car(tmp_path / "sasrec", tiny_sids())
    with pytest.raises(CheckpointError, match="does not describe a SASRec"):
        load_sasrec(tmp_path / "car")
    (tmp_path / "sasrec" / "model.safetensors").replace(tmp_path / "car" / "model.safetensors")
    with pytest.raises(CheckpointError, match="does not fit its config"):
        load_car(tmp_path / "car", tiny_sids())
