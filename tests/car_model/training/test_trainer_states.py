"""A resumable state is continued by its own run and no other; learning rates; limits of settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from car_model.data.histories import Histories
from car_model.training import trainer as training
from car_model.training.trainer import TrainConfig, schedule, train
from tests.car_model.builders import tiny_car, tiny_sids
from tests.fixtures import tiny_histories

CONFIG = TrainConfig(epochs=2, batch_size=16, learning_rate=0.01, threads=1)


@pytest.fixture(scope="module")
def data() -> Histories:
    return tiny_histories()


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for each epoch that was trained; validation is measured as ever."""
    trained: list[int] = []
    measure = training.valid_ndcg

    def measured(*arguments: Any) -> float:
        trained.append(1)
        return measure(*arguments)

    monkeypatch.setattr(training, "valid_ndcg", measured)
    return trained


def test_its_own_state_is_continued(data: Histories, tmp_path: Path, epochs: list[int]) -> None:
    first, again = tiny_car(), tiny_car()
    curves = train(first, data, CONFIG, tmp_path, start="a")
    assert len(epochs) == 2
    assert train(again, data, CONFIG, tmp_path, start="a") == curves
    assert len(epochs) == 2  # nothing was left to train
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def shorter(data: Histories) -> Histories:
    """A history without its last training item."""
    return replace(data, train=[data.train[0][:-1], *data.train[1:]])


def other_target(data: Histories) -> Histories:
    """Another validation item of one user."""
    valid = data.valid.copy()
    valid[-1] = valid[-1] % 40 + 1
    return replace(data, valid=valid)


@pytest.mark.parametrize(
    "changes",
    [
        {"start": "b"},
        {"start": ""},
        {"data": shorter},
        {"data": other_target},
        {"config": CONFIG.model_copy(update={"seed": 1})},
        {"config": CONFIG.model_copy(update={"weight_decay": 0.1})},
        {"model": lambda: tiny_car(sids=tiny_sids(seed=1))},
        {"model": lambda: tiny_car(max_history=9)},
    ],
    ids=[
        "another start",
        "no start",
        "shorter data",
        "other target",
        "seed",
        "weight decay",
        "SIDs",
        "history",
    ],
)
def test_the_state_of_another_run_is_left_alone(
    data: Histories, tmp_path: Path, epochs: list[int], changes: dict[str, Any]
) -> None:
    train(tiny_car(), data, CONFIG, tmp_path, start="a")
    epochs.clear()
    model = changes.get("model", tiny_car)()
    changed = changes.get("data", lambda same: same)(data)
    train(model, changed, changes.get("config", CONFIG), tmp_path, start=changes.get("start", "a"))
    assert len(epochs) == 2


@given(st.integers(1, 2000), st.floats(0, 1))
def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing(total: int, warmup: float) -> None:
    rates = [schedule(step, total, warmup) for step in range(total + 1)]
    peak = max(range(total + 1), key=rates.__getitem__)
    assert all(0 <= rate <= 1 for rate in rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert peak <= max(1.0, warmup * total)


def test_without_warm_up_the_peak_comes_first_and_half_way_the_rate_is_half() -> None:
    assert schedule(0, 1000, 0.0) == 1
    assert schedule(0, 1000, 0.1) == pytest.approx(0.01)
    assert schedule(49, 1000, 0.1) == pytest.approx(0.5, rel=0.01)
    assert schedule(500, 1000, 0.05) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("setting", "allowed", "refused"),
    [
        ("epochs", [1], [0]),
        ("batch_size", [1], [0]),
        ("learning_rate", [1e-9], [0, -1e-3]),
        ("weight_decay", [0, 0.1], [-0.1]),
        ("warmup", [0, 0.05, 1], [-0.01, 1.01]),
        ("patience", [1], [0]),
        ("threads", [0, 1], [-1]),
        ("seed", [0, 7], ["x"]),
        ("batching", ["length"], ["size"]),
    ],
)
def test_settings_have_these_limits(setting: str, allowed: list[Any], refused: list[Any]) -> None:
    for value in allowed:
        assert getattr(TrainConfig(**{setting: value}), setting) == value
    for value in refused:
        with pytest.raises(ValidationError, match=setting):
            TrainConfig(**{setting: value})
