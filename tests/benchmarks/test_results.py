"""The results page says what the files say, and keeps trials apart from rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results
from benchmarks.report import pictures


def run(row: str, seed: int, ranks: str, valid: float, **changes: Any) -> dict[str, Any]:
    hits = sum(sign != "." for sign in ranks) / max(1, len(ranks))
    metrics = dict.fromkeys(("recall@5", "ndcg@5", "recall@10", "ndcg@10"), hits)
    made = {"row": row, "seed": seed, "trial": {}, "machine": "a machine", "test": metrics, "ranks": ranks}
    made |= {"valid_ndcg@10": [0.01, valid], "think_scale": 0.1, "parameters": 2_000_000, "seconds": 7}
    return {**made, "sid_shape": [4, 256], "settings": {"dropout": 0.3}, **changes}


def untested(made: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in made.items() if name not in ("test", "ranks")}


RUNS = [
    run("car", 0, "0000....", 0.3),
    run("car", 1, "00......", 0.3),
    run("sasrec", 0, "0.......", 0.2),
    run("ar", 0, "00......", 0.1),
    run("car-1-level", 0, "0.......", 0.3, sid_shape=[1, 256]),
    run("car-2-levels", 0, "00......", 0.3, sid_shape=[2, 256]),
    untested(run("car", 100, "", 0.9, trial={"dropout": 0.3})),
]


def rankings(folder: Path) -> Path:
    """Two rankers of one seed on one data set."""
    (folder / "shop").mkdir(parents=True)
    for architecture, loss in (("interleaved", 0.5), ("lfa", 0.4)):
        metrics = {"log_loss": loss, "normalised_entropy": loss, "auc": 0.7, "ece": 0.01}
        made = {"architecture": architecture, "seed": 0, "trial": False, "machine": "a card", "test": metrics}
        made |= {"settings": {"dropout": 0.2}, "sizes": {"width": 8, "layers": 1, "history": 9}}
        made |= {"actions": 20, "base_rate": 0.5, "block_losses": [loss] * 4, "valid_log_loss": [0.6]}
        (folder / "shop" / f"{architecture}-0.json").write_text(json.dumps(made))
    return folder


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "results" / "shop-stored"
    folder.mkdir(parents=True)
    for at, made in enumerate(RUNS):
        (folder / f"{at}.json").write_text(json.dumps(made))
    monkeypatch.setattr(results, "RESULTS", folder.parent)
    monkeypatch.setattr(results, "PAGE", tmp_path / "results.md")
    monkeypatch.setattr(pictures, "IMAGES", tmp_path / "images")
    monkeypatch.setattr(results, "RANKINGS", rankings(tmp_path / "rankings"))
    results.main()
    return (tmp_path / "results.md").read_text()


def line(page: str, start: str) -> list[str]:
    found = next(text for text in page.splitlines() if text.startswith(start))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_a_row_is_its_seeds_mean_and_spread_without_the_trials(page: str) -> None:
    cells = line(page, "| CAR |")
    assert cells[1:4] == ["2", "0.3000 ± 0.0000", "0.3750 ± 0.1768"]
    assert cells[-6:] == ["0.1, 0.1", "", "2.00 M", "0.3", "2, 2", "7"]


def test_car_is_compared_with_the_baseline_that_is_best_on_validation(page: str) -> None:
    assert "Best baseline: SASRec, full cross-entropy." in page
    compared = page[page.index("| CAR, against |") :]
    assert line(compared, "| SASRec, full cross-entropy |")[1].startswith("+200.0% [")


def test_trials_have_a_table_of_their_own(page: str) -> None:
    trials = page[page.index("### Trials of other settings") :].split("\n## ", maxsplit=1)[0]
    assert line(trials, "| CAR, dropout 0.3 |")[1:4] == ["100", "0.9000", "2"]
    assert "Recall@10" not in trials


def test_rankers_have_a_section_with_differences_in_pairs(page: str) -> None:
    section = page[page.index("## Ranking by action, shop") :].split("\n## ", maxsplit=1)[0]
    assert "on: a card." in section
    assert line(section, "| AttnLFA | 1 |")[2:4] == ["0.4000", "0.4000"]
    assert line(section, "| AttnLFA | -20")[3] == "-20.00%"


def test_pictures_are_written_and_shown(page: str, tmp_path: Path) -> None:
    for name in ("ablation-shop-stored", "sid-bits-shop-stored"):
        assert f"](images/{name}.svg)" in page
        assert "<svg" in (tmp_path / "images" / f"{name}.svg").read_text()
