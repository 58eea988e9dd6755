"""Training: reproducible, stopped at the right epoch, and honest about what it can't do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from car_model.data.histories import Histories
from car_model.models.baselines import SASRecConfig
from car_model.models.car import CAR
from car_model.training import trainer as training
from car_model.training.trainer import TrainConfig, train, valid_ndcg
from tests.car_model.builders import tiny_car, tiny_sasrec
from tests.fixtures import ITEMS, tiny_histories

CONFIG = TrainConfig(epochs=5, batch_size=16, learning_rate=0.01, threads=1)


@pytest.fixture(scope="module")
def data() -> Histories:
    return tiny_histories()


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def script(patch: pytest.MonkeyPatch, scores: list[float]) -> list[dict[str, torch.Tensor]]:
    """Let validation say these scores, one an epoch; returns the weights it was asked about."""
    seen: list[dict[str, torch.Tensor]] = []

    def scripted(model: CAR, data: Histories) -> float:
        seen.append(weights(model))
        return scores[len(seen) - 1]

    patch.setattr(training, "valid_ndcg", scripted)
    return seen


@pytest.mark.parametrize("make", [tiny_car, tiny_sasrec])
def test_two_runs_are_bit_for_bit_the_same(make: type, data: Histories) -> None:
    runs = []
    for _ in range(2):
        model = make(dropout=0.3)
        runs.append((train(model, data, CONFIG), weights(model)))
    assert runs[0][0] == runs[1][0]
    assert same(runs[0][1], runs[1][1])
    other = make(dropout=0.3)
    train(other, data, CONFIG.model_copy(update={"seed": 1}))
    assert not same(weights(other), runs[0][1])


def test_curves_have_an_entry_an_epoch_and_the_loss_falls(data: Histories) -> None:
    curves = train(tiny_car(), data, CONFIG)
    assert curves.epoch == (1, 2, 3, 4, 5)
    assert {len(curve) for _, curve in curves} == {5}
    assert curves.train_loss[-1] < curves.train_loss[0]
    whole = np.array(curves.act_loss) + 0.1 * np.array(curves.think_loss)
    assert curves.train_loss == pytest.approx(whole.tolist(), abs=1e-5)


def test_the_reported_loss_is_the_mean_over_targets(data: Histories) -> None:
    """With a learning rate too small to move anything, the curve is the untrained model's loss."""
    curves = train(tiny_sasrec(), data, CONFIG.model_copy(update={"learning_rate": 1e-12, "epochs": 1}))
    model, total, targets = tiny_sasrec(), 0.0, 0
    for seq in data.train:
        inputs, wanted = torch.tensor(seq[None, :-1]), torch.tensor(seq[None, 1:])
        total += float(model.loss(inputs, wanted)["loss"].detach()) * len(seq[1:])
        targets += len(seq[1:])
    assert curves.train_loss[0] == pytest.approx(total / targets, abs=1e-5)


def test_stops_after_patience_and_keeps_the_best_epoch(
    data: Histories, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = script(monkeypatch, [0.1, 0.3, 0.2, 0.3, 0.9])
    model = tiny_car()
    curves = train(model, data, CONFIG.model_copy(update={"patience": 2}))
    assert curves.valid_ndcg == (0.1, 0.3, 0.2, 0.3)  # an equal score is no better one
    assert same(weights(model), seen[1])
    assert not same(weights(model), seen[3])


def test_a_better_epoch_renews_patience(data: Histories, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = script(monkeypatch, [0.1, 0.05, 0.2, 0.1, 0.3])
    model = tiny_car()
    assert len(train(model, data, CONFIG.model_copy(update={"patience": 2})).epoch) == 5
    assert same(weights(model), seen[4])


def test_without_validation_items_the_last_epoch_stays(
    data: Histories, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = replace(data, valid=np.zeros_like(data.valid))
    assert valid_ndcg(tiny_car(), nobody) == 0.0
    seen = script(monkeypatch, [0.0] * 5)
    model = tiny_car()
    assert len(train(model, nobody, CONFIG.model_copy(update={"patience": 1})).epoch) == 5
    assert same(weights(model), seen[-1])


def test_the_model_comes_back_ready_to_score(data: Histories) -> None:
    model = tiny_car(dropout=0.5)
    train(model, data, CONFIG.model_copy(update={"epochs": 1}))
    assert not model.training
    assert torch.equal(model.score(torch.tensor([[1, 2]])), model.score(torch.tensor([[1, 2]])))


def test_a_loss_that_is_no_number_stops_with_advice(data: Histories) -> None:
    model = tiny_car()
    with torch.no_grad():
        model.uid.weight[5] = torch.nan
    with pytest.raises(ValueError, match=r"the loss is nan in epoch 1; lower the learning rate"):
        train(model, data, CONFIG)


@pytest.mark.parametrize("lengths", [[], [0], [1, 1, 1]])
def test_nothing_to_learn_from_is_said(lengths: list[int]) -> None:
    holdouts = np.ones(len(lengths), dtype=np.int64)
    users = [f"u{at}" for at in range(len(lengths))]
    short = Histories(users, [np.arange(1, 1 + n) for n in lengths], holdouts, holdouts)
    with pytest.raises(ValueError, match="no user has two training interactions"):
        train(tiny_car(), short, CONFIG)


@pytest.mark.parametrize("rows", [1, 7, 256])
def test_validation_ndcg_is_the_definition(data: Histories, rows: int) -> None:
    model = tiny_car().eval()
    valid = data.valid.copy()
    valid[::3] = 0  # users without a validation item do not count
    gains = []
    for seq, target in zip(data.train, valid, strict=True):
        if not target:
            continue
        scores = model.score(torch.tensor(seq[-10:])[None])[0]
        free = [uid for uid in range(1, ITEMS + 1) if uid not in seq]
        rank = 1 + sum(bool(scores[uid] > scores[target]) for uid in free)
        gains.append(1 / np.log2(rank + 1) if rank <= 10 else 0.0)
    assert valid_ndcg(model, replace(data, valid=valid), rows) == pytest.approx(np.mean(gains))


class Popularity(nn.Module):
    """The least that can be trained: a bias an item."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SASRecConfig(n_items=ITEMS, max_history=10)
        self.bias = nn.Parameter(torch.zeros(ITEMS + 1))

    def loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        wanted = targets[targets != 0]
        act = F.cross_entropy(self.bias.expand(len(wanted), -1), wanted)
        return {"loss": act, "act": act.detach()}

    def score(self, uids: torch.Tensor) -> torch.Tensor:
        return self.bias.repeat(len(uids), 1)


def test_any_module_with_a_loss_and_scores_can_be_trained(data: Histories) -> None:
    model = Popularity()
    curves = train(
        model, data, CONFIG.model_copy(update={"epochs": 20, "learning_rate": 0.1, "patience": 20})
    )
    targets = np.bincount(np.concatenate([seq[1:] for seq in data.train]), minlength=ITEMS + 1)
    learnt = model.bias.detach()[1:].numpy()
    assert np.corrcoef(learnt, np.log(targets[1:] + 0.5))[0, 1] > 0.9
    assert curves.train_loss[-1] < curves.train_loss[0]
    assert curves.think_loss == (0.0,) * len(curves.epoch)


def test_bfloat16_trains_to_about_the_same_and_leaves_float32_weights() -> None:
    models = {"float32": tiny_car(), "bfloat16": tiny_car()}
    curves = {
        name: train(model, tiny_histories(), CONFIG.model_copy(update={"precision": name})).train_loss
        for name, model in models.items()
    }
    assert {weight.dtype for weight in models["bfloat16"].parameters()} == {torch.float32}
    assert curves["bfloat16"] != curves["float32"]
    assert curves["bfloat16"] == pytest.approx(curves["float32"], rel=0.02)


class Constant(Popularity):
    """Its loss is one weight, so that the gradient is what the loop multiplies a batch's loss by."""

    def loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        self.counts.append(int((targets != 0).sum()))
        return {"loss": self.bias[0] + 0 * self.bias.sum(), "act": self.bias[0].detach()}


def test_every_target_counts_the_same_whatever_batch_it_is_in(data: Histories) -> None:
    model, grads = Constant(), []
    model.counts = []  # type: ignore[assignment]
    model.bias.register_hook(lambda grad: grads.append(float(grad[0])))
    short = [seq[: 2 + at % 9] for at, seq in enumerate(data.train)]
    train(model, replace(data, train=short), CONFIG.model_copy(update={"epochs": 1, "batch_size": 8}))
    assert len(set(model.counts)) > 3
    mean = sum(model.counts) / len(model.counts)
    assert grads == pytest.approx([count / mean for count in model.counts], rel=1e-5)
