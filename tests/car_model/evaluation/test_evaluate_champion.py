"""The champion has its own catalogue: other numbers, other items. Only shared items are compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from car_model.bundle import Bundle
from car_model.data.catalogue import Catalogue
from car_model.data.dataset import Dataset
from car_model.evaluation.evaluate import Holdout, evaluate
from car_model.evidence.evaluation import ChampionComparison, Evaluation
from car_model.metrics.ranking import paired, summary
from car_model.models.car import CAR
from car_model.recommender.recommender import Recommender
from tests.car_model.builders import tiny_sasrec
from tests.car_model.evaluation.test_evaluate import scored, slow_rank
from tests.fixtures import ITEMS, tiny_parts

KEPT = [at for at in range(ITEMS) if at % 5]  # rows a smaller catalogue keeps


def over(parts: Bundle, rows: Sequence[int], extra: Sequence[str] = ()) -> Recommender:
    """The same model over other rows of its catalogue: UIDs move, items go, `extra` ids come."""
    picked = [*rows, *([rows[0]] * len(extra))]
    old = parts.catalogue
    ids = [old.item_ids[at] for at in rows] + list(extra)
    catalogue = Catalogue(ids, [f"Title {item}" for item in ids], old.sids[picked])
    model = CAR(replace(parts.model.config, n_items=len(ids)), torch.from_numpy(catalogue.sid_table))
    weights = parts.model.state_dict()
    moved = torch.tensor([0, *(at + 1 for at in picked)])
    for name in ("uid.weight", "act_bias", "sids"):
        weights[name] = weights[name][moved]
    model.load_state_dict(weights)
    return Recommender(replace(parts, catalogue=catalogue, model=model, popular=[1]), "c" * 64)


def against(dataset: Dataset, challenger: Recommender, champion: Recommender) -> Evaluation:
    evidence = evaluate(dataset, challenger, tiny_sasrec(n_items=challenger.catalogue.size).eval(), champion)
    json.dumps(evidence.to_json(), allow_nan=False)
    return evidence


def test_a_model_against_itself_differs_by_nothing(
    dataset: Dataset, recommender: Recommender, bundle: Any
) -> None:
    evidence = against(dataset, recommender, Recommender.load(bundle, "r" * 64))
    sizes: dict[str, Any] = {"items_challenger": ITEMS, "items_champion": ITEMS, "users_share": 1.0}
    ours = evidence.models["challenger"]
    sizes |= {"holdout": evidence.holdout.digest, "same_weights": True, "same_ranks": True}
    sizes |= {"models": {"challenger": ours, "champion": ours}}
    assert evidence.champion == ChampionComparison(release="r" * 64, items=ITEMS, users=40, **sizes)
    assert evidence.champion.same == "the same weights"
    for difference in evidence.paired["champion"].values():
        assert difference.difference == difference.relative == 0.0
        assert -difference.low == difference.high == pytest.approx(0.09, abs=0.01)  # of 40 users


def test_renumbered_items_are_the_same_items(
    dataset: Dataset, recommender: Recommender, parts: Bundle
) -> None:
    order = np.random.default_rng(0).permutation(ITEMS)
    evidence = against(dataset, recommender, over(parts, order.tolist()))
    assert evidence.champion.models["champion"] == evidence.models["challenger"]
    assert evidence.paired["champion"]["ndcg@10"].difference == 0.0
    assert evidence.champion.same == "the same ranks"  # rows of the weights have moved


def shared_ranks(recommender: Recommender, holdout: Holdout, shared: set[str]) -> np.ndarray:
    """By definition: shared items alone are ranked, each model reads what it knows of the history."""
    ranks = []
    for prompt, target in zip(holdout.prompts, holdout.targets, strict=True):
        if target in shared:
            items = [item for item in prompt if item in recommender.catalogue.uids]
            scores = {item: s for item, s in scored(recommender, items).items() if item in shared}
            ranks.append(slow_rank(scores, prompt, target))
    return np.array(ranks)


@pytest.mark.parametrize("extra", [[], ["newcomer 1", "newcomer 2"]])
@pytest.mark.parametrize("smaller", ["champion", "challenger"])
def test_other_catalogues_are_compared_on_shared_items(
    dataset: Dataset, holdout: Holdout, parts: Bundle, extra: list[str], smaller: str
) -> None:
    small, large = over(parts, KEPT[::-1], extra), over(tiny_parts(seed=4), range(ITEMS))
    challenger, champion = (small, large) if smaller == "challenger" else (large, small)
    shared = set(small.catalogue.uids) & set(large.catalogue.uids)
    assert len(shared) == len(KEPT)
    evidence = against(dataset, challenger, champion)
    ours, theirs = (shared_ranks(recommender, holdout, shared) for recommender in (challenger, champion))
    assert evidence.champion.models == {"challenger": summary(ours), "champion": summary(theirs)}
    assert "champion" not in evidence.models and evidence.champion.same == ""
    users = [row for row, target in enumerate(holdout.targets) if target in shared]
    assert evidence.champion.holdout == holdout.part(users).digest(shared) != evidence.holdout.digest
    assert evidence.paired["champion"] == paired(ours, theirs)
    assert evidence.champion.items == len(KEPT)
    assert evidence.champion.users == len(ours) < len(holdout.users)


def test_the_challengers_own_numbers_do_not_depend_on_the_champion(
    dataset: Dataset, recommender: Recommender, parts: Bundle
) -> None:
    alone = evaluate(dataset, recommender, tiny_sasrec().eval())
    evidence = against(dataset, recommender, over(parts, KEPT))
    assert evidence.models["challenger"] == alone.models["challenger"]
    assert evidence.holdout == alone.holdout


def test_a_champion_that_shares_nothing_has_no_numbers(
    dataset: Dataset, recommender: Recommender, parts: Bundle
) -> None:
    stranger = over(parts, range(ITEMS))
    ids = [f"other {at}" for at in range(ITEMS)]
    stranger.catalogue = Catalogue(ids, ids, parts.catalogue.sids)
    evidence = against(dataset, recommender, stranger)
    sizes: dict[str, Any] = {"items_challenger": ITEMS, "items_champion": ITEMS, "users_share": 0.0}
    assert (evidence.champion.items, evidence.champion.users) == (0, 0)
    assert evidence.champion.model_dump(include=set(sizes)) == sizes
    assert {value for _, value in evidence.paired["champion"]["ndcg@10"]} == {None}
    assert {value for _, value in evidence.champion.models["champion"]["recall@5"]} == {None}


def test_a_broken_champion_does_not_win(dataset: Dataset, recommender: Recommender) -> None:
    broken = tiny_parts()
    with torch.no_grad():
        broken.model.uid.weight.fill_(torch.nan)
    evidence = against(dataset, recommender, Recommender(broken))
    assert evidence.champion.models["champion"]["recall@10"].mean == 0.0
