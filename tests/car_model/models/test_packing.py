"""Packed equals padded: states and gradients do not know how a batch was laid out."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from car_model.models.baselines import SASRec
from car_model.models.car import CAR
from car_model.models.packing import Packing
from car_model.models.transformer import Dropout, causal_attention
from tests.car_model.builders import tiny_car, tiny_sasrec
from tests.fixtures import ITEMS

SHAPES = list(itertools.product(("collapsed", "full"), ("sum", "none"), (True, False)))
LENGTHS = [4, 1, 10, 4, 7, 1, 10]


def batch(lengths: list[int] = LENGTHS) -> torch.Tensor:
    """Right-padded histories [B, T] of these lengths."""
    random_generator = torch.Generator().manual_seed(3)
    rows = torch.randint(1, ITEMS + 1, (len(lengths), max(lengths)), generator=random_generator)
    return rows * (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


def padded_states(model: CAR | SASRec, uids: torch.Tensor) -> torch.Tensor:
    """The definition: the causal transformer over the padded batch, [B, T, D]."""
    if isinstance(model, SASRec):
        return model.transformer(model.uid(uids))
    states = model.transformer(model.embed(uids).flatten(1, 2))
    return states.unflatten(1, (-1, model.config.slots))[:, :, -1]


def padded_loss(model: CAR | SASRec, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    keep = targets != 0
    states, target_uids = padded_states(model, inputs)[keep], targets[keep]
    act = F.cross_entropy(model.act_logits(states), target_uids)
    if isinstance(model, SASRec):
        return act
    think = F.cross_entropy(model.think_logits(states).flatten(0, 1), model.sids[target_uids].flatten())
    return act + model.config.think_weight * think


def gradients(model: CAR | SASRec, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def models() -> dict[str, Callable[[], CAR | SASRec]]:
    found: dict[str, Callable[[], CAR | SASRec]] = {"sasrec": tiny_sasrec}
    for layout, fusion, tied in SHAPES:
        make = partial(tiny_car, layout=layout, fusion=fusion, tied=tied)
        found[f"{layout}-{fusion}-{tied}"] = make
    return found


MODELS = models()


@pytest.mark.parametrize("name", MODELS)
def test_packed_and_padded_have_one_loss_and_one_gradient(name: str) -> None:
    model, uids = MODELS[name](), batch()
    inputs, targets = uids[:, :-1], uids[:, 1:]
    ours, exact = model.loss(inputs, targets)["loss"], padded_loss(model, inputs, targets)
    torch.testing.assert_close(ours, exact, rtol=0, atol=1e-5)
    packed, padded = gradients(model, ours), gradients(model, exact)
    assert packed.keys() == padded.keys()
    for key, grad in packed.items():
        torch.testing.assert_close(grad, padded[key], rtol=0, atol=1e-5, msg=key)


@pytest.mark.parametrize(("layout", "fusion", "tied"), SHAPES)
def test_packed_and_padded_have_the_same_states(layout: str, fusion: str, tied: bool) -> None:
    model, uids = tiny_car(layout=layout, fusion=fusion, tied=tied), batch()
    real = uids != 0
    found, exact = model.hidden(uids), padded_states(model, uids)
    torch.testing.assert_close(found[real], exact[real], rtol=0, atol=1e-5)
    assert not found[~real].any()
    last = exact[torch.arange(len(uids)), real.sum(dim=1) - 1]
    torch.testing.assert_close(model.last_state(uids), last, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", ["collapsed", "full"])
def test_attention_may_read_the_padded_batch_instead(layout: str) -> None:
    model, uids = tiny_car(layout=layout), batch()
    packing = Packing.from_mask(uids != 0)
    runs, padded = (model.packed_hidden(uids, replace(packing, padded=flag)) for flag in (False, True))
    torch.testing.assert_close(padded, runs, rtol=0, atol=1e-5)
    ours, exact = (gradients(model, states.square().sum()) for states in (padded, runs))
    for key, grad in exact.items():
        torch.testing.assert_close(ours[key], grad, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("fusion", ["sum", "none"])
@pytest.mark.parametrize("layout", ["collapsed", "full"])
def test_the_act_head_reads_every_items_own_last_slot(layout: str, fusion: str) -> None:
    model = tiny_car(layout=layout, fusion=fusion)
    every = torch.arange(ITEMS + 1)
    weigh = torch.randn(ITEMS + 1, 16, generator=torch.Generator().manual_seed(1))
    weigh[0] = 0  # padding is never predicted
    found, exact = model.item_vectors(), model.embed(every)[:, -1]
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-6)
    ours, plain = gradients(model, (found * weigh).sum()), gradients(model, (exact * weigh).sum())
    for key, grad in ours.items():
        torch.testing.assert_close(grad, plain[key], rtol=0, atol=1e-5, msg=key)


def test_changed_sids_change_the_item_vectors_and_their_gradient() -> None:
    model = tiny_car()
    gradients(model, model.item_vectors().sum())
    model.sids[1:] = 2
    found = gradients(model, model.item_vectors()[1:].sum())["code.weight"]
    carried = torch.zeros(3, 4, 16)
    carried[:, 2] = ITEMS
    torch.testing.assert_close(found, carried.flatten(0, 1))


def test_a_model_that_scored_first_can_still_be_trained() -> None:
    scored, fresh, uids = tiny_car(), tiny_car(), batch()
    with torch.inference_mode():
        scored.score(uids)
    found, exact = (gradients(car, car.loss(uids[:, :-1], uids[:, 1:])["loss"]) for car in (scored, fresh))
    assert all(torch.equal(found[name], grad) for name, grad in exact.items())


@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=9).filter(any), slots=st.integers(1, 3))
def test_packing_keeps_every_token_in_its_own_order(lengths: list[int], slots: int) -> None:
    uids = batch(lengths)
    packing = Packing.from_mask(uids != 0)
    packed = packing.pack(uids)
    sizes = [count * length for count, length in packing.runs]
    assert sum(sizes) == len(packed) == sum(lengths)
    rows = [
        row
        for run, (_, length) in zip(packed.split(sizes), packing.runs, strict=True)
        for row in run.view(-1, length).tolist()
    ]
    assert sorted(rows) == sorted(row[row != 0].tolist() for row in uids if row.any())
    assert torch.equal(packing.unpack(packed[:, None].float())[..., 0], uids.float())
    wide = packing.repeat_interleave(slots)
    assert wide.runs == [(count, length * slots) for count, length in packing.runs]
    repeated = wide.pack(uids.repeat_interleave(slots, dim=1))
    assert torch.equal(repeated, packed.repeat_interleave(slots))
    places = torch.arange(uids.shape[1] * slots).expand(len(uids), -1)
    assert torch.equal(wide.positions, wide.pack(places))


def test_attention_in_bfloat16_is_that_of_float32_rounded() -> None:
    q, k, v = torch.randn(3, 3, 5, 2, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = causal_attention(q, k, v)
    assert mixed.dtype == torch.bfloat16
    assert torch.equal(mixed, causal_attention(q.float(), k.float(), v.float()).bfloat16())


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_its_share_and_scales_the_rest(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.full((400, 100), 2.0, dtype=dtype, requires_grad=True)
    drop = Dropout(p)
    found = drop(x)
    kept = found != 0
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=0.01)
    torch.testing.assert_close(found[kept].float(), torch.full_like(found[kept], 2 / (1 - p)).float())
    found.sum().backward()
    torch.testing.assert_close(x.grad, (kept / (1 - p)).to(dtype))
    assert torch.equal(drop.eval()(x), x)
