"""CAR: what it reads, what it may not see, what it is trained on."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from car_model.models.car import CAR
from tests.car_model.builders import LAYOUTS, SHAPES, tiny_car, tiny_sasrec, tiny_sids
from tests.fixtures import ITEMS

HISTORY = torch.tensor([[3, 17, 9, 48, 1, 22, 30, 5]])
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(params=SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
def car(request: pytest.FixtureRequest) -> CAR:
    return tiny_car(**request.param)


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random_generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(1, ITEMS + 1, (4, 9), generator=random_generator)
    rows[1, 5:] = 0
    rows[3, 2:] = 0
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def test_no_state_depends_on_what_comes_later(car: CAR) -> None:
    car.eval()
    states = car.hidden(HISTORY)
    for i in range(1, HISTORY.shape[1]):
        other = HISTORY.clone()
        other[:, i:] = torch.roll(HISTORY, 3, dims=1)[:, i:]
        changed = car.hidden(other)
        torch.testing.assert_close(changed[:, :i], states[:, :i], rtol=0, atol=1e-6)
        assert not torch.allclose(changed[:, i], states[:, i], atol=1e-4)


def test_padding_and_batch_mates_change_nothing(car: CAR) -> None:
    car.eval()
    short, long = HISTORY[:, :3], torch.roll(HISTORY, 1, dims=1)
    padded = torch.cat([torch.cat([short, torch.zeros(1, 5, dtype=torch.long)], dim=1), long])
    torch.testing.assert_close(car.hidden(padded)[:1, :3], car.hidden(short), rtol=0, atol=1e-6)
    torch.testing.assert_close(car.score(padded)[:1], car.score(short), rtol=0, atol=1e-5)
    torch.testing.assert_close(car.score(padded)[1:], car.score(long), rtol=0, atol=1e-5)


def test_every_item_of_the_history_counts(car: CAR) -> None:
    car.eval()
    scores = car.score(HISTORY)
    for i in range(HISTORY.shape[1]):
        other = HISTORY.clone()
        other[0, i] = 40
        assert not torch.equal(car.score(other), scores)


def test_scores_are_log_probabilities_and_padding_is_never_predicted(car: CAR) -> None:
    scores = car.eval().score(HISTORY)
    assert scores.shape == (1, ITEMS + 1)
    assert torch.isneginf(scores[:, 0]).all()
    assert scores[:, 1:].exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    assert torch.isfinite(scores[:, 1:]).all()


def test_the_loss_is_act_plus_weighted_think(car: CAR) -> None:
    inputs, targets = batch()
    losses = car.loss(inputs, targets)
    states = car.hidden(inputs)[targets != 0]
    target_uids = targets[targets != 0]
    think = car.think_logits(states)
    levels = [F.cross_entropy(think[:, level], car.sids[target_uids, level]) for level in range(3)]
    act = F.cross_entropy(car.act_logits(states), target_uids)
    assert losses["act"].item() == pytest.approx(act.item(), abs=1e-5)
    assert losses["think"].item() == pytest.approx(torch.stack(levels).mean().item(), abs=1e-5)
    whole = losses["act"] + car.config.think_weight * losses["think"]
    assert losses["loss"].item() == pytest.approx(whole.item(), abs=1e-6)


def test_padded_targets_and_their_inputs_teach_nothing(car: CAR) -> None:
    inputs, targets = batch()
    padded = car.loss(inputs[3:], targets[3:])["loss"]
    bare = car.loss(inputs[3:, :1], targets[3:, :1])["loss"]
    assert padded.item() == pytest.approx(bare.item(), abs=1e-6)


def test_gradients_reach_every_parameter_that_is_used(car: CAR) -> None:
    car.loss(*batch())["loss"].backward()
    idle = set()
    if (car.config.layout, car.config.fusion, car.config.tied) == ("collapsed", "none", False):
        idle = {"code.weight"}  # neither read nor a head
    for name, parameter in car.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.any())
        assert reached == (name not in idle), name


def test_padding_gets_no_gradient(car: CAR) -> None:
    car.loss(*batch())["loss"].backward()
    assert car.act_bias.grad is not None
    assert car.act_bias.grad[0] == 0
    assert not car.uid.weight.grad[0].any()  # type: ignore[index]
    assert not car.uid.weight[0].any()


def test_without_think_weight_only_the_act_counts() -> None:
    car = tiny_car(think_weight=0.0)
    losses = car.loss(*batch())
    losses["loss"].backward()
    assert losses["think"] == 0
    assert losses["loss"].item() == losses["act"].item()
    assert car.think_bias.grad is None


def test_heads_of_the_levels_are_independent() -> None:
    car = tiny_car(tied=False)
    states = torch.randn(5, 16)
    before = car.think_logits(states)
    with torch.no_grad():
        car.think_head.weight[4:8] += 1.0  # level 2's rows
    after = car.think_logits(states)
    assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])
    assert not torch.allclose(after[:, 1], before[:, 1])


def test_equal_codes_of_two_levels_are_different_codes() -> None:
    sids = torch.ones(ITEMS + 1, 3, dtype=torch.long)
    logits = tiny_car(sids=sids).think_logits(torch.randn(1, 16))
    assert not torch.allclose(logits[0, 0], logits[0, 1])


@pytest.mark.parametrize("shape", [(ITEMS, 3), (ITEMS + 2, 3), (ITEMS + 1, 2), (ITEMS + 1, 4)])
def test_a_sid_table_of_another_size_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"the SID table is \(\d+, \d\), expected \(49, 3\)"):
        tiny_car(sids=torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize("code", [-1, 4, 1000])
def test_codes_out_of_range_are_refused(code: int) -> None:
    sids = tiny_sids()
    sids[20, 1] = code
    with pytest.raises(ValueError, match=r"codes outside 0\.\.3"):
        tiny_car(sids=sids)


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="d_model 16 must be a multiple of n_heads 3"):
        tiny_car(n_heads=3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_history_as_long_as_the_model_fits_and_one_more_does_not(layout: str) -> None:
    car = tiny_car(layout=layout).eval()
    longest = torch.ones(1, 10, dtype=torch.long)
    assert car.score(longest).shape == (1, ITEMS + 1)
    with pytest.raises(ValueError, match="exceeds the model's"):
        car.score(torch.ones(1, 11, dtype=torch.long))


def test_the_baseline_is_causal_and_blind_to_padding() -> None:
    model = tiny_sasrec().eval()
    padded = F.pad(HISTORY[:, :4], (0, 3))
    torch.testing.assert_close(model.score(padded), model.score(HISTORY[:, :4]), rtol=0, atol=1e-5)
    assert torch.isneginf(model.score(HISTORY)[:, 0]).all()
    inputs, targets = batch()
    logits = model.act_logits(model.transformer(model.uid(inputs))[targets != 0])
    exact = F.cross_entropy(logits, targets[targets != 0])
    assert model.loss(inputs, targets)["loss"].item() == pytest.approx(exact.item(), abs=1e-5)
