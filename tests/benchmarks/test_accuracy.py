"""The accuracy benchmark: resumable, same numbers for same inputs, and honest when asked for nonsense."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import accuracy
from benchmarks.accuracy import app, parse_change
from benchmarks.datasets import load as data
from benchmarks.models import variants
from benchmarks.models.variants import SID_SETTINGS, VARIANTS, settings_of
from benchmarks.report.rows import read_rows, write_rows
from benchmarks.report.runs import AccuracyRun, rank_strings, reported_runs
from car_model.training.recipe import parse_recipe

USERS, ITEMS = 40, 60
STORED = accuracy.ACCURACY
TINY = {"d_model": 8, "epochs": 1, "n_layers": 1, "patience": 1}
SMALL = [
    f"--set={change}" for change in ("d_model=8", "epochs=1", "n_layers=1", "codebook_size=4", "n_levels=2")
]


def write_set(folder: Path) -> Path:
    """A small set in the format of the Amazon 2014 files: every user walks through the catalogue."""
    folder.mkdir(parents=True)
    lines = ["user_id\titem_id\tposition\tgap_seconds\tdate\tliked"]
    for user in range(1, USERS + 1):
        items = [1 + (user * 7 + step) % ITEMS for step in range(8)]
        gaps = [0, 0, 0, 86400, 0, 86400, 0, 0]
        lines += [
            f"{user}\t{item}\t{at}\t{gap}\t\t" for at, (item, gap) in enumerate(zip(items, gaps, strict=True))
        ]
    (folder / "interactions.tsv").write_text("\n".join(lines) + "\n")
    records = [
        {
            "item_id": item,
            "asin": f"A{item}",
            "title": f"Thing {item} of colour {item % 5}",
            "tags": f"colour {item % 5}",
        }
        for item in range(1, ITEMS + 1)
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(data, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(accuracy, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(accuracy, "ACCURACY", tmp_path / "results")
    monkeypatch.setitem(
        variants.RECIPES, "amazon2014-Shop", dict.fromkeys(("car", "sasrec", "ar", "tiger"), TINY)
    )
    return write_set(tmp_path / "Shop")


def test_every_rows_settings_make_a_recipe() -> None:
    for name in VARIANTS:
        for dataset in ("movielens-100k", "amazon2014-Beauty", "another"):
            settings = settings_of(name, dataset)
            parse_recipe({key: value for key, value in settings.items() if key not in SID_SETTINGS})


def test_changes_are_read_as_json_or_text() -> None:
    assert parse_change("dropout=0.3") == ("dropout", 0.3)
    assert parse_change("layout=full") == ("layout", "full")
    assert parse_change("tied=false") == ("tied", False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "cra"], "there is no model 'cra'"),
        (["--order", "sorted"], "there is no order 'sorted'"),
        (["--set", "dropout"], "is not setting=value"),
        (["--set", "dropuot=0.3"], "there is no setting 'dropuot'"),
        (["--data", "movielens", "--order", "shuffled"], "movielens has no column"),
        (["--data", "nowhere"], "has no interactions.tsv"),
    ],
)
def test_nonsense_is_refused_before_any_work(shop: Path, arguments: list[str], said: str) -> None:
    found = CliRunner().invoke(app, ["--data", str(shop), *arguments], env={"COLUMNS": "200"})
    assert found.exit_code == 2
    assert said in found.output
    assert not (shop.parent / "results").exists()


def table_of(shop: Path) -> Path:
    return shop.parent / "results" / "amazon2014-Shop-stored.csv"


def invoke(shop: Path, *arguments: str) -> None:
    result = CliRunner().invoke(app, ["--data", str(shop), *arguments], catch_exceptions=False)
    assert result.exit_code == 0


@pytest.mark.integration
def test_a_run_is_written_once_and_read_again(shop: Path) -> None:
    arguments = ("--model", "popularity,sasrec,car,ar,tiger", "--seeds", "0")
    invoke(shop, *arguments)
    table = table_of(shop)
    runs, ranks = reported_runs(table), rank_strings(table)
    assert len(runs) == 5
    for model, (run,) in runs.items():
        (text,) = ranks[model]
        assert len(text) == USERS
        hits = sum(sign != "." for sign in text)
        assert run.recall_at_10 == pytest.approx(hits / USERS, abs=1e-6)
    before = table.stat().st_mtime_ns
    invoke(shop, *arguments)
    assert table.stat().st_mtime_ns == before


@pytest.mark.integration
def test_a_trial_never_looks_at_the_test_items(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*arguments: object, **settings: object) -> None:
        raise AssertionError("the test items were ranked")

    monkeypatch.setattr(accuracy, "holdout_ranks", forbidden)
    invoke(shop, "--seeds", "7", *SMALL)
    (run,) = read_rows(table_of(shop), AccuracyRun)
    assert run.valid_ndcg_at_10
    assert run.recall_at_10 is run.ndcg_at_5 is None
    assert rank_strings(table_of(shop)) == {}
    with pytest.raises(AssertionError, match="were ranked"):
        invoke(shop, "--seeds", "7")


@pytest.mark.integration
def test_a_trial_of_other_settings_is_another_row_and_the_same_run_learns_the_same(shop: Path) -> None:
    for changes in (SMALL, [*SMALL, "--set=dropout=0"]):
        invoke(shop, "--seeds", "3", *changes)
    first, second = read_rows(table_of(shop), AccuracyRun)
    assert first.settings != second.settings
    write_rows(table_of(shop), [second])
    invoke(shop, "--seeds", "3", *SMALL)
    _, again = read_rows(table_of(shop), AccuracyRun)
    assert again.model_copy(update={"seconds": first.seconds}) == first


def test_the_stored_runs_are_those_of_todays_recipes() -> None:
    """Otherwise `benchmarks.accuracy` would train everything again."""
    for dataset in ("amazon2014-Beauty", "amazon2014-Sports_and_Outdoors", "amazon2014-Toys_and_Games"):
        for model, runs in reported_runs(STORED / f"{dataset}-stored.csv").items():
            if model not in VARIANTS:
                continue
            for stored in runs:
                recipe, sid_settings = accuracy.split_settings(model, dataset, {}, stored.seed)
                current = stored.model_copy(
                    update={
                        "settings": recipe.model_dump(exclude=accuracy.NOT_COMPARED),
                        "n_levels": sid_settings.get("n_levels", 4),
                        "sid_method": sid_settings.get("method", "rkmeans"),
                    }
                )
                assert accuracy.is_same_run(stored, current), (dataset, model)
