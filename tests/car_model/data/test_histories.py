"""Windows, batches and padding: every interaction is a target once, in its true context."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from car_model.data.histories import Histories, HistoryError, batches, pad, windows

LENGTHS = st.lists(st.integers(0, 25), max_size=6)


def sequences(lengths: list[int]) -> list[np.ndarray]:
    """Sequences whose UIDs are all different, so that a UID names its user and its place."""
    ends = np.cumsum([0, *lengths])
    return [np.arange(1 + start, 1 + stop) for start, stop in itertools.pairwise(ends)]


@given(LENGTHS, st.integers(1, 12), st.integers(0, 5))
def test_windows_hold_every_target_once_after_its_own_past(
    lengths: list[int], history: int, seed: int
) -> None:
    train = sequences(lengths)
    cut = windows(train, history, np.random.default_rng(seed))
    targets = np.concatenate([window[1:] for window in cut]) if cut else np.zeros(0)
    assert targets.tolist() == [uid for seq in train for uid in seq[1:]]
    for window in cut:
        assert 2 <= len(window) <= history + 1
        assert (np.diff(window) == 1).all()  # consecutive: no gap, no other user's items
        assert any(window[0] in seq and window[-1] in seq for seq in train)


def test_the_phase_moves_with_the_seed_for_long_sequences_alone() -> None:
    train = sequences([30, 5])
    first = {tuple(windows(train, 8, np.random.default_rng(seed))[0]) for seed in range(20)}
    last = {tuple(windows(train, 8, np.random.default_rng(seed))[-1]) for seed in range(20)}
    assert len(first) > 3
    assert len(last) == 1


@given(LENGTHS, st.integers(1, 12), st.integers(1, 5), st.integers(0, 5), st.booleans())
def test_batches_teach_every_step_of_every_user_once(
    lengths: list[int], history: int, size: int, seed: int, by_length: bool
) -> None:
    train = sequences(lengths)
    steps: Counter[tuple[int, int]] = Counter()
    for inputs, targets in batches(train, history, size, np.random.default_rng(seed), by_length):
        assert inputs.shape == targets.shape
        assert inputs.shape[0] <= size
        assert inputs.shape[1] <= history
        pairs = zip(inputs.flatten().tolist(), targets.flatten().tolist(), strict=True)
        steps.update((before, after) for before, after in pairs if after)
    assert steps == Counter((uid, uid + 1) for seq in train for uid in seq[:-1].tolist())


@given(LENGTHS, st.integers(1, 12), st.integers(0, 5))
def test_targets_are_inputs_one_step_on(lengths: list[int], history: int, seed: int) -> None:
    for inputs, targets in batches(sequences(lengths), history, 3, np.random.default_rng(seed)):
        ahead, real = targets[:, :-1], inputs[:, 1:]
        assert bool((ahead == real).all())
        empty = inputs == 0
        assert not bool((empty[:, :-1] & ~empty[:, 1:]).any())  # padding is on the right only


def test_windows_of_like_length_share_a_batch_where_asked_for() -> None:
    lengths = [2, 9, 5, 3, 8, 4, 7, 6] * 4

    def padding(by_length: bool) -> int:
        epoch_batches = batches(sequences(lengths), 10, 4, np.random.default_rng(0), by_length)
        return sum(int((inputs == 0).sum()) for inputs, _ in epoch_batches)

    assert padding(by_length=True) == 0
    assert padding(by_length=False) > 50


def test_one_seed_gives_one_epoch_and_another_gives_another() -> None:
    def epoch(seed: int) -> list[list[list[int]]]:
        epoch_batches = batches(sequences([20, 9, 30, 4, 6]), 5, 2, np.random.default_rng(seed))
        return [inputs.tolist() for inputs, _ in epoch_batches]

    assert epoch(1) == epoch(1)
    assert epoch(1) != epoch(2)


@given(LENGTHS.filter(bool), st.integers(1, 30))
def test_pad_keeps_the_most_recent_on_the_left(lengths: list[int], length: int) -> None:
    rows = sequences(lengths)
    table = pad(rows, length).numpy()
    assert table.shape == (len(rows), min(length, max(lengths)))
    for row, seq in zip(table, rows, strict=True):
        recent = seq[-length:]
        assert row[: len(recent)].tolist() == recent.tolist()
        assert not row[len(recent) :].any()


def test_pad_of_nobody_is_empty() -> None:
    assert tuple(pad([], 5).shape) == (0, 0)


TABLE = pd.DataFrame(
    [
        ("u2", "c", 0, "train"),
        ("u1", "b", 1, "train"),
        ("u1", "a", 0, "train"),
        ("u1", "d", 3, "test"),
        ("u1", "c", 2, "valid"),
        ("u2", "a", 1, "train"),
        ("u3", "b", 0, "test"),
    ],
    columns=["user_id", "item_id", "position", "split"],
)
UIDS = {"a": 1, "b": 2, "c": 3, "d": 4}


@pytest.fixture
def data() -> Histories:
    return Histories.from_interactions(TABLE, UIDS)


def test_histories_follow_positions_not_rows(data: Histories) -> None:
    assert data.users == ["u1", "u2", "u3"]
    assert [seq.tolist() for seq in data.train] == [[1, 2], [3, 1], []]
    assert data.valid.tolist() == [3, 0, 0]
    assert data.test.tolist() == [4, 0, 2]
    assert (data.valid.dtype, data.test.dtype) == (np.int64, np.int64)


def test_what_precedes_a_holdout(data: Histories) -> None:
    assert [seq.tolist() for seq in data.before("valid")] == [[1, 2], [3, 1], []]
    assert [seq.tolist() for seq in data.before("test")] == [[1, 2, 3], [3, 1], []]
    assert data.holdout("valid") is data.valid
    assert data.holdout("test") is data.test


def test_counts_are_of_the_train_split(data: Histories) -> None:
    assert data.counts(5).tolist() == [0, 2, 1, 1, 0, 0]
    nobody = Histories.from_interactions(TABLE[:0], UIDS)
    assert (nobody.users, nobody.counts(2).tolist()) == ([], [0, 0, 0])


def test_an_item_outside_the_catalogue_is_named() -> None:
    with pytest.raises(HistoryError, match="item 'd' has interactions but is not in the catalogue"):
        Histories.from_interactions(TABLE, {"a": 1, "b": 2, "c": 3})
