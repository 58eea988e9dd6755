"""Metrics against naive ones; ties, padding and broken scores can't help."""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.stats import binomtest

from car_model.metrics.ranking import CUTOFFS, difference, interval, paired, per_user, ranks_of, summary

SCORES = npst.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(1, 12)),
    elements=st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0, 2.0000001]),
)
RANKS = npst.arrays(
    np.float64, st.integers(1, 40), elements=st.integers(1, 60).map(float) | st.just(np.inf) | st.just(5.5)
)
pytestmark = pytest.mark.filterwarnings("error")


def naive_rank(row: list[float], target: int) -> float:
    """Mean rank of the target over all orders of the items it ties with."""
    if row[target] == -math.inf:
        return math.inf
    above = sum(score > row[target] for score in row)
    ties = sum(score == row[target] for score in row)
    return sum(above + position for position in range(1, ties + 1)) / ties


@given(SCORES, st.data())
def test_ranks_are_the_mean_over_orders_of_ties(scores: np.ndarray, data: st.DataObject) -> None:
    rows, columns = scores.shape
    targets = data.draw(npst.arrays(np.int64, rows, elements=st.integers(0, columns - 1)))
    naive = [naive_rank(row, target) for row, target in zip(scores.tolist(), targets, strict=True)]
    assert ranks_of(scores, targets).tolist() == naive
    assert ranks_of(torch.from_numpy(scores), targets).tolist() == naive


def metrics_by_sorting(scores: list[float], history: set[int], target: int) -> dict[str, float]:
    """Recall and NDCG read off the list of all items outside the history, best first.

    Ties are sorted once in the target's favour and once against it; the place half-way counts.
    """
    items = [item for item in range(1, len(scores)) if item not in history]
    if target in history:
        return dict.fromkeys(("recall@5", "ndcg@5", "recall@10", "ndcg@10"), 0.0)
    kind, unkind = (
        sorted(items, key=lambda item: (-scores[item], (item == target) == against))
        for against in (False, True)
    )
    position = (kind.index(target) + unkind.index(target)) / 2
    metrics = {}
    for k in (5, 10):
        hit = position <= k - 1
        metrics[f"recall@{k}"] = float(hit)
        metrics[f"ndcg@{k}"] = 1 / math.log2(position + 2) if hit else 0.0  # the ideal list has 1 / log2(2)
    return metrics


@given(
    npst.arrays(np.float64, (5, 20), elements=st.integers(0, 12).map(lambda level: level / 4)),
    st.lists(st.sets(st.integers(1, 19), max_size=12), min_size=5, max_size=5),
    st.lists(st.integers(1, 19), min_size=5, max_size=5),
)
def test_metrics_are_those_of_sorted_lists_without_the_history(
    scores: np.ndarray, histories: list[set[int]], targets: list[int]
) -> None:
    naive = [metrics_by_sorting(*user) for user in zip(scores.tolist(), histories, targets, strict=True)]
    for row, history in zip(scores, histories, strict=True):
        row[[0, *history]] = -np.inf
    metrics = per_user(ranks_of(scores, np.array(targets)))
    assert sorted(metrics) == sorted(naive[0])
    for name, values in metrics.items():
        assert values.tolist() == pytest.approx([user[name] for user in naive], abs=1e-12)


@given(SCORES, st.data())
def test_renumbering_items_changes_no_rank(scores: np.ndarray, data: st.DataObject) -> None:
    order = np.array(data.draw(st.permutations(range(scores.shape[1]))))
    targets = np.zeros(len(scores), dtype=np.int64)
    moved = np.full(len(scores), int(np.flatnonzero(order == 0)[0]))
    assert ranks_of(scores[:, order], moved).tolist() == ranks_of(scores, targets).tolist()


@pytest.mark.parametrize("items", [20, 21, 1000])
def test_constant_scores_cannot_hit(items: int) -> None:
    ranks = ranks_of(np.zeros((items, items)), np.arange(items))
    assert not any(values.any() for values in per_user(ranks).values())


@pytest.mark.parametrize("place", [0, 1])
def test_scores_that_are_not_numbers_rank_last(place: int) -> None:
    scores = np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    scores[0, place] = np.nan
    assert ranks_of(scores, np.array([0, 0])).tolist() == [np.inf, 1.0]
    assert ranks_of(torch.from_numpy(scores), np.array([0, 0])).tolist() == [np.inf, 1.0]
    everything = np.full((2, 3), np.nan)
    assert not per_user(ranks_of(everything, np.array([1, 2])))["recall@10"].any()


@given(RANKS)
def test_recall_and_ndcg_are_the_definition(ranks: np.ndarray) -> None:
    metrics = per_user(ranks)
    for k in CUTOFFS:
        assert metrics[f"recall@{k}"].tolist() == [1.0 if rank <= k else 0.0 for rank in ranks]
        gains = [1 / math.log2(1 + rank) if rank <= k else 0.0 for rank in ranks]
        assert metrics[f"ndcg@{k}"] == pytest.approx(gains)


@given(RANKS)
def test_the_interval_holds_the_mean_and_repeats(ranks: np.ndarray) -> None:
    values = per_user(ranks)["ndcg@10"]
    low, high = interval(values)
    assert 0 <= low <= values.mean() <= high <= 1
    assert interval(values) == (low, high)


@pytest.mark.parametrize(("users", "hits"), [(1, 0), (1, 1), (7, 7), (40, 1), (200, 20), (1000, 997)])
def test_the_interval_of_a_share_is_the_exact_one(users: int, hits: int) -> None:
    exact = binomtest(hits, users).proportion_ci()
    width = exact.high - exact.low
    assert interval(np.arange(users) < hits) == pytest.approx((exact.low, exact.high), abs=0.03 * width)


@pytest.mark.parametrize("losses", [0, 1, 3, 10, 40])
def test_a_difference_of_hits_is_blessed_as_by_the_exact_sign_test(losses: int) -> None:
    """Whatever the number of users is: those who hit or miss with both models say nothing."""

    def blessed(wins: int) -> bool:
        ours, theirs = np.arange(1000) < wins, np.arange(1000)[::-1] < losses
        return (difference(ours.astype(float), theirs.astype(float)).low or 0) > 0

    fewest = bisect_left(range(losses, 3 * losses + 20), True, key=blessed) + losses
    chances = [binomtest(wins, wins + losses, alternative="greater").pvalue for wins in (fewest - 1, fewest)]
    assert chances[1] < 0.027 and chances[0] > 0.022  # 0.025 up to the noise of 4,000 resamples


def random_model(kind: str, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Ranks of a model that knows nothing, [samples, users]."""
    if kind == "dense":
        return rng.integers(1, 21, shape).astype(float)
    if kind == "sparse":
        return rng.integers(1, 1001, shape).astype(float)
    if kind == "ties":
        return rng.integers(2, 42, shape) / 2
    return np.where(rng.random(shape) < 0.9, 3.0, np.inf)  # nearly all users are equal


@pytest.mark.parametrize("users", [1, 2, 3, 5, 8, 15, 40, 200, 1000])
@pytest.mark.parametrize("kind", ["dense", "sparse", "ties", "equal"])
def test_random_ranks_are_hardly_ever_blessed(kind: str, users: int) -> None:
    rng = np.random.default_rng(users)
    samples = 60 if users > 100 else 200
    ours, theirs = (random_model(kind, rng, (samples, users)) for _ in range(2))
    pairs = [
        (per_user(mine)["ndcg@10"], per_user(base)["ndcg@10"])
        for mine, base in zip(ours, theirs, strict=True)
    ]
    blessed = sum((difference(mine, base).low or 0) > 0 for mine, base in pairs)
    assert binomtest(blessed, samples, 0.025, alternative="greater").pvalue > 0.01


@pytest.mark.parametrize("users", [1, 5, 20, 100])
def test_small_wins_of_everybody_bless_nothing_where_a_rare_loss_may_be_unseen(users: int) -> None:
    """All differences are equal, and above zero: a percentile bootstrap is certain of such a model."""
    ours, theirs = np.full(users, 9.0), np.full(users, 10.0)
    better = paired(ours, theirs)["ndcg@10"]
    assert better.difference > 0 > better.low
    assert paired(theirs, ours)["ndcg@10"].high > 0


def test_more_users_narrow_the_interval() -> None:
    values = np.tile([0.0, 1.0], 20)
    widths = [high - low for low, high in (interval(values), interval(np.tile(values, 25)))]
    assert widths[1] < widths[0] / 3


@given(RANKS, st.data())
def test_paired_is_the_mean_difference_and_turns_its_sign(ours: np.ndarray, data: st.DataObject) -> None:
    theirs = np.array(data.draw(st.permutations(ours.tolist())))
    forward, backward = paired(ours, theirs), paired(theirs, ours)
    mine, base = per_user(ours), per_user(theirs)
    for name, values in forward.items():
        difference = (mine[name] - base[name]).mean()
        assert values.difference == pytest.approx(difference, abs=1e-6)
        assert backward[name].difference == pytest.approx(-values.difference, abs=2e-6)
        assert values.low <= values.difference <= values.high
        if base[name].mean() > 0:
            assert values.relative == pytest.approx(difference / base[name].mean(), abs=1e-6)
            assert -1 <= values.relative_low <= values.relative <= values.relative_high


@given(RANKS)
def test_a_model_differs_from_itself_by_nothing_that_the_users_could_show(ranks: np.ndarray) -> None:
    for values in paired(ranks, ranks.copy()).values():
        assert values.difference == 0.0
        assert -values.low == values.high == pytest.approx(1 - 0.025 ** (1 / len(ranks)), rel=0.05)


def test_pairing_is_by_user_not_by_mean() -> None:
    ours, theirs = np.tile([1.0, 50.0], 50), np.tile([50.0, 1.0], 50)
    difference = paired(ours, theirs)["recall@10"]
    assert difference.difference == 0.0
    assert difference.low < 0 < difference.high
    steady = paired(np.full(100, 1.0), np.full(100, 50.0))["recall@10"]
    assert 0.9 < steady.low < steady.high == 1.0


def test_a_baseline_of_zero_has_no_relative() -> None:
    difference = paired(np.array([1.0, 2.0]), np.array([np.inf, 50.0]))["ndcg@10"]
    assert difference.difference > 0
    assert (difference.relative, difference.relative_low, difference.relative_high) == (None, None, None)


def test_nobody_has_no_numbers() -> None:
    nobody = np.zeros(0)
    assert {value for _, value in summary(nobody)["recall@5"]} == {None}
    assert {value for _, value in paired(nobody, nobody)["ndcg@10"]} == {None}


def test_other_users_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="the same users"):
        paired(np.ones(3), np.ones(4))
