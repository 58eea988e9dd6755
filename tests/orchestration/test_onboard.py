"""`onboard`, for real: the embedded encoder, a trained bundle, a registry; good files and bad ones."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from car_model.evidence.verdict import Verdict
from car_model.recommender.recommender import Recommender
from orchestration.onboard import SEPARATORS, read_items
from registry.channels.channel import head
from registry.releases.bundle_files import read_bundle
from registry.releases.fetch import fetch_evidence, fetch_release
from registry.releases.release import list_releases, read_manifest, write_release
from registry.store.base import ObjectStore
from registry.store.open import open_store
from tests.registry.bundles import make_evidence
from tests.registry.conftest import Run, caller
from tests.registry.trained import NEW, trained_release

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> tuple[ObjectStore, str]:
    """A registry with one trained release."""
    return trained_release(tmp_path_factory.mktemp("onboard"))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Run:
    return caller(capsys)


def onboard(cli: Run, store: ObjectStore, release: str, items: Path) -> tuple[int, str, str]:
    return cli("onboard", str(items), "--release", release[:12], "--registry", store.url)


def written(folder: Path, table: pd.DataFrame, name: str = "items.csv") -> Path:
    path = folder / name
    if path.suffix in SEPARATORS:
        table.to_csv(path, index=False, sep=SEPARATORS[path.suffix])
    elif path.suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_parquet(path)
    return path


def test_new_items_come_into_a_release_of_their_own(
    cli: Run, parent: tuple[ObjectStore, str], tmp_path: Path
) -> None:
    store, old = parent
    code, told, _ = onboard(cli, store, old, written(tmp_path, NEW))
    assert code == 0
    assert "with 2 new items (1 were known)" in told
    made = next(one for one in list_releases(store) if one.parent == old)
    assert made.release[:12] in told
    assert made.versions.codebook == read_manifest(store, old).versions.codebook
    fetch_release(store, made.release, tmp_path / "bundle")
    assert read_bundle(tmp_path / "bundle").release == made.release
    recommender = Recommender.load(tmp_path / "bundle", made.release)
    answer = recommender.answer({"history": ["n1"], "k": 50})
    assert answer["skipped"] == []
    assert "n2" in {item["item_id"] for item in answer["items"]}
    assert head(store, "production") is None


def test_its_verdict_reads_like_a_gates_and_its_golden_answers_are_its_own(
    cli: Run, parent: tuple[ObjectStore, str], tmp_path: Path
) -> None:
    store, old = parent
    assert onboard(cli, store, old, written(tmp_path, NEW))[0] == 0
    made = next(one for one in list_releases(store) if one.parent == old)
    verdict = Verdict.read(fetch_evidence(store, made, "verdict.json", tmp_path / "verdict.json"))
    assert verdict.blessed
    assert verdict.champion == old
    assert {one.verdict for one in verdict.conditions} == {"pass"}
    asked = json.loads(fetch_evidence(store, made, "golden.json", tmp_path / "golden.json").read_text())
    assert asked["requests"][-1]["history"] == ["n1", "n2"]
    assert asked["answers"][-1]["skipped"] == []
    fetch_release(store, made.release, tmp_path / "bundle")
    recommender = Recommender.load(tmp_path / "bundle")
    assert [recommender.answer(request) for request in asked["requests"]] == asked["answers"]


def test_a_file_that_says_nothing_new_changes_nothing(
    cli: Run, parent: tuple[ObjectStore, str], tmp_path: Path
) -> None:
    store, old = parent
    before = len(list_releases(store))
    code, _, said = onboard(cli, store, old, written(tmp_path, NEW[2:]))
    assert (code, len(list_releases(store))) == (1, before)
    assert "holds no new item" in said


def test_more_new_items_than_known_ones_are_refused(
    cli: Run, parent: tuple[ObjectStore, str], tmp_path: Path
) -> None:
    store, old = parent
    many = pd.concat([NEW[:1]] * 60, ignore_index=True)
    many["item_id"] = [f"m{at}" for at in range(60)]
    before = len(list_releases(store))
    code, _, said = onboard(cli, store, old, written(tmp_path, many))
    assert (code, len(list_releases(store))) == (1, before)
    assert "most items are known: it is 0.5556, but must be (<= 0.5)" in said


def test_a_forced_parent_is_no_side_door(cli: Run, parent: tuple[ObjectStore, str], tmp_path: Path) -> None:
    store, old = parent
    fetch_release(store, old, tmp_path / "bundle")
    golden_file = fetch_evidence(store, read_manifest(store, old), "golden.json", tmp_path / "golden.json")
    evidence = {**make_evidence(tmp_path / "evidence", blessed=False), "golden.json": golden_file}
    other = open_store(tmp_path / "registry")
    forced = write_release(other, tmp_path / "bundle", evidence, force="a drill")
    code, _, said = onboard(cli, other, forced.release, written(tmp_path, NEW))
    assert code == 1
    assert "parent is blessed" in said


@pytest.mark.parametrize("name", ["items.csv", "items.tsv", "items.jsonl", "items.parquet"])
def test_every_format_says_the_same(tmp_path: Path, name: str) -> None:
    table = read_items(written(tmp_path, NEW, name), ["title", "genre", "year"])
    pd.testing.assert_frame_equal(table, NEW)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop(columns="genre"), "no column 'genre'; there are: item_id, title, year"),
        (lambda table: table.assign(item_id=["a", "", "c"]), "no item_id in row 2"),
        (lambda table: table.assign(title=["A", "B", " "]), "no title in row 3"),
        (lambda table: table.assign(item_id=["a", "b", "a"]), "item 'a' twice"),
    ],
)
def test_a_bad_file_is_refused_by_column_and_row(tmp_path: Path, change, said: str) -> None:
    path = written(tmp_path, change(NEW))
    with pytest.raises(Exception, match=said):
        read_items(path, ["title", "genre", "year"])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("items.txt", "item_id", "neither .csv"),
        ("items.parquet", "item_id", "cannot be read"),
        ("items.jsonl", "{", "cannot be read"),
        ("items.csv", "", "cannot be read"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(Exception, match=said):
        read_items(tmp_path / name, [])
    with pytest.raises(Exception, match="cannot be read"):
        read_items(tmp_path / "nowhere.csv", [])
