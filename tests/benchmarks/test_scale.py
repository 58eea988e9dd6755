"""Made-up data for the scale test: skewed, reproducible, accepted by ingest; and exponents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.datasets.synthetic import Scale, write
from benchmarks.scale import exponent, sheets
from benchmarks.scale_stages import STAGES, staged

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
def test_every_stage_runs_and_tells_its_time_and_memory(tmp_path: Path) -> None:
    config = write(SMALL, tmp_path)
    told = {name: staged(name, tmp_path, config) for name in STAGES}
    assert all(one["seconds"] > 0 and one["memory"] > 100 for one in told.values())
    assert told["ingest"]["interactions"] > 5000
    assert told["train"]["step_s"] > 0 and told["train"]["sampled_step_s"] > 0
    assert told["answer"]["answer_ms"] > 0
    tables = sheets({"stages": {name: {"1": one} for name, one in told.items()}})
    assert "ingest" in tables[0].markdown()


def test_exponents_are_slopes_on_logarithmic_axes() -> None:
    mine = {"16": {"seconds": 1.0}, "4": {"seconds": 9.0}, "1": {"seconds": 16.0}}
    assert exponent(mine, "seconds") == pytest.approx(1.0)
    assert exponent({"1": {"seconds": 3.0}}, "seconds") is None
