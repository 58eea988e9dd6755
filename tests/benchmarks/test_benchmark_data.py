"""Ties are shuffled within a user's day and nowhere else; ranks survive their compact form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.datasets.load import load_dataset, shuffle_ties
from benchmarks.report.statistics import CUTOFF, parse_ranks, rank_string, relative_difference
from car_model.metrics.ranking import per_user
from tests.benchmarks.test_accuracy import write_set

RANKS = st.one_of(st.integers(2, 60).map(lambda half: half / 2), st.just(np.inf))


def read(folder: Path) -> pd.DataFrame:
    frame = pd.read_csv(folder / "interactions.tsv", sep="\t")
    return frame.sort_values(["user_id", "position"], ignore_index=True)


def test_only_ties_move(tmp_path: Path) -> None:
    source = write_set(tmp_path / "Shop")
    before, after = read(source), read(shuffle_ties(source, tmp_path / "shuffled"))
    assert before[["user_id", "position"]].equals(after[["user_id", "position"]])
    assert not before["item_id"].equals(after["item_id"])
    days = [(0, 1, 2), (3, 4), (5, 6, 7)]
    for user in before["user_id"].unique():
        old, new = (
            frame[frame["user_id"] == user].set_index("position")["item_id"] for frame in (before, after)
        )
        for day in days:
            assert sorted(old[list(day)]) == sorted(new[list(day)])


def test_the_shuffle_is_the_same_every_time(tmp_path: Path) -> None:
    source = write_set(tmp_path / "Shop")
    once, again = (read(shuffle_ties(source, tmp_path / name)) for name in ("one", "two"))
    assert once.equals(again)
    assert not once.equals(read(shuffle_ties(source, tmp_path / "three", seed=1)))


def test_movielens_has_no_ties_to_shuffle() -> None:
    with pytest.raises(ValueError, match="movielens has no column"):
        load_dataset("movielens", "shuffled")


@given(st.lists(RANKS, max_size=40))
def test_ranks_up_to_the_cutoff_survive(ranks: list[float]) -> None:
    kept = parse_ranks(rank_string(np.array(ranks)))
    assert kept.tolist() == [rank if rank <= CUTOFF else np.inf for rank in ranks]
    for name, values in per_user(np.array(ranks)).items():
        assert per_user(kept)[name].tolist() == pytest.approx(values.tolist()), name


def test_a_comparison_is_of_means_over_seeds() -> None:
    ours, theirs = ["0.0.", "0..."], ["0...", "...."]  # recall of users: 1, 0, .5, 0 against .5, 0, 0, 0
    difference, low, high = relative_difference(ours, theirs, "recall@10")
    assert difference == pytest.approx((0.375 - 0.125) / 0.125)
    assert low <= difference <= high
