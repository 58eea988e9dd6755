"""What a ranker by action may read, and that the fast path computes what the formulas say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from car_model.action_ranker.model import ARCHITECTURES, ActionRanker, RankerConfig
from car_model.models.packing import Packing
from car_model.weights import CheckpointError, load_ranker, save_model
from tests.car_model.action_ranker.rankers import LIKED, random_batch, tiny_ranker
from tests.car_model.builders import tiny_sids
from tests.fixtures import ITEMS

LENGTH = 8
RANKERS = {name: tiny_ranker(name) for name in ARCHITECTURES}
each = pytest.mark.parametrize("architecture", ARCHITECTURES)


@torch.no_grad()
def predicted(model: ActionRanker, uids: Tensor, actions: Tensor) -> Tensor:
    """Logits [T, 2] of one history."""
    return model.logits(uids, actions)[0]


@each
@pytest.mark.parametrize("at", range(LENGTH))
def test_an_action_reaches_later_predictions_and_none_up_to_its_own(architecture: str, at: int) -> None:
    model = RANKERS[architecture]
    uids, actions = random_batch([LENGTH])
    other = actions.clone()
    other[0, at] = 3 - other[0, at]
    before, after = predicted(model, uids, actions), predicted(model, uids, other)
    assert torch.equal(before[: at + 1], after[: at + 1])  # to the bit
    assert ((before - after)[at + 1 :].abs().amax(dim=1) > 1e-5).all()


@each
@pytest.mark.parametrize("at", range(LENGTH))
def test_an_item_reaches_its_own_and_later_predictions_and_none_before(architecture: str, at: int) -> None:
    model = RANKERS[architecture]
    uids, actions = random_batch([LENGTH])
    other = uids.clone()
    other[0, at] = uids[0, at] % ITEMS + 1
    before, after = predicted(model, uids, actions), predicted(model, other, actions)
    assert torch.equal(before[:at], after[:at])
    assert ((before - after)[at:].abs().amax(dim=1) > 1e-5).all()


@each
def test_attention_may_read_the_padded_batch_instead(architecture: str) -> None:
    model = RANKERS[architecture]
    uids, actions = random_batch([4, 1, 10, 4, 7])
    packing = Packing.from_mask(uids != 0)
    items, acted = model.embed_items(packing.pack(uids)), model.action(packing.pack(actions))
    runs, padded = (
        model.packed_logits(items, acted, replace(packing, padded=flag)) for flag in (False, True)
    )
    torch.testing.assert_close(padded, runs, rtol=0, atol=1e-5)


@given(
    architecture=st.sampled_from(ARCHITECTURES),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_gradients_flow_from_the_strict_past_of_the_same_history_alone(
    architecture: str, lengths: list[int], seed: int, data: st.DataObject
) -> None:
    model = RANKERS[architecture]
    uids, actions = random_batch(lengths, seed=seed)
    row = data.draw(st.integers(0, len(lengths) - 1))
    at = data.draw(st.integers(0, lengths[row] - 1))
    packing = Packing.from_mask(uids != 0)
    items = model.embed_items(packing.pack(uids)).detach().requires_grad_()
    acted = model.action(packing.pack(actions)).detach().requires_grad_()
    logits = packing.unpack(model.packed_logits(items, acted, packing))
    (logits[row, at] * torch.tensor([1.0, -2.0])).sum().backward()
    own = uids.new_zeros(uids.shape, dtype=torch.bool)
    own[row, :at] = True
    past = packing.unpack(_touched(acted.grad)).squeeze(-1).bool()
    assert torch.equal(past, own)
    own[row, at] = True  # the item itself is read, its action is not
    assert torch.equal(packing.unpack(_touched(items.grad)).squeeze(-1).bool(), own)


def _touched(grad: Tensor | None) -> Tensor:
    assert grad is not None
    return (grad != 0).any(dim=1, keepdim=True).float()


@each
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_neither_padding_nor_neighbours_change_a_history(
    architecture: str, lengths: list[int], seed: int
) -> None:
    model = RANKERS[architecture]
    uids, actions = random_batch(lengths, seed)
    together = model.logits(uids, actions)
    for row, length in enumerate(lengths):
        alone = predicted(model, uids[row : row + 1, :length], actions[row : row + 1, :length])
        torch.testing.assert_close(together[row, :length], alone, rtol=1e-4, atol=1e-5)
        assert not together[row, length:].any()


def plain_softmax(scores: list[Tensor], values: list[Tensor]) -> Tensor:
    """Values [E] weighted by the softmax of their scores [], one after the other."""
    shares = [torch.exp(score - max(scores)) for score in scores]
    mixed = torch.zeros_like(values[0])
    for share, value in zip(shares, values, strict=True):
        mixed = mixed + share / sum(shares) * value
    return mixed


def plain_past(q: Tensor, k: Tensor, v: Tensor, null: Any, heads: int) -> Tensor:
    """Attention to the null slot and j < n by the formula: q, k, v [T, D] -> [T, D]."""
    width = q.shape[1] // heads
    rows = []
    for n in range(len(q)):
        parts = []
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            keys, values = [null.key[own]], [null.value[own]]
            for j in range(n):
                keys.append(k[j, own])
                values.append(v[j, own])
            parts.append(plain_softmax([q[n, own] @ key / width**0.5 for key in keys], values))
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def plain_causal(block: Any, x: Tensor) -> Tensor:
    """A pre-norm GPT-2 block over x [T, D], position by position."""
    q, k, v = block.qkv(block.norm_attention(x)).chunk(3, dim=-1)
    width, rows = q.shape[1] // block.heads, []
    for n in range(len(x)):
        parts = []
        for head in range(block.heads):
            own = slice(head * width, (head + 1) * width)
            scores = [q[n, own] @ k[j, own] / width**0.5 for j in range(n + 1)]
            parts.append(plain_softmax(scores, [v[j, own] for j in range(n + 1)]))
        rows.append(torch.cat(parts))
    x = x + block.attention_out(torch.stack(rows))
    return x + block.mlp_out(F.gelu(block.mlp_in(block.norm_mlp(x))))


def plain_logits(model: ActionRanker, uids: Tensor, actions: Tensor) -> Tensor:
    """The docstring's formulas for one history: uids [T], actions [T] -> [T, 2]."""
    config, length = model.config, len(uids)
    items = []
    for uid in uids:
        rows = [
            model.code.weight[level * config.codebook_size + model.sids[uid, level]]
            for level in range(config.n_levels)
        ]
        items.append(model.uid.weight[uid] + sum(rows))
    i = torch.stack(items)
    a = torch.stack([model.action.weight[action] for action in actions])
    if config.architecture == "interleaved":
        tokens = torch.stack([row for pair in zip(i, a, strict=True) for row in pair])
        x = tokens + model.transformer.position.weight[: 2 * length]
        for block in model.transformer.blocks:
            x = plain_causal(block, x)
        return model.head(model.transformer.norm(x)[::2])
    if config.architecture == "lfa":
        x = i + model.transformer.position.weight[:length]
        for block in model.transformer.blocks:
            x = plain_causal(block, x)
        h, late = model.transformer.norm(x), model.late
        q, k = late.qk(h).chunk(2, dim=-1)
        z = late.out(plain_past(q, k, late.value(late.norm_action(a)), late.null, late.heads))
        return model.head(torch.cat([h, z], dim=-1))
    x = i + model.mixed.position.weight[:length]
    for block in model.mixed.blocks:
        q, k = block.qk(block.norm_attention(x)).chunk(2, dim=-1)
        v = block.value(block.norm_value(x + a))
        x = x + block.attention_out(plain_past(q, k, v, block.null, block.heads))
        x = x + block.mlp_out(F.gelu(block.mlp_in(block.norm_mlp(x))))
    return model.head(model.mixed.norm(x))


@each
@pytest.mark.parametrize("length", [1, 2, 7])
@torch.no_grad()
def test_the_fast_path_is_the_formula(architecture: str, length: int) -> None:
    model = RANKERS[architecture]
    uids, actions = random_batch([length], seed=length)
    expected = plain_logits(model, uids[0], actions[0])
    torch.testing.assert_close(predicted(model, uids, actions), expected, rtol=1e-4, atol=1e-4)


@each
def test_probabilities_are_those_of_the_class_liked(architecture: str) -> None:
    model = RANKERS[architecture]
    uids, actions = random_batch([5, 3])
    logits = model.logits(uids, actions)
    assert logits.shape == (2, 5, 2)
    torch.testing.assert_close(model.probabilities(uids, actions), logits.softmax(dim=-1)[..., 1])


@each
def test_the_loss_is_the_cross_entropy_of_known_target_actions(architecture: str) -> None:
    model = RANKERS[architecture]
    uids, actions = random_batch([5, 3])
    target_mask = uids != 0
    target_mask[0, 0] = False
    actions[0, 1] = 0  # not known
    known = target_mask & (actions != 0)
    expected = F.cross_entropy(model.logits(uids, actions)[known], actions[known] - 1)
    torch.testing.assert_close(model.loss(uids, actions, target_mask)["loss"], expected)


@each
def test_an_unknown_action_tells_nothing_and_hiding_all_of_them_is_that(architecture: str) -> None:
    model = tiny_ranker(architecture, hidden_actions=1.0)
    uids, actions = random_batch([6])
    blind = torch.zeros_like(actions)
    shown = model.loss(uids, actions, uids != 0)["loss"]
    hidden = model.train().loss(uids, actions, uids != 0)["loss"]
    logits = model.eval().logits(uids, blind).flatten(0, 1)
    torch.testing.assert_close(hidden, F.cross_entropy(logits, actions.flatten() - 1))
    assert not torch.isclose(shown, hidden)


def test_of_a_history_all_actions_are_hidden_or_none() -> None:
    model, lengths = tiny_ranker("lfa", hidden_actions=0.5).train(), [6] * 40
    uids, actions = random_batch(lengths)
    visible = []
    model.action.register_forward_hook(lambda _, inputs, __: visible.append(inputs[0]))
    model.loss(uids, actions, uids != 0)
    shown = (visible[0].view(40, 6) != 0).sum(dim=1).tolist()
    assert set(shown) == {0, 6}


@each
def test_saving_and_loading_keep_every_prediction(architecture: str, tmp_path: Path) -> None:
    model = RANKERS[architecture]
    save_model(model, tmp_path)
    loaded = load_ranker(tmp_path, tiny_sids())
    uids, actions = random_batch([5, 3])
    assert loaded.config == model.config
    assert torch.equal(model.logits(uids, actions), loaded.logits(uids, actions))


def test_a_folder_of_another_model_or_catalogue_is_refused(tmp_path: Path) -> None:
    save_model(RANKERS["lfa"], tmp_path)
    with pytest.raises(CheckpointError, match="describes no ActionRanker of this catalogue"):
        load_ranker(tmp_path, tiny_sids(items=ITEMS + 1))
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("ActionRanker", "CAR"))
    with pytest.raises(CheckpointError, match="does not describe a ActionRanker"):
        load_ranker(tmp_path, tiny_sids())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"architecture": "hstu"}, "there is no architecture 'hstu'; there are: interleaved, lfa, mvp"),
        ({"n_heads": 3}, "d_model 64 must be a multiple of n_heads 3"),
    ],
)
def test_what_can_not_be_built_is_said(wrong: dict[str, Any], message: str) -> None:
    settings = {"n_items": ITEMS, "n_levels": 3, "codebook_size": 4, "liked": LIKED, **wrong}
    with pytest.raises(ValueError, match=message):
        ActionRanker(RankerConfig(**settings), tiny_sids())


@each
def test_a_history_longer_than_the_model_reads_is_refused(architecture: str) -> None:
    uids, actions = random_batch([13])
    with pytest.raises(ValueError, match="exceeds the model's"):
        RANKERS[architecture].logits(uids, actions)
