"""Pages of results are up to date, tables keep every digit, and comparisons are what the ranks say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import results
from benchmarks.report import comparisons, pictures
from benchmarks.report.accuracy_tables import full_table, trials_table
from benchmarks.report.comparisons import METRICS, Comparison, compare, compute
from benchmarks.report.ranking_tables import tables
from benchmarks.report.rows import Range, Row, append_row, read_rows, write_rows
from benchmarks.report.runs import (
    ACCURACY,
    AccuracyRun,
    RankerRun,
    append_accuracy,
    rank_strings,
    ranks_path,
    reported_runs,
)


class Anything(Row):
    """A row with a column of each kind."""

    text: str
    number: float | None = None
    count: int
    values: list[float]
    settings: dict[str, Any]
    spread: Range


def run(model: str, seed: int, hits: float, **changes: Any) -> AccuracyRun:
    values: dict[str, Any] = {
        **{"model": model, "seed": seed, "trial": {}, "settings": {"dropout": 0.3}, "sid_method": "rkmeans"},
        **{"n_levels": 4, "codebook_size": 256, "valid_ndcg_at_10": [0.01, 0.3], "think_scale": 0.1},
        **dict.fromkeys(("recall_at_5", "ndcg_at_5", "recall_at_10", "ndcg_at_10"), hits),
        **{"similarity_scale": 0.0, "parameters": 2_000_000, "seconds": 7, "machine": "a machine"},
        **{"dataset_digest": "d", "sids_digest": "s"},
    }
    return AccuracyRun(**(values | changes))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of runs of two models and a trial."""
    monkeypatch.setattr(comparisons, "ACCURACY", tmp_path / "accuracy")
    table = tmp_path / "accuracy" / "shop-stored.csv"
    append_accuracy(table, run("car", 0, 0.5), "0000....")
    append_accuracy(table, run("car", 1, 0.25), "00......")
    append_accuracy(table, run("sasrec", 0, 0.125), "0.......")
    append_accuracy(table, run("car", 100, 0, trial={"dropout": 0.3}, valid_ndcg_at_10=[0.1, 0.9]), None)
    return table


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\0")),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_row_survives_its_table(text: str, number: float) -> None:
    from tempfile import TemporaryDirectory

    spread = Range.of([number])
    row = Anything(
        text=text or "x",
        number=number,
        count=3,
        values=[number, 0.1],
        settings={"a": [1], "b": text},
        spread=spread,
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write_rows(path, [row])
        append_row(path, row.model_copy(update={"number": None}))
        first, second = read_rows(path, Anything)
    assert first == row
    assert second.number is None


def test_all_pages_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*arguments: object) -> None:
        raise AssertionError("a comparison is not stored: run python -m benchmarks.results")

    monkeypatch.setattr(comparisons, "compute", forbidden)
    for path, content in results.pages().items():
        if path.suffix == ".md":
            assert path.read_text() == content, f"{path}: run python -m benchmarks.results"
        else:
            assert path.is_file()


def test_stored_comparisons_are_what_the_ranks_say() -> None:
    table = ACCURACY / "movielens-100k-stored.csv"
    ranks = rank_strings(table)
    stored = [row for row in read_rows(comparisons.comparisons_path(), Comparison) if row.table == table.stem]
    assert len(stored) == 20
    for row in stored:
        assert compute(table.stem, ranks, row.model, row.other, row.metric) == row


def test_every_tested_run_has_its_ranks() -> None:
    for table in ACCURACY.glob("*.csv"):
        for model, seeds in reported_runs(table).items():
            assert len(rank_strings(table)[model]) == len(seeds), (table, model)


def test_a_comparison_is_computed_once(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compare(shop, [("car", "sasrec")])
    assert first["shop-stored", "car", "sasrec", "recall@10"].difference == 2.0  # 3 of 8 against 1 of 8
    with monkeypatch.context() as patch:
        patch.setattr(comparisons, "compute", None)
        assert compare(shop, [("car", "sasrec")]) == first
    append_accuracy(shop, run("sasrec", 1, 0.25), "00......")
    again = compare(shop, [("car", "sasrec")])
    assert again["shop-stored", "car", "sasrec", "recall@10"].difference == 1.0
    assert len(read_rows(comparisons.comparisons_path(), Comparison)) == len(METRICS)


def test_a_row_is_the_mean_and_deviation_of_its_seeds_without_trials(shop: Path) -> None:
    rows = {row[0]: row for row in full_table("shop", reported_runs(shop)).rows}
    assert rows["CAR"][1:4] == ["2", "0.3000 ± 0.0000", "0.3750 ± 0.1768"]
    assert rows["CAR"][-6:] == ["0.1, 0.1", "", "2.00 M", "0.3", "2, 2", "7"]


def test_trials_have_a_table_of_their_own(shop: Path) -> None:
    trials = [run for run in read_rows(shop, AccuracyRun) if run.trial]
    (row,) = trials_table(trials).rows
    assert row[:4] == ["CAR, dropout 0.3", "100", "0.9000", "2"]
    assert ranks_path(shop).read_text().count("car") == 2


def ranker(architecture: str, loss: float) -> RankerRun:
    return RankerRun(
        architecture=architecture,
        seed=0,
        trial=False,
        settings={"dropout": 0.2},
        d_model=8,
        n_layers=1,
        max_history=9,
        log_loss=loss,
        normalised_entropy=loss,
        auc=0.7,
        ece=0.01,
        actions=20,
        base_rate=0.5,
        valid_log_loss=[0.6],
        block_losses=[loss] * 4,
        parameters=1,
        seconds=1,
        machine="a GPU",
        dataset_digest="d",
        sids_digest="s",
    )


def test_rankers_are_compared_in_pairs() -> None:
    metrics, differences = tables("shop", [ranker("interleaved", 0.5), ranker("lfa", 0.4)])
    assert metrics.rows[1][:4] == ["AttnLFA", "1", "0.4000", "0.4000"]
    assert differences.rows[0][3] == "-20.00%"


def test_only_marked_places_of_a_page_change() -> None:
    page = "# Title\n\n<!-- table: ndcg -->\nold\n<!-- end -->\n\nText.\n"
    filled = results.fill_tables(page)
    assert filled.startswith("# Title\n\n<!-- table: ndcg -->\n| test NDCG@10 |")
    assert filled.endswith("\n<!-- end -->\n\nText.\n")
    assert "old" not in filled


def test_pictures_are_the_same_every_time() -> None:
    groups = {"set": {"CAR": [0.1, 0.2], "SASRec": [0.05]}}
    first, second = (
        pictures.grouped_bars(groups, {"CAR": "red", "SASRec": "grey"}, "NDCG") for _ in range(2)
    )
    assert "<svg" in first and first == second
    assert re.search("SASRec", first)
