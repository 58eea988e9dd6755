"""The histories that rankers are timed on, and how their times and memory are told."""

from __future__ import annotations

import numpy as np

from benchmarks.ranking_speed import RANDOM, RANDOM_ITEMS, REAL, random_histories, ratios, sheets


def test_random_histories_are_as_long_as_told_and_alike_every_time() -> None:
    one, two = random_histories(50, 7), random_histories(50, 7)
    assert {len(items) for items in one.uids} == {50}
    assert sum(len(items) for items in one.uids) == RANDOM_ITEMS
    assert min(items.min() for items in one.uids) == 1
    assert max(items.max() for items in one.uids) == 7
    assert all(map(np.array_equal, one.uids, two.uids))
    assert all(map(np.array_equal, one.actions, two.actions))


def test_ratios_are_taken_within_a_round() -> None:
    taken = {"interleaved": np.array([1.0, 4.0, 2.0]), "lfa": np.array([0.5, 1.0, 1.0])}
    told = ratios(taken, "lfa")  # type: ignore[arg-type]
    assert (told["ratio"]["min"], told["ratio"]["median"], told["ratio"]["max"]) == (0.25, 0.5, 0.5)
    assert told["seconds"]["median"] == 1.0


def test_a_sheet_tells_differences_from_the_interleaved_baseline() -> None:
    def spread(value: float) -> dict[str, float]:
        return {"min": value, "median": value, "max": value}

    figures = [
        {
            **{"data": data, "history": 50, "architecture": name, "memory": memory},
            **{"ratio": spread(ratio), "seconds": spread(2 * ratio)},
        }
        for data in (REAL, RANDOM)
        for name, memory, ratio in (("interleaved", 200.0, 1.0), ("lfa", 150.0, 0.5))
    ]
    made = sheets({"rounds": 3, "items_a_batch": 3200, "figures": figures})
    assert len(made) == 2
    text = made[0].markdown()
    assert "-50%" in text and "-23%" in text and "-25%" in text
