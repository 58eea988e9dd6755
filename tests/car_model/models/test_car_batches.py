"""Who else is in a batch, and in which order, is nobody's business: neither in scores nor in the loss."""

from __future__ import annotations

import pytest
import torch

from car_model.data.histories import Histories, pad
from car_model.models.baselines import SASRec
from car_model.models.car import CAR
from car_model.training.trainer import valid_ndcg
from tests.car_model.builders import SHAPES, tiny_car, tiny_sasrec
from tests.fixtures import ITEMS, tiny_histories

LENGTHS = (4, 10, 2, 7, 7, 3)
ORDER = torch.tensor([3, 0, 5, 1, 4, 2])
Model = CAR | SASRec


@pytest.fixture(
    params=[*SHAPES, None], ids=lambda shape: "-".join(map(str, shape.values())) if shape else "sasrec"
)
def model(request: pytest.FixtureRequest) -> Model:
    return (tiny_car(**request.param) if request.param else tiny_sasrec()).double()


def rows() -> torch.Tensor:
    """Six users' last items, right-padded: [6, 10]."""
    random_generator = torch.Generator().manual_seed(0)
    return pad([torch.randint(1, ITEMS + 1, (n,), generator=random_generator).numpy() for n in LENGTHS], 10)


def taught(model: Model, table: torch.Tensor) -> dict[str, torch.Tensor]:
    """The losses of a batch and, by name, the gradients they leave."""
    model.zero_grad(set_to_none=True)
    losses = model.loss(table[:, :-1].contiguous(), table[:, 1:].contiguous())
    losses["loss"].backward()
    grads = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return {**{part: value.detach() for part, value in losses.items()}, **grads}


def test_scores_follow_their_user_through_any_batch(model: Model) -> None:
    model.eval()
    table = rows()
    scores = model.score(table)
    assert not torch.allclose(scores[3], scores[4], atol=1e-3)  # two users of one length
    torch.testing.assert_close(model.score(table[ORDER]), scores[ORDER], rtol=0, atol=1e-9)
    for at, length in enumerate(LENGTHS):
        torch.testing.assert_close(model.score(table[at : at + 1, :length])[0], scores[at], rtol=0, atol=1e-9)


def test_neither_loss_nor_gradients_depend_on_the_order_of_rows(model: Model) -> None:
    table = rows()
    found, other = taught(model, table), taught(model, table[ORDER])
    assert found.keys() == other.keys()
    for name, value in found.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=1e-9)


def test_the_loss_of_a_batch_is_its_targets_mean_whatever_row_they_are_in(model: Model) -> None:
    table, steps = rows(), torch.tensor(LENGTHS, dtype=torch.float64) - 1
    alone = [taught(model, table[at : at + 1, :length]) for at, length in enumerate(LENGTHS)]
    for name, value in taught(model, table).items():
        parts = torch.stack([one[name] for one in alone])
        mean = torch.tensordot(steps / steps.sum(), parts, dims=1)
        torch.testing.assert_close(value, mean, rtol=0, atol=1e-9)


def test_validation_does_not_depend_on_the_order_of_users(model: Model) -> None:
    data = tiny_histories(users=24)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1)).tolist()
    shuffled = Histories(
        [data.users[at] for at in order],
        [data.train[at] for at in order],
        data.valid[order],
        data.test[order],
    )
    found = {round(valid_ndcg(model, one, size), 12) for one in (data, shuffled) for size in (5, 256)}
    assert len(found) == 1
