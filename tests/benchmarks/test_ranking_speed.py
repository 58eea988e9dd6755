"""The histories that rankers are timed on, and the table of their times and memory."""

from __future__ import annotations

import numpy as np

from benchmarks.ranking_speed import (
    RANDOM,
    RANDOM_ITEMS,
    REAL,
    RankingSpeedRow,
    random_histories,
    ratio,
    tables,
)
from benchmarks.report.rows import Range


def test_random_histories_have_the_length_and_are_the_same_every_time() -> None:
    first, second = random_histories(50, 7), random_histories(50, 7)
    assert {len(items) for items in first.uids} == {50}
    assert sum(len(items) for items in first.uids) == RANDOM_ITEMS
    assert min(items.min() for items in first.uids) == 1
    assert max(items.max() for items in first.uids) == 7
    assert all(map(np.array_equal, first.uids, second.uids))
    assert all(map(np.array_equal, first.actions, second.actions))


def test_ratios_are_taken_within_a_round() -> None:
    seconds = {"interleaved": np.array([1.0, 4.0, 2.0]), "lfa": np.array([0.5, 1.0, 1.0])}
    assert ratio(seconds, "lfa") == Range(median=0.5, min=0.25, max=0.5)  # type: ignore[arg-type]


def test_a_table_shows_differences_from_the_interleaved_baseline() -> None:
    rows = [
        RankingSpeedRow(
            machine="a machine",
            rounds=3,
            items_per_batch=3200,
            d_model=64,
            n_layers=2,
            histories=histories,
            max_history=50,
            architecture=architecture,
            seconds=Range.of([2 * value]),
            ratio=Range.of([value]),
            memory_mib=memory,
        )
        for histories in (REAL, RANDOM)
        for architecture, memory, value in (("interleaved", 200.0, 1.0), ("lfa", 150.0, 0.5))
    ]
    first, second = tables(rows)
    text = first.markdown()
    assert "-50%" in text and "-23%" in text and "-25%" in text
    assert RANDOM in second.title
