"""Evaluation: full ranking, history masked, one holdout for every model."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from car_model.data.dataset import Dataset
from car_model.evaluation.evaluate import Baseline, Holdout, evaluate, holdout_ranks, slices
from car_model.evidence.evaluation import ChampionComparison, Evaluation, HoldoutSummary
from car_model.metrics.ranking import per_user, summary
from car_model.models.baselines import Popularity, SASRec
from car_model.recommender.recommender import Recommender
from car_model.recommender.text_similarity import TextSimilarity
from common.limits import MAX_HISTORY
from tests.car_model.builders import tiny_dataset, tiny_sasrec
from tests.fixtures import ITEMS, tiny_histories, tiny_vectors

ITEM_IDS = [f"i{uid}" for uid in range(1, ITEMS + 1)]


@pytest.fixture(scope="module")
def sasrec() -> SASRec:
    return tiny_sasrec().eval()


@pytest.fixture(scope="module")
def evidence(dataset: Dataset, recommender: Recommender, sasrec: SASRec) -> Evaluation:
    return evaluate(dataset, recommender, sasrec)


def slow_rank(scores: dict[str, float], prompt: list[str], target: str) -> float:
    """Rank of the target among the items not in the history, ties half."""
    rivals = [score for item, score in scores.items() if item not in prompt and item != target]
    own = scores[target]
    return 1 + sum(score > own for score in rivals) + sum(score == own for score in rivals) / 2


def scored(recommender: Recommender, prompt: list[str]) -> dict[str, float]:
    uids = recommender.catalogue.uids
    row = recommender.scores([np.array([uids[item] for item in prompt])])[0].tolist()
    return {item: row[uid] for item, uid in uids.items()}


def test_the_holdout_is_the_test_split(holdout: Holdout, dataset: Dataset) -> None:
    data = tiny_histories()
    assert sorted(holdout.users) == sorted(data.users)
    for user, prompt, target in zip(holdout.users, holdout.prompts, holdout.targets, strict=True):
        at = data.users.index(user)
        assert prompt == [f"i{uid}" for uid in [*data.train[at], data.valid[at]]]
        assert target == f"i{data.test[at]}"
    counts = data.counts(ITEMS)
    assert holdout.counts == {f"i{uid}": int(n) for uid, n in enumerate(counts) if n}


def test_row_order_does_not_matter(holdout: Holdout, dataset: Dataset) -> None:
    shuffled = replace(dataset, interactions=dataset.interactions.sample(frac=1, random_state=0))
    assert Holdout.of(shuffled).digest(ITEM_IDS) == holdout.digest(ITEM_IDS[::-1])


def test_any_other_user_prompt_target_or_ranked_item_is_another_holdout(holdout: Holdout) -> None:
    others = [
        replace(holdout, targets=["i1", *holdout.targets[1:]]),
        replace(holdout, prompts=[holdout.prompts[0][::-1], *holdout.prompts[1:]]),
        replace(holdout, users=["someone", *holdout.users[1:]]),
    ]
    digests = {each.digest(ITEM_IDS) for each in (holdout, *others)}
    assert len(digests | {holdout.digest(ITEM_IDS[1:])}) == 5  # fewer ranked items: another holdout, too


def test_users_without_a_test_item_or_a_past_are_left_out() -> None:
    rows = [("a", "i1", 0, "test"), ("b", "i1", 0, "train"), ("c", "i2", 0, "train"), ("c", "i3", 1, "test")]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "position", "split"])
    holdout = Holdout.of(replace(tiny_dataset(), interactions=table))
    assert (holdout.users, holdout.prompts, holdout.targets) == (["c"], [["i2"]], ["i3"])
    with pytest.raises(ValueError, match="no user has a test item"):
        Holdout.of(replace(tiny_dataset(), interactions=table[:2]))


def test_a_past_longer_than_a_request_is_cut_to_what_can_be_asked() -> None:
    rows = [("a", f"i{at % 7}", at, "train") for at in range(MAX_HISTORY + 3)]
    rows.append(("a", "i9", MAX_HISTORY + 3, "test"))
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "position", "split"])
    (prompt,) = Holdout.of(replace(tiny_dataset(), interactions=table)).prompts
    assert prompt == [f"i{at % 7}" for at in range(3, MAX_HISTORY + 3)]


def test_ranks_are_the_definition_with_history_masked(recommender: Recommender, holdout: Holdout) -> None:
    ranks = holdout_ranks(recommender, holdout)
    rows = zip(holdout.prompts, holdout.targets, strict=True)
    slow = [slow_rank(scored(recommender, prompt), prompt, target) for prompt, target in rows]
    assert ranks.tolist() == slow
    assert np.isfinite(ranks).all()


def test_without_the_mask_ranks_would_be_worse(recommender: Recommender, holdout: Holdout) -> None:
    rows = zip(holdout.prompts, holdout.targets, strict=True)
    unmasked = [slow_rank(scored(recommender, prompt), [], target) for prompt, target in rows]
    assert (holdout_ranks(recommender, holdout) <= unmasked).all()
    assert holdout_ranks(recommender, holdout).sum() < sum(unmasked)


def test_popularity_ranks_by_training_counts(recommender: Recommender, holdout: Holdout) -> None:
    catalogue = recommender.catalogue
    counts = np.array([0, *(holdout.counts.get(item, 0) for item in catalogue.item_ids)])
    ranks = holdout_ranks(Baseline(catalogue, Popularity(counts), 10), holdout)
    floats = {item: float(holdout.counts.get(item, 0)) for item in catalogue.item_ids}
    rows = zip(holdout.prompts, holdout.targets, strict=True)
    assert ranks.tolist() == [slow_rank(floats, prompt, target) for prompt, target in rows]
    assert counts[0] == 0  # the caller's counts stay as they were


def test_what_cannot_be_ranked_counts_as_a_miss(recommender: Recommender, holdout: Holdout) -> None:
    odd = replace(
        holdout,
        users=["a", "b", "c", "d"],
        prompts=[["i1"], ["unknown"], ["i1", "unknown"], ["i5", "i2"]],
        targets=["newer than the model", "i2", "i2", "i5"],
    )
    ranks = holdout_ranks(recommender, odd)
    alone = holdout_ranks(recommender, replace(odd, users=["c"], prompts=[["i1"]], targets=["i2"]))
    assert ranks.tolist() == [np.inf, np.inf, alone[0], np.inf]


def test_candidates_bar_everything_else(recommender: Recommender, holdout: Holdout) -> None:
    candidates = {f"i{at}" for at in range(1, 25)}
    ranks = holdout_ranks(recommender, holdout, candidates)
    for rank, prompt, target in zip(ranks, holdout.prompts, holdout.targets, strict=True):
        few = {item: score for item, score in scored(recommender, prompt).items() if item in candidates}
        assert rank == (slow_rank(few, prompt, target) if target in candidates else np.inf)


def test_retired_items_are_neither_ranked_nor_found(recommender: Recommender, holdout: Holdout) -> None:
    retired_items = frozenset(holdout.targets[:5])
    catalogue = replace(recommender.catalogue, retired=retired_items)
    retired = Baseline(catalogue, recommender.model, recommender.model.config.max_history)
    still = Baseline(recommender.catalogue, recommender.model, recommender.model.config.max_history)
    offered = set(recommender.catalogue.item_ids) - retired_items
    ranks = holdout_ranks(retired, holdout)
    assert np.array_equal(ranks, holdout_ranks(still, holdout, offered))
    assert all(
        np.isinf(rank) == (item in retired_items) for rank, item in zip(ranks, holdout.targets, strict=True)
    )


def test_the_evidence_has_what_the_gate_reads(evidence: Evaluation, holdout: Holdout) -> None:
    hits = round(40 * (evidence.models["challenger"]["recall@10"].mean or 0))
    assert evidence.holdout == HoldoutSummary(
        users=40, items=ITEMS, hits=hits, digest=holdout.digest(ITEM_IDS)
    )
    assert sorted(evidence.models) == ["challenger", "popularity", "sasrec"]
    assert sorted(evidence.paired) == ["popularity", "sasrec"]
    assert evidence.champion == ChampionComparison(release=None)
    assert evidence.latency is not None and evidence.latency.p50_ms <= evidence.latency.p99_ms
    for model in evidence.models.values():
        assert sorted(model) == ["ndcg@10", "ndcg@5", "recall@10", "recall@5"]
        assert all(part.low <= part.mean <= part.high for part in model.values())
    assert Evaluation.model_validate_json(json.dumps(evidence.to_json(), allow_nan=False)) == evidence


def test_both_models_are_judged_with_text_similarity_and_beside_it_alone(
    dataset: Dataset, recommender: Recommender, sasrec: SASRec, holdout: Holdout
) -> None:
    catalogue = replace(recommender.catalogue, text=tiny_vectors(ITEMS))
    with_text = Recommender(replace(recommender.bundle, catalogue=catalogue, similarity_scale=3.0))
    evidence = evaluate(dataset, with_text, sasrec, sasrec_similarity=4.0)
    assert evidence.similarity == {"challenger": 3.0, "sasrec": 4.0}
    length = recommender.model.config.max_history
    texts = TextSimilarity(tiny_vectors(ITEMS + 1)[[0, *range(ITEMS)]], length)
    plain = Baseline(catalogue, sasrec, sasrec.config.max_history)
    rows = zip(holdout.prompts, holdout.targets, strict=True)
    alone, joined = [], []
    for prompt, target in rows:
        history = np.array([catalogue.uids[item] for item in prompt])
        likeness = texts.to_all([history])[0]
        both = (plain.scores([history])[0] + 4 * likeness).tolist()
        alone.append(slow_rank({i: float(likeness[u]) for i, u in catalogue.uids.items()}, prompt, target))
        joined.append(slow_rank({i: both[u] for i, u in catalogue.uids.items()}, prompt, target))
    assert evidence.models["nearest_text"] == summary(np.array(alone))
    assert evidence.models["sasrec"] == summary(np.array(joined))
    assert evidence.paired["nearest_text"]["ndcg@10"].difference is not None
    assert "models.nearest_text" not in evidence.not_measured
    without = evaluate(dataset, recommender, sasrec)
    assert "nearest_text" not in without.models
    assert without.not_measured["paired.nearest_text"] == "the catalogue has no texts."


def test_a_champion_of_another_catalogue_is_compared_over_the_shared_items(
    evidence: Evaluation, dataset: Dataset, recommender: Recommender, sasrec: SASRec, holdout: Holdout
) -> None:
    retired_items = frozenset(holdout.targets[:5])
    smaller = replace(recommender.bundle, catalogue=replace(recommender.catalogue, retired=retired_items))
    evaluation = evaluate(dataset, recommender, sasrec, Recommender(smaller, "c" * 64))
    users = sum(target not in retired_items for target in holdout.targets)
    comparison = evaluation.champion
    assert comparison == ChampionComparison(
        release="c" * 64,
        items=ITEMS - len(retired_items),
        items_challenger=ITEMS,
        items_champion=ITEMS - len(retired_items),
        users=users,
        users_share=round(users / 40, 6),
        holdout=comparison.holdout,
        models=comparison.models,
        same_weights=True,
        same_ranks=True,
    )
    assert comparison.models["champion"] == comparison.models["challenger"]
    assert comparison.holdout != evaluation.holdout.digest and "champion" not in evaluation.models
    # the same weights over the same items for the same users: no difference, whatever the catalogues
    assert {part.difference for part in evaluation.paired["champion"].values()} == {0.0}
    assert evaluation.models["challenger"] == evidence.models["challenger"]


def test_paired_differences_are_those_of_the_means(evidence: Evaluation) -> None:
    models = evidence.models
    for rival in ("popularity", "sasrec"):
        for metric, difference in evidence.paired[rival].items():
            gap = models["challenger"][metric].mean - models[rival][metric].mean
            assert difference.difference == pytest.approx(gap, abs=3e-6)


def test_evaluating_twice_differs_in_time_alone(
    evidence: Evaluation, dataset: Dataset, recommender: Recommender, sasrec: SASRec
) -> None:
    again = evaluate(dataset, recommender, sasrec)
    timeless = {"latency": None}
    assert again.model_copy(update=timeless) == evidence.model_copy(update=timeless)


def test_slices_partition_the_users(evidence: Evaluation) -> None:
    users = {name: part.users for name, part in evidence.slices.items()}
    assert sum(n for name, n in users.items() if "items" in name) == 40
    assert sum(n for name, n in users.items() if "histories" in name) == 40
    assert min(users.values()) > 0


@pytest.mark.parametrize("kind", ["items", "histories"])
def test_slices_add_up_to_the_whole(evidence: Evaluation, kind: str) -> None:
    parts = [part for name, part in evidence.slices.items() if kind in name]
    for model, whole in evidence.models.items():
        for metric in whole:
            mean = sum(part.users * part.models[model][metric] for part in parts) / 40
            assert mean == pytest.approx(whole[metric].mean, abs=1e-5)


def test_slices_split_where_they_say() -> None:
    counts = {"hit": 50, "seen": 3, **{f"other{at}": 1 for at in range(8)}}
    targets = ["hit", "seen", "other1", "never", "hit"]
    holdout = Holdout(list("abcde"), [["x"] * n for n in (1, 2, 3, 4, 9)], targets, counts)
    ranks = np.array([1.0, 2.0, 3.0, np.inf, 50.0])
    parts = slices(holdout, {"challenger": ranks})
    assert {name.split(" (")[0]: part.users for name, part in parts.items()} == {
        "head items": 3,  # the top fifth of ten items: hit and seen
        "tail items": 1,
        "cold items": 1,
        "short histories": 3,
        "long histories": 2,
    }
    head = next(part for name, part in parts.items() if name.startswith("head"))
    gains = per_user(ranks[[0, 1, 4]])["ndcg@10"]
    assert head.models["challenger"]["ndcg@10"] == pytest.approx(gains.mean(), abs=1e-6)


def test_slices_without_any_training_interaction_are_all_cold() -> None:
    holdout = Holdout(["a"], [["x"]], ["y"], {})
    assert "cold items (never trained on)" in slices(holdout, {"challenger": np.array([1.0])})
