"""Made-up data for the scale test: skewed, reproducible, accepted by ingest; and exponents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.datasets.synthetic import Scale, write
from benchmarks.scale import STAGES, exponent, run_stage, tables

SMALL = Scale(users=2000, items=3000, interactions=20_000)


def test_the_full_size_is_what_the_title_says() -> None:
    full = Scale.of(1)
    assert (full.users, full.items, full.interactions) == (1_000_000, 500_000, 10_000_000)


def test_data_are_skewed_and_the_same_every_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(SMALL, tmp_path / name)
    one, two = (pq.read_table(tmp_path / name / "interactions.parquet") for name in ("one", "two"))
    assert one.equals(two)
    assert 0.9 * SMALL.interactions < one.num_rows < 1.1 * SMALL.interactions
    counts = one.to_pandas()["item_id"].value_counts().to_numpy()
    assert counts[:300].sum() > 0.25 * one.num_rows  # a tenth of the items
    lengths = one.to_pandas()["user_id"].value_counts().to_numpy()
    assert lengths.min() >= 5 and lengths.max() > 4 * np.median(lengths)
    vectors = np.load(tmp_path / "one" / "vectors.npy")
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.integration
def test_every_stage_runs_and_measures_its_time_and_memory(tmp_path: Path) -> None:
    config = write(SMALL, tmp_path)
    rows = [run_stage(stage, 1, tmp_path, config) for stage in STAGES]
    assert all(row.seconds > 0 and row.memory_mib > 100 for row in rows)
    details = {row.stage: row.details for row in rows}
    assert details["ingest"]["interactions"] > 5000
    assert details["train"]["step_s"] > 0 and details["train"]["sampled_step_s"] > 0
    assert details["answer"]["answer_ms"] > 0
    assert "ingest" in tables(rows)[0].markdown()


def test_exponents_are_slopes_on_logarithmic_axes() -> None:
    assert exponent({16: 1.0, 4: 9.0, 1: 16.0}) == pytest.approx(1.0)
    assert exponent({1: 3.0}) is None
