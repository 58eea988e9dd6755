"""New items are ranked among each other, by every method that is named."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import cold_items
from benchmarks.cold_items import ColdItemsRow, measure, new_items, recalls, tables, text_baselines
from car_model.bundle import Bundle
from car_model.evaluation.evaluate import Holdout
from tests.fixtures import tiny_parts, tiny_vectors


@pytest.fixture(scope="module")
def parent() -> Bundle:
    return tiny_parts()


@pytest.fixture(scope="module")
def vectors() -> dict[str, np.ndarray]:
    """The parent's items and four new ones, one per genre, with the texts of old ones."""
    rows = tiny_vectors()
    old = {f"i{i + 1}": row for i, row in enumerate(rows)}
    return {**old, **{f"n{genre}": rows[genre] for genre in range(4)}}


HOLDOUT = Holdout(["u", "v"], [["i1", "i5"], ["i2"]], ["n0", "n1"], {})


def test_recall_counts_targets_among_the_first() -> None:
    scores = np.tile(np.arange(60.0), (2, 1))
    assert recalls(scores, np.array([59, 0])) == (0.5, 0.5)
    assert recalls(scores, np.array([12, 55])) == (0.5, 1.0)


def test_the_nearest_text_finds_a_text_that_is_in_the_history(
    vectors: dict[str, np.ndarray], parent: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold_items, "CUTOFFS", (1, 2))
    baselines = text_baselines(parent, HOLDOUT, vectors)
    assert baselines["text, nearest of the history"] == (1.0, 1.0)
    assert baselines["random, popularity"] == (0.25, 0.5)


def test_a_model_is_measured_without_and_with_text_similarity(
    vectors: dict[str, np.ndarray], parent: Bundle
) -> None:
    measured = measure("CAR", parent, HOLDOUT, vectors)
    assert new_items(parent, vectors) == ["n0", "n1", "n2", "n3"]
    assert [row["ranked_by"] for row in measured] == ["CAR", "CAR + text similarity"]
    setup = {"machine": "a machine", "dataset": "tiny", "epochs": 3, "users": 2, "items": 4}
    rows = [ColdItemsRow(**setup, **row, seed=seed) for seed in (0, 1) for row in measured]
    rows.append(ColdItemsRow(**setup, ranked_by="chance", recall_at_10=0.1, recall_at_50=0.2))
    (table,) = tables(rows)
    assert "2 seeds" in table.title
    assert [row[0] for row in table.rows] == ["CAR", "CAR + text similarity", "chance"]
