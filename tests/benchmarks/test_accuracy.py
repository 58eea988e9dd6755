"""The accuracy benchmark: resumable, same numbers for same inputs, and honest when asked for nonsense."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import accuracy
from benchmarks.accuracy import app, parse_change
from benchmarks.datasets import load as data
from benchmarks.models import variants as rows
from benchmarks.models.variants import ROWS, settings_of
from car_model.training.recipe import parse_recipe

USERS, ITEMS = 40, 60
TINY = {"d_model": 8, "epochs": 1, "n_layers": 1, "patience": 1}
SMALL = [f"--set={change}" for change in ("d_model=8", "epochs=1", "n_layers=1", "codes=4", "levels=2")]


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
    monkeypatch.setattr(accuracy, "RESULTS", tmp_path / "results")
    monkeypatch.setitem(
        rows.RECIPES, "amazon2014-Shop", dict.fromkeys(("car", "sasrec", "ar", "tiger"), TINY)
    )
    return write_set(tmp_path / "Shop")


def test_every_rows_settings_make_a_recipe() -> None:
    for name in ROWS:
        for dataset in ("movielens-100k", "amazon2014-Beauty", "another"):
            settings = settings_of(name, dataset)
            parse_recipe({key: value for key, value in settings.items() if key not in accuracy.SIDS})


def test_changes_are_read_as_json_or_text() -> None:
    assert parse_change("dropout=0.3") == ("dropout", 0.3)
    assert parse_change("layout=full") == ("layout", "full")
    assert parse_change("tied=false") == ("tied", False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "cra"], "there is no row 'cra'"),
        (["--order", "sorted"], "there is no order 'sorted'"),
        (["--set", "dropout"], "is not setting=value"),
        (["--set", "dropuot=0.3"], "there is no training setting 'dropuot'"),
        (["--data", "movielens", "--order", "shuffled"], "movielens has no column"),
        (["--data", "nowhere"], "has no interactions.tsv"),
    ],
)
def test_nonsense_is_refused_before_any_work(shop: Path, arguments: list[str], said: str) -> None:
    found = CliRunner().invoke(app, ["--data", str(shop), *arguments], env={"COLUMNS": "200"})
    assert found.exit_code == 2
    assert said in found.output
    assert not (shop.parent / "results").exists()


@pytest.mark.integration
def test_a_run_is_written_once_and_read_again(shop: Path) -> None:
    arguments = ["--data", str(shop), "--model", "popularity,sasrec,car,ar,tiger", "--seeds", "0"]
    first = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert first.exit_code == 0
    files = sorted((shop.parent / "results").rglob("*.json"))
    assert len(files) == 5
    for path in files:
        run = json.loads(path.read_text())
        assert len(run["ranks"]) == USERS
        hits = sum(sign != "." for sign in run["ranks"])
        assert run["test"]["recall@10"] == pytest.approx(hits / USERS, abs=1e-6)
    before = {path: path.stat().st_mtime_ns for path in files}
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in files} == before


@pytest.mark.integration
def test_a_trial_never_looks_at_the_test_items(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: object, **settings: object) -> None:
        raise AssertionError("the test items were ranked")

    monkeypatch.setattr(accuracy, "holdout_ranks", forbidden)
    found = CliRunner().invoke(app, ["--data", str(shop), "--seeds", "7", *SMALL], catch_exceptions=False)
    assert found.exit_code == 0
    (path,) = (shop.parent / "results").rglob("*.json")
    run = json.loads(path.read_text())
    assert run["valid_ndcg@10"]
    assert not {"test", "ranks"} & set(run)
    with pytest.raises(AssertionError, match="were ranked"):
        CliRunner().invoke(app, ["--data", str(shop), "--seeds", "7"], catch_exceptions=False)


@pytest.mark.integration
def test_a_trial_of_other_settings_is_another_file_and_the_same_run_learns_the_same(shop: Path) -> None:
    for changes in (SMALL, [*SMALL, "--set=dropout=0"]):
        CliRunner().invoke(app, ["--data", str(shop), "--seeds", "3", *changes], catch_exceptions=False)
    one, other = sorted((shop.parent / "results").rglob("*.json"))
    assert json.loads(one.read_text())["key"] != json.loads(other.read_text())["key"]
    known = json.loads(one.read_text())
    one.unlink()
    CliRunner().invoke(
        app, ["--data", str(shop), "--seeds", "3", *known_changes(known)], catch_exceptions=False
    )
    again = json.loads(one.read_text())
    assert {**again, "seconds": 0} == {**known, "seconds": 0}


def known_changes(run: dict) -> list[str]:
    return [f"--set={name}={json.dumps(value)}" for name, value in run["trial"].items()]
