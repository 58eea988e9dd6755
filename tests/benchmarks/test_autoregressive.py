"""The autoregressive models and their beam search against exhaustive scoring without trie or cache."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from benchmarks.models.autoregressive import ARConfig, AutoRegressive, beam_search, log_probabilities
from car_model.models.kv_cache import KVCache
from tests.car_model.builders import SIZES, tiny_sids
from tests.fixtures import ITEMS

HISTORIES = torch.tensor([[3, 17, 9, 48, 1], [22, 30, 0, 0, 0], [5, 5, 41, 2, 0], [12, 0, 0, 0, 0]])
EVERY = torch.arange(1, ITEMS + 1)
pytestmark = pytest.mark.filterwarnings("error")


def tiny_ar(seed: int = 0, sids: torch.Tensor | None = None, **changes: Any) -> AutoRegressive:
    """An untrained model over 48 items, its weights large enough to tell things apart."""
    torch.manual_seed(seed)
    config = ARConfig(**SIZES, n_layers=2, n_heads=2, dropout=0.0)
    model = AutoRegressive(replace(config, **changes), tiny_sids() if sids is None else sids)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.normal_(std=0.3)
    return model.eval()


@pytest.fixture(params=[True, False], ids=["uid", "sids"])
def model(request: pytest.FixtureRequest) -> AutoRegressive:
    return tiny_ar(uid=request.param)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.randint(1, ITEMS + 1, (4, 9), generator=torch.Generator().manual_seed(0))
    rows[1, 5:] = 0
    rows[3, 2:] = 0
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def states_of(model: AutoRegressive, rows: torch.Tensor) -> torch.Tensor:
    """[B, T, slots, D] what predicts every chunk but the first, each history alone; 0 at the padding."""
    shape = (len(rows), rows.shape[1] - 1, model.config.slots, model.config.d_model)
    every = torch.zeros(shape)
    for at, row in enumerate(rows):
        states, wanted = model.states(row[row != 0][None])
        assert wanted.tolist() == row[row != 0][1:].tolist()
        every[at, : len(states)] = states
    return every


def token_log_probs(model: AutoRegressive, rows: torch.Tensor) -> torch.Tensor:
    """[B, T, slots] log-probability of every token of every chunk but the first, one full softmax each."""
    states = states_of(model, rows)
    found = []
    for slot in range(model.config.slots):
        weight, bias = model.head(slot)
        chunks = rows[:, 1:]
        wanted = model.sids[chunks, slot] if slot < model.config.n_levels else chunks
        logits = states[:, :, slot] @ weight.T + bias
        found.append(logits.log_softmax(dim=-1).gather(2, wanted[..., None])[..., 0])
    return torch.stack(found, dim=-1)


@torch.no_grad()
def exhaustive(model: AutoRegressive, history: torch.Tensor) -> torch.Tensor:
    """[I] joint log-probability of each item's tokens after one history [T] without padding."""
    rows = torch.cat([history.expand(ITEMS, -1), EVERY[:, None]], dim=1)
    return token_log_probs(model, rows)[:, -1].sum(dim=-1)


def test_a_wide_beam_is_exhaustive_scoring(model: AutoRegressive) -> None:
    scores = model.score(HISTORIES, width=ITEMS)
    for row, history in zip(scores, HISTORIES, strict=True):
        known = history[history != 0]
        exact = exhaustive(model, known)
        exact[known - 1] = -torch.inf
        torch.testing.assert_close(row[1:], exact, rtol=0, atol=1e-4)
        assert row[0] == -torch.inf


def test_nothing_is_left_out_unless_asked(model: AutoRegressive) -> None:
    found, scores = beam_search(model, HISTORIES, ITEMS)
    assert torch.equal(found.sort(dim=1).values, EVERY.expand(4, -1))
    for at, history in enumerate(HISTORIES):
        exact = exhaustive(model, history[history != 0])
        torch.testing.assert_close(scores[at], exact[found[at] - 1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("width", [1, 2, 5, 13])
def test_a_narrow_beam_finds_real_items_once_and_best_first(model: AutoRegressive, width: int) -> None:
    found, scores = beam_search(model, HISTORIES, width, exclude=HISTORIES)
    assert found.shape == scores.shape
    assert not model.config.uid or found.shape[1] <= width
    for history, row, held in zip(HISTORIES, found, scores, strict=True):
        real = row[row != 0]
        assert len(real) == len(set(real.tolist()))
        assert int(row.max()) <= ITEMS
        assert not set(real.tolist()) & set(history.tolist())
        assert torch.equal(held.isneginf(), row == 0)
        assert torch.equal(held.sort(descending=True).values, held)
        exact = exhaustive(model, history[history != 0])
        torch.testing.assert_close(held[row != 0], exact[real - 1], rtol=0, atol=1e-4)
    assert (found != 0).any(dim=1).all()


def test_a_beam_wide_enough_for_the_best_item_finds_it() -> None:
    """Greedy may lose the best item, a wide beam never: the best score only grows with the width."""
    model = tiny_ar()
    best = [beam_search(model, HISTORIES, width)[1][:, 0] for width in (1, 2, 4, 8, 16, 48)]
    exact = torch.stack([exhaustive(model, history[history != 0]).max() for history in HISTORIES])
    assert all((one <= exact + 1e-4).all() for one in best)
    torch.testing.assert_close(best[-1], exact, rtol=0, atol=1e-4)


def test_when_all_items_are_excluded_nothing_is_found(model: AutoRegressive) -> None:
    found, scores = beam_search(model, HISTORIES, 5, exclude=EVERY.expand(4, -1))
    assert not found.any()
    assert scores.isneginf().all()


def test_items_that_share_a_sid_tie_without_a_uid_and_not_with_it() -> None:
    sids = tiny_sids()
    sids[30] = sids[7]
    scores = tiny_ar(uid=False, sids=sids).score(HISTORIES, width=ITEMS)
    assert torch.equal(scores[:1, 30], scores[:1, 7])
    for row in range(4):
        for uid in range(1, ITEMS + 1):
            mates = [at for at in range(1, ITEMS + 1) if torch.equal(sids[at], sids[uid])]
            values = [scores[row, at] for at in mates if at not in HISTORIES[row]]
            assert all(value == values[0] for value in values)
    scores = tiny_ar(sids=sids).score(HISTORIES, width=ITEMS)
    assert scores[0, 30] != scores[0, 7]


def test_one_sid_for_all_items_is_one_beam() -> None:
    sids = torch.zeros(ITEMS + 1, 3, dtype=torch.long)
    found, scores = beam_search(tiny_ar(uid=False, sids=sids), HISTORIES, 5)
    assert torch.equal(found, EVERY.expand(4, -1))
    assert (scores == scores[:, :1]).all()
    found, _ = beam_search(tiny_ar(sids=sids), HISTORIES, 5)
    assert found.shape == (4, 5)


@pytest.mark.parametrize("uid", [True, False])
@pytest.mark.parametrize("levels", [1, 4])
def test_any_number_of_levels(uid: bool, levels: int) -> None:
    model = tiny_ar(uid=uid, n_levels=levels, sids=tiny_sids(levels=levels))
    exact = exhaustive(model, HISTORIES[3, :1])
    exact[11] = -torch.inf
    torch.testing.assert_close(model.score(HISTORIES, ITEMS)[3, 1:], exact, rtol=0, atol=1e-4)


def test_the_order_of_a_batch_and_its_padding_change_nothing(
    model: AutoRegressive, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = model.score(HISTORIES, width=6)
    monkeypatch.setattr("benchmarks.models.autoregressive.SCORE_ROWS", 3)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model.score(HISTORIES[order], width=6), scores[order], rtol=0, atol=1e-4)
    alone = torch.cat([model.score(row[row != 0][None], width=6) for row in HISTORIES])
    torch.testing.assert_close(alone, scores, rtol=0, atol=1e-4)
    padded = model.score(F.pad(HISTORIES, (0, 4)), width=6)
    torch.testing.assert_close(padded, scores, rtol=0, atol=1e-4)


def test_no_prediction_depends_on_what_comes_later(model: AutoRegressive) -> None:
    rows = torch.tensor([[3, 17, 9, 48, 1, 22, 30, 5]])
    states = states_of(model, rows)
    for at in range(1, rows.shape[1]):
        other = rows.clone()
        other[:, at:] = torch.roll(rows, 3, dims=1)[:, at:]
        changed = states_of(model, other)
        torch.testing.assert_close(changed[:, : at - 1], states[:, : at - 1], rtol=0, atol=1e-5)
        torch.testing.assert_close(changed[:, at - 1, 0], states[:, at - 1, 0], rtol=0, atol=1e-5)


def test_a_token_is_predicted_from_those_before_it_in_its_chunk() -> None:
    """Items that differ only in their last code get the same predictions up to it, and others after."""
    sids = tiny_sids()
    sids[8] = sids[7]
    sids[8, 2] = (sids[7, 2] + 1) % 4
    model = tiny_ar(sids=sids)
    one, other = (states_of(model, torch.tensor([[3, uid]])) for uid in (7, 8))
    torch.testing.assert_close(one[0, 0, :3], other[0, 0, :3], rtol=0, atol=1e-5)
    assert not torch.allclose(one[0, 0, 3], other[0, 0, 3], atol=1e-3)


def test_steps_through_the_cache_are_the_transformer() -> None:
    """The root token, five beams of it, then two beams that go on with some of the five."""
    model = tiny_ar()
    made = torch.Generator().manual_seed(1)
    known = torch.tensor([7, 3, 0])
    x = torch.randn(3, 7, 16, generator=made)
    root, second, third = (torch.randn(3, beams, 16, generator=made) for beams in (1, 5, 2))
    parents = torch.tensor([[4, 1], [0, 0], [2, 3]])
    with torch.no_grad():
        cache = KVCache(model.transformer, x, known)
        found = [cache.extend(root[:, :, None])[:, :, 0]]
        cache.select(torch.zeros(3, 5, dtype=torch.long))
        found.append(cache.extend(second[:, :, None])[:, :, 0])
        cache.select(parents)
        found.append(cache.extend(third[:, :, None])[:, :, 0])
        for row, length in enumerate(known):
            for beam, parent in enumerate(parents[row]):
                own = torch.stack([root[row, 0], second[row, parent], third[row, beam]])
                exact = model.transformer(torch.cat([x[row, :length], own])[None])[0, -3:]
                steps = torch.stack([found[0][row, 0], found[1][row, parent], found[2][row, beam]])
                torch.testing.assert_close(steps, exact, rtol=0, atol=1e-4)


def test_the_loss_is_the_mean_over_tokens(model: AutoRegressive) -> None:
    inputs, targets = batch()
    losses = model.loss(inputs, targets)
    exact = -token_log_probs(model, torch.cat([inputs[:, :1], targets], dim=1))[targets != 0]  # [N, slots]
    assert losses["loss"].item() == pytest.approx(exact.mean().item(), abs=1e-5)
    if model.config.uid:
        assert losses["act"].item() == pytest.approx(exact[:, -1].mean().item(), abs=1e-5)
        assert losses["think"].item() == pytest.approx(exact[:, :-1].mean().item(), abs=1e-5)
    else:
        assert losses["act"].item() == losses["loss"].item()


def test_padded_targets_and_their_inputs_teach_nothing(model: AutoRegressive) -> None:
    inputs, targets = batch()
    padded = model.loss(inputs[3:], targets[3:])["loss"]
    bare = model.loss(inputs[3:, :1], targets[3:, :1])["loss"]
    assert padded.item() == pytest.approx(bare.item(), abs=1e-5)


def test_gradients_reach_every_parameter_and_not_the_padding(model: AutoRegressive) -> None:
    model.train()
    full = torch.randint(1, ITEMS + 1, (16, 11), generator=torch.Generator().manual_seed(2))
    model.loss(full[:, :-1], full[:, 1:])["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    taught = model.transformer.position.weight.grad.any(dim=1)  # type: ignore[union-attr]
    assert taught[:-1].all()
    assert not taught[-1]  # nothing follows the last token
    if model.config.uid:
        assert not model.uid.weight.grad[0].any()  # type: ignore[index]
        assert model.act_bias.grad[0] == 0  # type: ignore[index]


def test_the_loss_runs_under_autocast(model: AutoRegressive) -> None:
    exact = model.loss(*batch())["loss"].item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.loss(*batch())["loss"]
    loss.backward()
    assert loss.item() == pytest.approx(exact, rel=0.02)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())  # type: ignore[arg-type]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.score(HISTORIES, width=5).isfinite().any(dim=1).all()


def test_a_pattern_is_learnt(model: AutoRegressive) -> None:
    rows = (torch.arange(48)[:, None] + torch.arange(6)) % ITEMS + 1  # each item is followed by the next
    optimizer = torch.optim.Adam(model.train().parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        losses.append(model.loss(rows[:, :-1], rows[:, 1:])["loss"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]
    sids = model.sids[model.score(torch.tensor([[10, 11, 12]]), width=5).argmax(dim=1)]
    assert torch.equal(sids[0], model.sids[13])


def test_no_dropout_when_scoring_and_no_saved_table() -> None:
    model = tiny_ar(dropout=0.5)
    assert torch.equal(model.train().score(HISTORIES), model.eval().score(HISTORIES))
    assert not [name for name in model.state_dict() if "sids" in name or "trie" in name]


def test_too_long_a_history_and_no_beam_are_refused(model: AutoRegressive) -> None:
    longest = torch.ones(1, 10, dtype=torch.long)
    assert model.score(longest).shape == (1, ITEMS + 1)
    with pytest.raises(ValueError, match="a history of 11 items exceeds the 10 the model reads"):
        model.score(torch.ones(1, 11, dtype=torch.long))
    with pytest.raises(ValueError, match="width is 0; it must be at least 1"):
        beam_search(model, longest, 0)


def test_a_wrong_sid_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the SID table is \(48, 3\), expected \(49, 3\)"):
        tiny_ar(sids=torch.zeros(ITEMS, 3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"codes outside 0\.\.3"):
        tiny_ar(sids=tiny_sids() + 4)


@pytest.mark.parametrize("rows", [1, 7])
def test_log_probabilities_in_any_blocks(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.models.autoregressive.BLOCK_BYTES", 4 * 9 * rows)
    made = torch.Generator().manual_seed(0)
    states, weight = torch.randn(10, 5, generator=made), torch.randn(9, 5, generator=made)
    bias, wanted = torch.randn(9, generator=made), torch.randint(0, 9, (10, 3), generator=made)
    exact = (states @ weight.T + bias).log_softmax(dim=1).gather(1, wanted)
    torch.testing.assert_close(log_probabilities(states, weight, bias, wanted), exact, rtol=0, atol=1e-5)
