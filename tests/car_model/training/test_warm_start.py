"""A warm start answers as its parent does, whatever became of the codes; new items start from their codes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from car_model.codebook.residual_kmeans import CodebookConfig, fit, refresh
from car_model.data.catalogue import Catalogue
from car_model.metrics.codebook import churn
from car_model.models.car import CAR, CARConfig
from car_model.training.warm_start import WarmStartError, codes_aligned, warm_start
from tests.fixtures import tiny_parts, tiny_vectors

LEVELS, CODES = 3, 4


def catalogue(ids: list[str], seed: int = 0, levels: int = LEVELS) -> Catalogue:
    sids = np.random.default_rng(seed).integers(CODES, size=(len(ids), levels)).astype(np.int32)
    return Catalogue(ids, ids, sids)


def model(items: Catalogue, seed: int = 0, **changes: Any) -> CAR:
    torch.manual_seed(seed)
    sizes = {"d_model": 16, "n_layers": 2, "n_heads": 2, "max_history": 10, "dropout": 0.0, **changes}
    shape = {"n_levels": items.sids.shape[1], "codebook_size": CODES}
    made = CAR(CARConfig(n_items=items.size, **{**shape, **sizes}), torch.from_numpy(items.sid_table))
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
        made.uid.weight[0] = 0
    return made.eval()


OLD = catalogue([f"i{at}" for at in range(20)])
NEW = OLD.extend_lineage(catalogue([*OLD.item_ids[3:], "n1", "n2"], seed=0))


def same_codes() -> Catalogue:
    """Every old item with its old SID, two new ones."""
    return OLD.append(["n1", "n2"], ["n1", "n2"], np.array([[1, 2, 3], [0, 0, 1]], dtype=np.int32))


def states_and_logits(made: CAR, items: Catalogue, ids: list[str]) -> torch.Tensor:
    history = torch.tensor([[items.uids[item] for item in ("i4", "i9", "i2", "i4")]])
    with torch.inference_mode():
        logits = made.act_logits(made.last_state(history))[0]
    return logits[[items.uids[item] for item in ids]]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("fusion", ["sum", "none"])
@pytest.mark.parametrize("layout", ["collapsed", "full"])
def test_with_aligned_codes_known_items_score_as_before(layout: str, fusion: str, tied: bool) -> None:
    shape = {"layout": layout, "fusion": fusion, "tied": tied}
    parent, items = model(OLD, **shape), same_codes()
    child = model(items, seed=1, **shape)
    assert warm_start(child, items, parent, OLD, aligned=True) == 20
    before = states_and_logits(parent, OLD, OLD.item_ids)
    assert torch.equal(states_and_logits(child, items, OLD.item_ids), before)
    assert torch.equal(child.code.weight, parent.code.weight)


@pytest.mark.parametrize("aligned", [True, False])
def test_with_other_sids_known_items_still_score_as_before(aligned: bool) -> None:
    items = catalogue([*OLD.item_ids, "n1"], seed=5)
    parent, child = model(OLD), model(items, seed=1)
    warm_start(child, items, parent, OLD, aligned=aligned)
    before = states_and_logits(parent, OLD, OLD.item_ids)
    assert torch.allclose(states_and_logits(child, items, OLD.item_ids), before, atol=1e-4)


def test_another_number_of_levels_is_no_hindrance_where_codes_are_not_aligned() -> None:
    items = catalogue(OLD.item_ids, seed=5, levels=2)
    parent, child = model(OLD), model(items, seed=1)
    warm_start(child, items, parent, OLD, aligned=False)
    before = states_and_logits(parent, OLD, OLD.item_ids)
    assert torch.allclose(states_and_logits(child, items, OLD.item_ids), before, atol=1e-4)


def test_a_new_item_is_the_sum_of_its_codes() -> None:
    items = same_codes()
    parent, child = model(OLD), model(items, seed=1)
    warm_start(child, items, parent, OLD, aligned=True)
    rows = [1, CODES + 2, 2 * CODES + 3]
    assert torch.allclose(child.item_vectors()[21], parent.code.weight[rows].sum(dim=0), atol=1e-6)
    assert child.act_bias[21].item() == pytest.approx(parent.act_bias[1:].mean().item(), abs=1e-6)
    assert not child.uid.weight[0].any()


def test_code_rows_of_a_new_fit_are_means_of_what_the_old_codes_said() -> None:
    items = catalogue(OLD.item_ids, seed=5)
    parent, child = model(OLD), model(items, seed=1)
    warm_start(child, items, parent, OLD, aligned=False)
    said = torch.stack([parent.code.weight[row].sum(dim=0) for row in parent.code_rows()[1:]])
    for code in range(CODES):
        has = torch.from_numpy(items.sids[:, 0] == code)
        assert torch.allclose(child.code.weight[code], said[has].mean(dim=0), atol=1e-5)


def test_items_that_left_are_left_behind() -> None:
    items = catalogue(OLD.item_ids[::-1][:7])
    parent, child = model(OLD), model(items, seed=1)
    assert warm_start(child, items, parent, OLD, aligned=False) == 7
    ids = ["i19", "i15", "i13"]
    vectors = [
        made.item_vectors()[[at.uids[item] for item in ids]] for made, at in ((parent, OLD), (child, items))
    ]
    assert torch.allclose(*vectors, atol=1e-5)


def test_codes_are_aligned_where_the_codebook_is_the_parents_or_refreshed_from_it() -> None:
    parent, vectors = tiny_parts(epochs=1), tiny_vectors()
    config = CodebookConfig(n_levels=3, codebook_size=4, seed=1)
    spec, words = parent.codebook.encoder, parent.codebook.template
    books = {
        "reused": parent.codebook,
        "refreshed": refresh(parent.codebook, vectors + 0.01),
        "fit with another seed": fit(vectors, spec, words, config),  # the same axes, other numbers
        "fit on other items": fit(vectors[::2], spec, words, config),
        "of fewer levels": fit(vectors, spec, words, replace(config, n_levels=2, seed=0)),
    }
    found = {
        name: codes_aligned(book, replace(parent.catalogue, sids=book.encode(vectors)), parent)
        for name, book in books.items()
    }
    assert [name for name, aligned in found.items() if aligned] == ["reused", "refreshed"]
    turned = replace(parent.catalogue, sids=books["fit with another seed"].encode(vectors))
    assert churn(parent.catalogue, turned).by_level[0] > 0.5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"d_model": 32}, "d_model is 32, the parent's is 16"),
        ({"n_layers": 1}, "n_layers is 1"),
        ({"max_history": 5}, "max_history is 5"),
        ({"fusion": "none"}, "fusion is 'none'"),
        ({"tied": False}, "tied is False"),
        ({"position_encoding": "rotary"}, "position_encoding is 'rotary', the parent's is 'learned'"),
    ],
)
def test_a_parent_of_other_sizes_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    items = same_codes()
    child = model(items, seed=1, **changes)
    before = {name: weight.clone() for name, weight in child.state_dict().items()}
    with pytest.raises(WarmStartError, match=said):
        warm_start(child, items, model(OLD), OLD, aligned=True)
    assert all(torch.equal(weight, before[name]) for name, weight in child.state_dict().items())


def test_what_shapes_only_the_loss_may_differ() -> None:
    items = same_codes()
    child = model(items, seed=1, label_smoothing=0.1, think_weight=0.5, dropout=0.4)
    assert warm_start(child, items, model(OLD), OLD, aligned=True) == 20


def test_aligned_codes_of_another_number_are_refused() -> None:
    items = catalogue(OLD.item_ids, levels=2)
    with pytest.raises(WarmStartError, match="n_levels is 2"):
        warm_start(model(items), items, model(OLD), OLD, aligned=True)
