"""Onboarding with a trained bundle, a registry and the embedded encoder; valid and invalid files of items."""

from __future__ import annotations

import gzip
import json
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
from kfp import dsl

from car_model.evidence.drift import DataDrift
from car_model.evidence.verdict import Verdict
from car_model.recommender.recommender import Recommender
from car_model.training.onboard import onboard as extend
from common.errors import UserError
from common.home import Home
from components.data.validate import validate
from ingestion.config import DatasetConfig, InteractionSource, ItemSource
from ingestion.ingest import ingest
from orchestration.onboard import check_onboarding, choose_config, onboard_items, read_items
from registry.channels.channel import head, promote, stage
from registry.maintenance.garbage_collection import garbage_collect
from registry.releases.bundle_files import read_bundle
from registry.releases.fetch import FetchedRelease, fetch_release
from registry.releases.gate import Gate, read_gate
from registry.releases.release import list_releases, read_manifest, write_release
from registry.store.base import ObjectStore
from registry.store.open import open_store
from tests.fixtures import tiny_parts, tiny_vectors
from tests.registry.bundles import make_evidence
from tests.registry.conftest import Run, caller
from tests.registry.trained import NEW, trained_release
from tests.validation.data.dataset_folder import write_dataset

pytestmark = pytest.mark.integration
ANN = {"who": "ann@shop", "why": "a reason"}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> tuple[ObjectStore, str]:
    """A registry with one trained release."""
    return trained_release(tmp_path_factory.mktemp("onboard"))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Run:
    return caller(capsys)


def onboard(cli: Run, store: ObjectStore, release: str, items: Path) -> tuple[int, str, str]:
    return cli("onboard", str(items), "--release", release[:12], "--registry", store.url)


def write_items(folder: Path, table: pd.DataFrame, name: str = "items.csv") -> Path:
    path = folder / name
    if path.suffix in (".csv", ".tsv"):
        table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_parquet(path)
    return path


def test_new_items_get_a_release_of_their_own(
    cli: Run, parent: tuple[ObjectStore, str], tmp_path: Path
) -> None:
    store, old = parent
    code, output, _ = onboard(cli, store, old, write_items(tmp_path, NEW))
    assert code == 0
    assert "with 2 new items (1 were known)" in output
    onboarded = next(result for result in list_releases(store) if result.parent == old)
    assert onboarded.release[:12] in output
    assert onboarded.versions.codebook == read_manifest(store, old).versions.codebook
    fetch_release(store, onboarded.release, tmp_path / "bundle")
    assert read_bundle(tmp_path / "bundle").release == onboarded.release
    recommender = Recommender.load(tmp_path / "bundle", onboarded.release)
    answer = recommender.recommend({"history": ["n1"], "k": 50})
    assert answer["skipped"] == []
    assert "n2" in {item["item_id"] for item in answer["items"]}
    assert head(store, "production") is None
    # Nobody measured it: its parent's figures are not its own, and it is called what it is.
    assert (onboarded.metrics, onboarded.holdout, read_gate(store, onboarded).word) == ({}, None, "onboarded")
    commands = [line.split("#")[0].split() for line in output.splitlines() if line.startswith("  car ")]
    digest, registry = onboarded.release[:12], ["--registry", store.url]
    assert [words[1:3] for words in commands] == [
        ["registry", "promote"],
        ["infra-validate", digest],
        ["registry", "promote"],
        ["deploy", "production"],
    ]
    assert all(words[-2:] == registry for words in commands)  # as it was named, for any shell


def test_the_release_has_a_verdict_and_its_own_golden_answers(
    cli: Run, parent: tuple[ObjectStore, str], tmp_path: Path
) -> None:
    store, old = parent
    assert onboard(cli, store, old, write_items(tmp_path, NEW))[0] == 0
    onboarded = next(result for result in list_releases(store) if result.parent == old)
    verdict = Verdict.read(
        FetchedRelease(store, onboarded).fetch_evidence("verdict.json", tmp_path / "verdict.json")
    )
    assert verdict.blessed
    assert verdict.champion == old
    assert {result.verdict for result in verdict.conditions} == {"pass"}
    golden = json.loads(
        FetchedRelease(store, onboarded).fetch_evidence("golden.json", tmp_path / "golden.json").read_text()
    )
    assert golden["requests"][-1]["history"] == ["n1", "n2"]
    assert golden["answers"][-1]["skipped"] == []
    fetch_release(store, onboarded.release, tmp_path / "bundle")
    recommender = Recommender.load(tmp_path / "bundle")
    assert [recommender.recommend(request) for request in golden["requests"]] == golden["answers"]


def test_a_file_without_new_items_changes_nothing(
    cli: Run, parent: tuple[ObjectStore, str], tmp_path: Path
) -> None:
    store, old = parent
    before = len(list_releases(store))
    code, _, message = onboard(cli, store, old, write_items(tmp_path, NEW[2:]))
    assert (code, len(list_releases(store))) == (1, before)
    assert "holds no new item" in message


def test_more_new_items_than_known_ones_are_refused(
    cli: Run, parent: tuple[ObjectStore, str], tmp_path: Path
) -> None:
    store, old = parent
    many = pd.concat([NEW[:1]] * 60, ignore_index=True)
    many["item_id"] = [f"m{i}" for i in range(60)]
    before = len(list_releases(store))
    code, _, message = onboard(cli, store, old, write_items(tmp_path, many))
    assert (code, len(list_releases(store))) == (1, before)
    assert "most items are known: it is 0.5556, but must be (<= 0.5)" in message


def test_the_items_of_an_unblessed_parent_are_refused(
    cli: Run, parent: tuple[ObjectStore, str], tmp_path: Path
) -> None:
    store, old = parent
    fetch_release(store, old, tmp_path / "bundle")
    golden_file = FetchedRelease(store, read_manifest(store, old)).fetch_evidence(
        "golden.json", tmp_path / "golden.json"
    )
    evidence = {
        **make_evidence(tmp_path / "evidence", tmp_path / "bundle", blessed=False),
        "golden.json": golden_file,
    }
    other = open_store(tmp_path / "registry")
    forced = write_release(other, tmp_path / "bundle", evidence, force="a drill")
    code, _, message = onboard(cli, other, forced.release, write_items(tmp_path, NEW))
    assert code == 1
    assert "parent is blessed" in message


@pytest.mark.parametrize("name", ["items.csv", "items.tsv", "items.jsonl", "items.parquet"])
def test_every_file_format_gives_the_same_table(tmp_path: Path, name: str) -> None:
    table = read_items(write_items(tmp_path, NEW, name), ["title", "genre", "year"])
    pd.testing.assert_frame_equal(table, NEW)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: table.drop(columns="genre"),
            r"no column 'genre' \(mapped to genre\); it has: item_id, title, year",
        ),
        (lambda table: table.assign(item_id=["a", "", "c"]), "no item_id in row 2, line 3"),
        (lambda table: table.assign(title=["A", "B", " "]), "no title in row 3, line 4"),
        (lambda table: table.assign(item_id=["a", "b", "a"]), r"item 'a' twice \(again in row 3, line 4\)"),
    ],
)
def test_a_bad_file_is_refused_by_column_and_row(tmp_path: Path, change, message: str) -> None:
    path = write_items(tmp_path, change(NEW))
    with pytest.raises(Exception, match=message):
        read_items(path, ["title", "genre", "year"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("items.txt", "item_id", "set format to csv, tsv, jsonl or parquet"),
        ("items.parquet", "item_id", "cannot be read"),
        ("items.jsonl", "{", "cannot be read"),
        ("items.csv", "", "is empty"),
    ],
)
def test_an_unreadable_file_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(Exception, match=message):
        read_items(tmp_path / name, [])
    with pytest.raises(Exception, match="does not exist"):
        read_items(tmp_path / "nowhere.csv", [])


def test_a_run_after_three_onboardings_and_a_collection_validates(tmp_path: Path) -> None:
    """What the next run needs of the first release is in the last."""
    dataset = dsl.Artifact(uri=str(write_dataset(tmp_path / "dataset")), metadata={"digest": "0" * 64})
    outputs = {name: dsl.Artifact(uri=str(tmp_path / name)) for name in ("data_docs", "profile", "drift")}
    validate.python_func(dataset=dataset, policy="{}", registry="", champion="", **outputs)
    store, release = trained_release(tmp_path, data_profile=Path(outputs["profile"].path))
    for number in range(4):
        stage(store, release, **ANN)
        assert promote(store, "production", release, **ANN).action == "promote"
        if number < 3:
            items = write_items(tmp_path, NEW.assign(item_id=[f"n{number}-{row}" for row in range(len(NEW))]))
            release = onboard_items(store, release, items, tmp_path / "vectors").manifest.release
    garbage_collect(store, keep=2, grace=timedelta(0))
    assert len(list_releases(store)) == 2
    other_items = '{"drift": {"max_retired_share": 0.9}}'
    validate.python_func(dataset=dataset, policy=other_items, registry=store.url, champion=release, **outputs)
    drift = DataDrift.read(outputs["drift"].path)
    assert drift.release == release
    assert drift.retired and (drift.retired.items, drift.retired.before) == (50, 57)


def test_scores_that_no_request_measures_do_not_count_as_equal() -> None:
    before = tiny_parts(epochs=1)
    after = extend(before, ["n"], ["New"], tiny_vectors(49)[48:])
    gate = Gate(blessed=True, compared=True, policy="p", holdout=None, failing=())
    for requests, verdict in (
        ([{"history": ["unknown"]}, {"history": []}], "fail"),
        ([{"history": ["i1"]}], "pass"),
    ):
        results = check_onboarding(gate, before, after, requests, unexplained=0.5)
        change = next(each for each in results if each.name == "known items score as before")
        assert (change.verdict, change.value is None) == (verdict, verdict == "fail")


def test_children_of_a_first_release_do_not_hide_that_it_was_compared_with_nothing(tmp_path: Path) -> None:
    store, parent = trained_release(tmp_path, bootstrap=True)
    child = onboard_items(store, parent, write_items(tmp_path, NEW), tmp_path / "vectors").manifest
    gate = read_gate(store, child)
    assert (gate.blessed, gate.compared, gate.policy) == (True, False, "onboarding")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"item_id": 7, "title": ["A", "b"], "year": 1999}\n{"item_id": "007", "title": 1e5}\n'),
        (
            "a.jsonl",
            '{"item_id": 7, "title": true, "year": null}\n{"item_id": 8, "title": 2.50, "year": 1}\n',
        ),
        ("A.CSV", "year,item_id,title\n1999,NA,null\n,1e5,  x \n"),
        ("a.csv.gz", gzip.compress(b"\xef\xbb\xbfyear,item_id,title\r\n,0012,x\r\n", mtime=0)),
    ],
)
def test_onboarding_reads_what_ingestion_reads(tmp_path: Path, name: str, content: str | bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    columns = ("item_id", "title", "year")
    rows = read_items(path, ["year"])[list(columns)].to_dict("records")
    (tmp_path / "i.csv").write_text("u,i,t\n" + "".join(f"u,{row['item_id']},2024\n" for row in rows))
    config = DatasetConfig(
        interactions=InteractionSource(
            location=str(tmp_path / "i.csv"), columns={"user_id": "u", "item_id": "i"}, file_order=True
        ),
        items=ItemSource(location=str(path), columns={name: name for name in columns}),
        user_core=0,
        item_core=0,
    )
    ingest(config, tmp_path / "out")
    ingested = pd.read_parquet(tmp_path / "out" / "source_items.parquet").fillna("")
    assert ingested.to_dict("records") == rows


def test_a_data_frame_with_categories_and_an_index(tmp_path: Path) -> None:
    frame = NEW.assign(genre=NEW["genre"].astype("category"), year=NEW["year"].astype(float))
    frame = frame.set_index("item_id")
    frame.to_parquet(tmp_path / "items.parquet")
    pd.testing.assert_frame_equal(read_items(tmp_path / "items.parquet", ["genre", "year"]), NEW)


def test_a_dataset_json_says_how_to_read_the_items(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_bytes("sku;name;art\nn1;Café;x\n".encode("latin-1"))
    items = {"location": "gone.csv", "encoding": "latin-1", "delimiter": ";"}
    items["columns"] = {"item_id": "sku", "title": "name", "genre": "art"}
    (tmp_path / "dataset.json").write_text(
        json.dumps({"interactions": {"location": "i.csv"}, "items": items})
    )
    table = read_items(tmp_path / "new.csv", ["genre"], tmp_path / "dataset.json")
    assert table.to_dict("records") == [{"item_id": "n1", "title": "Café", "genre": "x"}]
    with pytest.raises(UserError, match="maps no column to 'year', which the release needs"):
        read_items(tmp_path / "new.csv", ["year"], tmp_path / "dataset.json")


def test_the_homes_mapping_reads_its_next_files_and_a_file_with_our_names_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run, then onboard with the very columns that the run read; `dataset.json` is not named again."""
    monkeypatch.chdir(tmp_path)
    columns = {"item_id": "sku", "title": "name", "genre": "art", "year": "y"}
    settings = {"interactions": {"location": "i.csv"}, "items": {"location": "i.csv", "columns": columns}}
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "dataset.json").write_text(json.dumps(settings))
    Home.of_data("custom", "shop").select()
    mapping = Home.load().mapping
    assert mapping == Path("shop/dataset.json")
    NEW.rename(columns=columns).to_csv("theirs.csv", index=False)
    NEW.to_csv("ours.csv", index=False)
    for name in ("theirs.csv", "ours.csv"):
        config = choose_config(Path(name), ["genre", "year"], mapping)
        pd.testing.assert_frame_equal(read_items(Path(name), ["genre", "year"], config)[NEW.columns], NEW)
    Path("broken.csv").write_text("sku,art\nn1,x\n")
    config = choose_config(Path("broken.csv"), ["genre", "year"], mapping)
    with pytest.raises(UserError, match="name"):
        read_items(Path("broken.csv"), ["genre", "year"], config)


def test_a_list_of_records_is_no_file_of_items(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('[{"item_id": "n1", "title": "x"}]')
    with pytest.raises(UserError, match="line 1 holds a list; write one object a line"):
        read_items(tmp_path / "a.jsonl", [])
