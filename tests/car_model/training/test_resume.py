"""A run killed at any moment and started again ends with the very weights of one that was not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.models.autoregressive import ARConfig, AutoRegressive
from car_model.data.histories import Histories
from car_model.models.baselines import SASRec
from car_model.models.car import CAR
from car_model.training import checkpoint
from car_model.training import trainer as training
from car_model.training.trainer import TrainConfig, train
from tests.car_model.builders import SIZES, tiny_car, tiny_sasrec, tiny_sids
from tests.fixtures import tiny_histories

pytestmark = pytest.mark.integration  # trains many models

CONFIG = TrainConfig(epochs=4, batch_size=8, learning_rate=0.01, threads=1)
FILES = ("model.safetensors", "best.safetensors", "optimizer.safetensors", "state.json")
Make = Callable[..., CAR | SASRec | AutoRegressive]


class Killed(BaseException):
    """Not an Exception: nothing in the library may catch it, as nothing catches a kill."""


@pytest.fixture(scope="module")
def data() -> Histories:
    return tiny_histories(users=16)


def result(make: Make, data: Histories, folder: Path | None, config: TrainConfig = CONFIG) -> list[Any]:
    model = make()
    curves = train(model, data, config, folder)
    return [curves, {name: tensor.tolist() for name, tensor in model.state_dict().items()}]


@pytest.fixture(scope="module")
def uninterrupted(data: Histories) -> list[Any]:
    """What training tiny_car gives when nothing happens."""
    return result(tiny_car, data, None)


def killed_at(epoch: int, make: Make, data: Histories, folder: Path) -> None:
    """Train until validation of an epoch, and die there."""
    left = [epoch]

    def dies(model: CAR | SASRec, data: Histories) -> float:
        left[0] -= 1
        if not left[0]:
            raise Killed
        return measure(model, data)

    measure = training.valid_ndcg
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training, "valid_ndcg", dies)
        train(make(), data, CONFIG, folder)


def car_with_dropout() -> CAR:
    return tiny_car(dropout=0.3)


def autoregressive(seed: int = 0) -> AutoRegressive:
    """Another model of SIDs, whose table is no weight of it."""
    torch.manual_seed(0)
    config = ARConfig(**SIZES, n_layers=1, dropout=0.3, beam=4)
    return AutoRegressive(config, tiny_sids(seed=seed))


@pytest.mark.parametrize("make", [car_with_dropout, lambda: tiny_sasrec(dropout=0.3), autoregressive])
@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_a_killed_run_ends_like_one_that_was_not(
    make: Make, epoch: int, data: Histories, tmp_path: Path
) -> None:
    killed_at(epoch, make, data, tmp_path / "state")
    assert result(make, data, tmp_path / "state") == result(make, data, None)


def test_a_run_killed_twice_does_too(data: Histories, tmp_path: Path) -> None:
    killed_at(2, car_with_dropout, data, tmp_path / "state")
    killed_at(2, car_with_dropout, data, tmp_path / "state")
    assert result(car_with_dropout, data, tmp_path / "state") == result(car_with_dropout, data, None)


def test_a_finished_run_is_not_trained_again(
    data: Histories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = result(tiny_car, data, tmp_path / "state")
    monkeypatch.setattr(training, "batches", lambda *_: pytest.fail("trained again"))
    assert result(tiny_car, data, tmp_path / "state") == first


def test_a_run_that_ran_out_of_patience_stays_stopped(
    data: Histories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "valid_ndcg", lambda *_: 0.5)
    config = CONFIG.model_copy(update={"patience": 1})
    first = result(tiny_car, data, tmp_path / "state", config)
    assert first[0].epoch == (1, 2)
    assert result(tiny_car, data, tmp_path / "state", config) == first


@pytest.mark.parametrize(
    "config",
    [
        CONFIG.model_copy(update={"learning_rate": 0.02}),
        CONFIG.model_copy(update={"epochs": 5}),
        CONFIG.model_copy(update={"seed": 1}),
        CONFIG.model_copy(update={"batch_size": 4}),
    ],
)
def test_the_state_of_another_configuration_is_ignored(
    config: TrainConfig, data: Histories, tmp_path: Path
) -> None:
    killed_at(3, tiny_car, data, tmp_path / "state")
    assert result(tiny_car, data, tmp_path / "state", config) == result(tiny_car, data, None, config)


@pytest.mark.parametrize(
    "make",
    [
        lambda: tiny_car(sids=tiny_sids(seed=9)),  # same sizes, another codebook
        lambda: tiny_car(tied=False),
        lambda: tiny_car(think_weight=0.5),
        tiny_sasrec,
    ],
)
def test_the_state_of_another_model_is_ignored(make: Make, data: Histories, tmp_path: Path) -> None:
    killed_at(3, tiny_car, data, tmp_path / "state")
    assert result(make, data, tmp_path / "state") == result(make, data, None)


def test_the_state_of_another_sid_table_is_ignored_by_any_model(data: Histories, tmp_path: Path) -> None:
    killed_at(3, autoregressive, data, tmp_path / "state")
    other = partial(autoregressive, seed=9)
    assert result(other, data, tmp_path / "state") == result(other, data, None)


def test_the_state_of_other_data_is_ignored(data: Histories, tmp_path: Path) -> None:
    killed_at(3, tiny_car, data, tmp_path / "state")
    other = tiny_histories(users=16, seed=5)
    assert result(tiny_car, other, tmp_path / "state") == result(tiny_car, other, None)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_a_damaged_state_costs_time_not_the_run(
    name: str, damage: str, data: Histories, uninterrupted: list[Any], tmp_path: Path
) -> None:
    killed_at(3, tiny_car, data, tmp_path / "state")
    path = tmp_path / "state" / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2 if damage == "cut" else 0])
    assert result(tiny_car, data, tmp_path / "state") == uninterrupted


def dies_at(moment: int, patch: pytest.MonkeyPatch) -> None:
    """Let the given file operation of the checkpoint module, counted from one, be the process's last."""
    left, removed, renamed = [moment], shutil.rmtree, Path.rename

    def last() -> bool:
        left[0] -= 1
        return not left[0]

    def rmtree(folder: Path, ignore_errors: bool = False) -> None:
        if last():
            for path in sorted(folder.glob("*"))[:2]:  # half of it is gone already
                path.unlink()
            raise Killed
        removed(folder, ignore_errors=ignore_errors)

    def rename(path: Path, target: Path) -> Path:
        if last():
            raise Killed
        return renamed(path, target)

    patch.setattr(checkpoint.shutil, "rmtree", rmtree)
    patch.setattr(Path, "rename", rename)


@pytest.mark.parametrize("moment", range(1, 13))
def test_killed_at_any_file_operation_of_a_save(
    moment: int, data: Histories, uninterrupted: list[Any], tmp_path: Path
) -> None:
    """Four or five a save: three removals, left half-way here, and one or two moves."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        dies_at(moment, patch)
        train(tiny_car(), data, CONFIG, tmp_path / "state")
    assert result(tiny_car, data, tmp_path / "state") == uninterrupted
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_killed_between_the_two_moves_no_epoch_is_lost(
    data: Histories, uninterrupted: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_at(4, tiny_car, data, tmp_path / "state")
    (tmp_path / "state").rename(tmp_path / "state.before")
    trained = []
    monkeypatch.setattr(training.TrainingRun, "run_epoch", counted(training.TrainingRun.run_epoch, trained))
    assert result(tiny_car, data, tmp_path / "state") == uninterrupted
    assert trained == [3]  # the last epoch alone


def counted(run_epoch: Callable[[Any], None], seen: list[int]) -> Callable[[Any], None]:
    def counting(run: Any) -> None:
        seen.append(run.epoch)
        run_epoch(run)

    return counting


def test_nothing_in_the_state_is_a_pickle(data: Histories, tmp_path: Path) -> None:
    killed_at(3, tiny_car, data, tmp_path / "state")
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == sorted(FILES)
    assert not torch.equal(
        checkpoint.load_file(tmp_path / "state" / "model.safetensors")["uid.weight"], tiny_car().uid.weight
    )
