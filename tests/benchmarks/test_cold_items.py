"""Cold items are ranked among each other, by every way that is named."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import cold_items
from benchmarks.cold_items import measured, recalls, rivals, sheets
from car_model.bundle import Bundle
from car_model.evaluation.evaluate import Holdout
from tests.fixtures import tiny_parts, tiny_vectors


@pytest.fixture(scope="module")
def parent() -> Bundle:
    return tiny_parts()


@pytest.fixture(scope="module")
def vectors() -> dict[str, np.ndarray]:
    """The parent's items and four new ones, one a genre, with the texts of old ones."""
    rows = tiny_vectors()
    known = {f"i{at + 1}": row for at, row in enumerate(rows)}
    return {**known, **{f"n{genre}": rows[genre] for genre in range(4)}}


HOLDOUT = Holdout(["u", "v"], [["i1", "i5"], ["i2"]], ["n0", "n1"], {})


def test_recall_counts_targets_among_the_first() -> None:
    scores = np.tile(np.arange(60.0), (2, 1))
    assert recalls(scores, np.array([59, 0])) == [0.5, 0.5]
    assert recalls(scores, np.array([12, 55])) == [0.5, 1.0]


def test_the_nearest_text_finds_a_text_that_is_in_the_history(
    vectors: dict[str, np.ndarray], parent: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold_items, "CUTOFFS", (1, 2))
    found = rivals(parent, HOLDOUT, vectors)
    assert found["text, nearest of the history"] == [1.0, 1.0]
    assert found["random, popularity"] == [0.25, 0.5]


def test_a_model_is_measured_without_and_with_the_nearest_text(
    vectors: dict[str, np.ndarray], parent: Bundle
) -> None:
    told = measured("CAR", parent, HOLDOUT, vectors)
    assert cold_items.unseen(parent, vectors) == ["n0", "n1", "n2", "n3"]
    assert set(told["recall"]) == {"CAR", "CAR, and the nearest text"}
    runs = [{**told, "seed": seed} for seed in (0, 1)]
    found = {"data": "tiny", "users": 2, "items": 4, "epochs": 3, "rivals": {"chance": [0.1, 0.2]}}
    (sheet,) = sheets({**found, "runs": runs})
    assert "2 seeds" in sheet.title
    assert [row[0] for row in sheet.rows] == ["CAR", "CAR, and the nearest text", "chance"]
