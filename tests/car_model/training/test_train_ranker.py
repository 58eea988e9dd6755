"""A ranker learns what past actions tell, the same way every time, killed or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from car_model.action_ranker.data import ActionHistories
from car_model.action_ranker.model import ARCHITECTURES, ActionRanker, RankerConfig
from car_model.metrics.actions import action_metrics
from car_model.training.distributed import World
from car_model.training.train_ranker import like_objective, predict, train_ranker
from car_model.training.trainer import TrainConfig, TrainingRun
from tests.car_model.action_ranker.rankers import LIKED, halves, tastes
from tests.car_model.builders import tiny_sids
from tests.fixtures import ITEMS

BUDGET = TrainConfig(epochs=3, batch_size=8, learning_rate=3e-3, patience=9, seed=1, threads=1)
each = pytest.mark.parametrize("architecture", ARCHITECTURES)


def fresh(architecture: str, **changes: float) -> ActionRanker:
    torch.manual_seed(5)
    config = RankerConfig(ITEMS, 3, 4, LIKED, d_model=16, max_history=12, dropout=0.1)
    return ActionRanker(replace(config, architecture=architecture, **changes), tiny_sids())


def weights(model: ActionRanker) -> list[torch.Tensor]:
    return list(model.state_dict().values())


def same(one: ActionRanker, other: ActionRanker) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


LEARNT = BUDGET.model_copy(update={"epochs": 40, "learning_rate": 1e-2, "patience": 40, "batch_size": 16})


def auc(model: ActionRanker, data: ActionHistories) -> float:
    found = predict(model, data, "test")
    said = action_metrics(found.labels, found.probabilities).auc
    assert said is not None
    return said


@pytest.mark.parametrize(("architecture", "epochs"), [("lfa", 40), ("mvp", 20)])
def test_what_alike_items_were_given_before_tells_the_next_action(architecture: str, epochs: int) -> None:
    data = halves(users=120)
    model = fresh(architecture, dropout=0.0)
    train_ranker(model, data, LEARNT.model_copy(update={"epochs": epochs}))
    shuffled = replace(data, actions=[np.random.default_rng(0).permutation(row) for row in data.actions])
    assert auc(model, data) > 0.9  # items alone tell nothing: either half is liked by half of the users
    assert auc(model, shuffled) < 0.6


@each
def test_who_likes_much_is_known_by_past_actions(architecture: str) -> None:
    rng = np.random.default_rng(0)
    data = tastes(users=120)
    moods = [(rng.random(len(row)) < rng.choice([0.1, 0.9])).astype(np.int64) for row in data.uids]
    data = replace(data, actions=[1 + row for row in moods])
    model = fresh(architecture, dropout=0.0)
    train_ranker(model, data, LEARNT.model_copy(update={"epochs": 10, "batch_size": 8}))
    assert auc(model, data) > 0.8


@each
def test_equal_seeds_give_equal_weights_and_other_seeds_do_not(architecture: str) -> None:
    one, other, third = (fresh(architecture) for _ in range(3))
    curves = [train_ranker(model, tastes(), BUDGET) for model in (one, other)]
    train_ranker(third, tastes(), BUDGET.model_copy(update={"seed": 2}))
    assert curves[0] == curves[1]
    assert same(one, other)
    assert not same(one, third)


@each
def test_a_run_that_was_killed_goes_on_to_the_very_weights(architecture: str, tmp_path: Path) -> None:
    whole, killed, resumed = (fresh(architecture) for _ in range(3))
    expected = train_ranker(whole, tastes(), BUDGET)
    run = TrainingRun(like_objective(killed, tastes(), BUDGET), BUDGET, tmp_path / "state", World())
    torch.manual_seed(BUDGET.seed)
    run.run_epoch()
    found = train_ranker(resumed, tastes(), BUDGET, tmp_path / "state")
    assert found == expected
    assert same(whole, resumed)


def test_a_state_of_other_data_is_left_alone(tmp_path: Path) -> None:
    first, again, whole = (fresh("mvp") for _ in range(3))
    train_ranker(first, tastes(seed=1), BUDGET, tmp_path / "state")
    train_ranker(again, tastes(), BUDGET, tmp_path / "state")
    train_ranker(whole, tastes(), BUDGET)
    assert same(again, whole)


def test_the_epoch_of_the_lowest_validation_loss_is_kept() -> None:
    model, data = fresh("lfa"), tastes()
    curves = train_ranker(model, data, BUDGET.model_copy(update={"epochs": 30, "learning_rate": 2e-2}))
    found = predict(model, data, "valid")
    loss = action_metrics(found.labels, found.probabilities).log_loss
    assert loss == pytest.approx(min(curves.valid_log_loss))
    assert min(curves.valid_log_loss) < curves.valid_log_loss[-1]


def test_waiting_for_a_better_epoch_ends_with_patience() -> None:
    curves = train_ranker(
        fresh("lfa"),
        tastes(),
        BUDGET.model_copy(update={"epochs": 200, "learning_rate": 2e-2, "patience": 2}),
    )
    assert len(curves.epoch) < 200
    assert int(np.argmin(curves.valid_log_loss)) == len(curves.epoch) - 3


def test_predictions_stand_in_the_order_of_the_histories() -> None:
    data = tastes()
    found = predict(fresh("mvp").eval(), data, "test")
    assert found.labels.tolist() == [a - 1 for row in data.actions for a in row[-2:]]
    assert found.rows.tolist() == np.repeat(np.arange(len(data.users)), 2).tolist()


def test_without_validation_actions_the_last_epoch_stays() -> None:
    data = tastes()
    none = replace(data, parts=[np.where(parts == 1, 0, parts) for parts in data.parts])
    model = fresh("mvp")
    run = TrainingRun(like_objective(model, none, BUDGET), BUDGET, None, World())
    for _ in range(2):
        run.run_epoch()
    assert all(torch.equal(run.best[name], tensor) for name, tensor in model.state_dict().items())
    assert not len(predict(model, none, "valid").labels)


def test_nothing_to_learn_from_is_said() -> None:
    data = tastes(users=3)
    blind = replace(data, actions=[np.zeros_like(actions) for actions in data.actions])
    with pytest.raises(ValueError, match="no training interaction has an action"):
        train_ranker(fresh("mvp"), blind, BUDGET)


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    model = fresh("mvp")
    with torch.no_grad():
        model.uid.weight[1:] = torch.nan
    data: ActionHistories = tastes()
    with pytest.raises(ValueError, match="lower the learning rate"):
        train_ranker(model, data, BUDGET)
