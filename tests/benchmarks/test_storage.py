"""Storage: what is measured is what happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import storage
from benchmarks.storage import Cost, make_days, measured, tables, total
from registry.store.open import open_store


def test_a_daily_release_costs_its_model_and_evidence_and_other_evidence_nothing(tmp_path: Path) -> None:
    days = make_days(tmp_path / "days", model_kib=64)
    number = iter(range(100))
    runs = measured(
        lambda workers: open_store(tmp_path / f"registry-{next(number)}", workers), days, 2, "folder"
    )
    assert runs.keys() == {1, storage.WORKERS}
    for run in (*runs[1], *runs[storage.WORKERS]):
        assert list(run) == list(storage.CASES)
        first, daily, evidence = (run[case].size for case in storage.CASES[:-1])
        assert first == total(days[0])
        assert 0 < daily < first
        assert evidence == 0
        assert all(cost.seconds > 0 for cost in run.values())


def test_ratios_are_serial_over_parallel() -> None:
    def runs(*seconds: float) -> list[dict[str, Cost]]:
        return [dict.fromkeys(storage.CASES, Cost(500_000, one)) for one in seconds]

    sizes, times = tables({("here", 1): runs(1, 2, 6), ("here", storage.WORKERS): runs(1, 1, 2)}, 1_000_000)
    assert sizes.rows[0] == ["first release", "0.5", "50%"]
    assert times.rows[0] == ["here, first release", "2.000", "1.000", "2.00 (1.00 to 3.00)"]


def test_the_parts_of_a_release_are_all_of_it(tmp_path: Path) -> None:
    (_, day, _) = make_days(tmp_path / "days", model_kib=640)
    rows = storage.parts_table(day).rows
    assert sum(float(row[1]) for row in rows) == pytest.approx(total(day) / 1e6, abs=0.02)
    weights = (day / "bundle/model/model.safetensors").stat().st_size
    assert float(rows[0][1]) == pytest.approx(weights / 1e6, abs=0.01)


@pytest.mark.integration
def test_the_whole_of_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    storage.main(repeats=1, model_mib=1, delay_ms=1)
    told = capsys.readouterr().out
    for row in ("folder, first release", "gs://, another model", "gs:// 1 ms, fetch", "made where a release"):
        assert row in told
