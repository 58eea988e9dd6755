"""Every known action is a target once, after what came before it and nothing else."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ranking import hold_out_shares
from car_model.action_ranker.data import (
    PARTS,
    ActionHistories,
    Batch,
    Part,
    action_classes,
    action_histories,
    scoring_batches,
    training_batches,
)
from car_model.data.histories import HistoryError
from tests.car_model.action_ranker.rankers import LIKED


def histories(lengths: list[int], held: int = 0) -> ActionHistories:
    """Histories whose UIDs tell user and place: 1000 * user + place + 1; the last `held` are for tests."""
    uids = [1000 * user + np.arange(1, length + 1) for user, length in enumerate(lengths)]
    actions = [1 + row % 2 for row in uids]
    parts = [np.repeat([0, 2], [len(row) - min(held, len(row)), min(held, len(row))]) for row in uids]
    return ActionHistories([str(at) for at in range(len(lengths))], uids, actions, parts)


def targets(batch: Batch) -> list[int]:
    return batch.uids[batch.target_mask].tolist()


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    history=st.integers(1, 12),
    size=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_training_asks_for_every_action_once_in_windows_of_neighbours(
    lengths: list[int], history: int, size: int, seed: int
) -> None:
    data = histories(lengths)
    found: Counter[int] = Counter()
    for batch in training_batches(data, history, size, np.random.default_rng(seed)):
        assert batch.uids.shape[1] <= history
        assert len(batch.uids) <= size
        found.update(targets(batch))
        for row in batch.uids.numpy():
            real = row[row != 0]
            assert (np.diff(real) == 1).all()
    assert found == Counter(np.concatenate(data.uids).tolist())


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    held=st.integers(1, 30),
    history=st.integers(1, 12),
    size=st.integers(1, 5),
)
def test_scoring_asks_for_every_held_out_action_once_with_half_the_reach_before_it(
    lengths: list[int], held: int, history: int, size: int
) -> None:
    data = histories(lengths, held)
    found: Counter[int] = Counter()
    for batch in scoring_batches(data, "test", history, size):
        found.update(targets(batch))
        assert batch.uids.shape[1] <= history
        for at, (row, start) in enumerate(zip(batch.row, batch.start, strict=True)):
            real = batch.uids[at][batch.uids[at] != 0].numpy()
            assert (real == data.uids[row][start : start + len(real)]).all()
            for place in batch.target_mask[at].nonzero().flatten().tolist():
                assert place >= min(history // 2, start + place)
    expected = [row[parts == 2] for row, parts in zip(data.uids, data.parts, strict=True)]
    assert found == Counter(np.concatenate(expected).tolist())


def test_held_out_actions_are_no_targets_of_training() -> None:
    data = histories([10, 3], held=3)
    seen = [uid for batch in training_batches(data, 5, 4, np.random.default_rng(0)) for uid in targets(batch)]
    assert sorted(seen) == list(range(1, 8))


def test_unknown_actions_are_no_targets_but_stay_in_the_history() -> None:
    data = histories([6])
    data.actions[0][2] = 0
    (batch,) = training_batches(data, 10, 4, np.random.default_rng(0))
    assert batch.uids.tolist() == [[1, 2, 3, 4, 5, 6]]
    assert batch.target_mask.tolist() == [[True, True, False, True, True, True]]


@given(st.lists(st.integers(1, 200), min_size=1, max_size=5))
def test_shares_hold_out_the_latest_of_every_user(lengths: list[int]) -> None:
    data = hold_out_shares(histories(lengths), valid=0.1, test=0.2)
    for parts in data.parts:
        assert (np.diff(parts) >= 0).all()
        assert (parts == 2).sum() == min(len(parts), max(1, round(0.2 * len(parts))))
        assert (parts == 1).sum() == min(len(parts) - (parts == 2).sum(), max(1, round(0.1 * len(parts))))


def table(**changes: object) -> pd.DataFrame:
    columns = {
        "user_id": ["b", "a", "a", "b", "a"],
        "item_id": ["x", "y", "x", "z", "z"],
        "position": [0, 1, 0, 1, 2],
        "action": [5.0, 3.0, 4.0, None, 1.0],
        "split": ["train", "valid", "train", "test", "test"],
    }
    return pd.DataFrame({**columns, **changes})


UIDS = {"x": 1, "y": 2, "z": 3}


def test_a_table_becomes_sequences_of_items_and_classes_in_order() -> None:
    data = action_histories(table(), UIDS, LIKED)
    assert data.users == ["a", "b"]
    assert [row.tolist() for row in data.uids] == [[1, 2, 3], [1, 3]]
    assert [row.tolist() for row in data.actions] == [[2, 1, 1], [2, 0]]
    assert [[PARTS[part] for part in row] for row in data.parts] == [
        ["train", "valid", "test"],
        ["train", "test"],
    ]
    parts: list[Part] = ["train", "valid", "test"]
    assert [[mask.tolist() for mask in data.targets(part)] for part in parts] == [
        [[True, False, False], [True, False]],
        [[False, True, False], [False, False]],
        [[False, False, True], [False, False]],
    ]


def test_an_action_counts_as_liked_from_the_threshold_on() -> None:
    values = np.array([0.0, 1.5, 3.9, 4.0, 9.0, np.nan])
    assert action_classes(values, 4.0).tolist() == [1, 1, 1, 2, 2, 0]


@pytest.mark.parametrize("wrong", [table(action=None), table().drop(columns="action")])
def test_interactions_without_actions_are_refused(wrong: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="have no 'action'"):
        action_histories(wrong, UIDS, LIKED)


def test_an_item_outside_the_catalogue_is_named() -> None:
    with pytest.raises(HistoryError, match="'z' has interactions but is not in the catalogue"):
        action_histories(table(), {"x": 1, "y": 2}, LIKED)
