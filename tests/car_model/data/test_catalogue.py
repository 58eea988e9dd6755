"""The catalogue: UIDs in order, appended only, and refused when damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from car_model.data.catalogue import Catalogue, CatalogueError

ID = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
IDS = st.lists(ID, min_size=1, max_size=9, unique=True)


def catalogue(ids: list[str], levels: int = 3) -> Catalogue:
    sids = np.arange(len(ids) * levels, dtype=np.int32).reshape(len(ids), levels) % 7
    return Catalogue(ids, [f"Title of {item}" for item in ids], sids)


@given(IDS)
def test_save_and_load_give_the_same_catalogue(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str]
) -> None:
    original = catalogue(ids)
    path = tmp_path_factory.mktemp("catalogue") / "catalogue.parquet"
    original.save(path)
    back = Catalogue.load(path)
    assert (back.item_ids, back.titles, back.digest) == (original.item_ids, original.titles, original.digest)
    assert np.array_equal(back.sids, original.sids)
    assert back.sids.dtype == np.int32


def test_uids_are_row_numbers_from_one_and_row_zero_pads() -> None:
    original = catalogue(["b", "a"])
    assert original.uids == {"b": 1, "a": 2}
    assert original.sid_table.shape == (3, 3)
    assert not original.sid_table[0].any()
    assert np.array_equal(original.sid_table[original.uids["a"]], original.sids[1])


def test_a_duplicate_is_refused_and_named() -> None:
    with pytest.raises(CatalogueError, match="'twice' is in the catalogue twice"):
        catalogue(["a", "twice", "b", "twice", "a2"])


@pytest.mark.parametrize(("ids", "titles", "rows"), [(1, 2, 2), (2, 1, 2), (2, 2, 1)])
def test_columns_of_different_length_are_refused(ids: int, titles: int, rows: int) -> None:
    with pytest.raises(CatalogueError, match="differ in number"):
        Catalogue(["a", "b"][:ids], ["A", "B"][:titles], np.zeros((rows, 3), dtype=np.int32))


@given(IDS, st.integers(1, 8))
def test_appending_keeps_every_old_uid_and_sid(ids: list[str], split: int) -> None:
    old, new = catalogue(ids[:split]), catalogue(ids)
    added = ids[split:]
    grown = old.append(added, [f"Title of {item}" for item in added], new.sids[split:])
    assert {item: grown.uids[item] for item in old.item_ids} == old.uids
    assert np.array_equal(grown.sids[: old.size], old.sids)
    assert [grown.uids[item] for item in added] == list(range(old.size + 1, old.size + 1 + len(added)))
    assert (grown.digest == old.digest) == (not added)


@given(IDS, st.data())
def test_a_lineage_keeps_uids_and_retires_what_is_not_offered(ids: list[str], data: st.DataObject) -> None:
    old = catalogue(ids)
    stay = data.draw(st.lists(st.sampled_from(ids), unique=True))
    fresh = [f"new {item}" for item in data.draw(IDS)]
    offered = catalogue(data.draw(st.permutations([*stay, *fresh])))
    new = old.extend_lineage(offered)
    assert new.item_ids[: old.size] == old.item_ids
    assert new.offered == set(offered.item_ids)
    assert new.retired == set(ids) - set(stay)
    assert new.barred == [0, *(old.uids[item] for item in ids if item not in stay)]
    for item in new.item_ids:
        source = offered if item in offered.uids else old
        assert new.sids[new.uids[item] - 1].tolist() == source.sids[source.uids[item] - 1].tolist()


def test_an_item_that_comes_back_has_its_old_uid() -> None:
    old = catalogue(["a", "b"])
    gone = old.extend_lineage(catalogue(["b", "c"]))
    back = gone.extend_lineage(catalogue(["c", "a", "b"]))
    assert (gone.retired, back.retired) == ({"a"}, set())
    assert back.uids == {"a": 1, "b": 2, "c": 3}


def test_retired_items_can_get_sids_of_a_new_codebook() -> None:
    old = catalogue(["a", "b"])
    new = old.extend_lineage(catalogue(["b"]), (old.sids + 1, None))
    assert new.sids.tolist() == [[1, 2, 3], [0, 1, 2]]


def test_retired_items_survive_saving_and_change_the_digest(tmp_path: Path) -> None:
    old = catalogue(["a", "b"])
    gone = old.extend_lineage(catalogue(["b"]), (old.sids, None))
    same = Catalogue(gone.item_ids, gone.titles, gone.sids)
    gone.save(tmp_path / "catalogue.parquet")
    back = Catalogue.load(tmp_path / "catalogue.parquet")
    assert (back.retired, back.digest) == ({"a"}, gone.digest)
    assert gone.digest != same.digest


def test_a_retired_item_that_is_not_there_is_refused() -> None:
    with pytest.raises(CatalogueError, match="'x' is retired but not in the catalogue"):
        Catalogue(["a"], ["A"], np.zeros((1, 3), dtype=np.int32), frozenset({"x"}))


def test_appending_an_old_item_is_refused() -> None:
    with pytest.raises(CatalogueError, match="'a' is in the catalogue twice"):
        catalogue(["a", "b"]).append(["a"], ["again"], np.zeros((1, 3), dtype=np.int32))


def test_the_digest_sees_order_titles_and_sids() -> None:
    original = catalogue(["a", "b"])
    turned = Catalogue(original.item_ids[::-1], original.titles[::-1], original.sids[::-1])
    retitled = Catalogue(original.item_ids, ["x", *original.titles[1:]], original.sids)
    recoded = Catalogue(original.item_ids, original.titles, original.sids + np.eye(2, 3, dtype=np.int32))
    assert len({part.digest for part in (original, turned, retitled, recoded)}) == 4


def table(**changes: pa.Array) -> pa.Table:
    columns = {
        "item_id": pa.array(["a", "b"]),
        "uid": pa.array([1, 2]),
        "sids": pa.array([[0, 1], [2, 3]]),
        "title": pa.array(["A", "B"]),
    }
    return pa.table({**columns, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"uid": pa.array([1, 3])}, "not 1..2"),
        ({"uid": pa.array([2, 2])}, "not 1..2"),
        ({"uid": pa.array([0, 1])}, "not 1..2"),
        ({"uid": pa.array([1, None])}, "not 1..2"),
        ({"sids": pa.array([[0, 1], [2]])}, "can't be read"),
        ({"sids": pa.array([[0, 1], None])}, "can't be read"),
        ({"sids": pa.array([[0, 1], [2, 1 << 40]])}, "can't be read"),
        ({"item_id": pa.array(["a", None])}, "not text"),
        ({"item_id": pa.array([1, 2])}, "not text"),
        ({"item_id": pa.array(["a", "a"])}, "twice"),
        ({"title": pa.array([b"A", b"B"])}, "not text"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, changes: dict[str, pa.Array], message: str) -> None:
    path = tmp_path / "catalogue.parquet"
    pq.write_table(table(**changes), path)
    with pytest.raises(CatalogueError, match=message):
        Catalogue.load(path)


@pytest.mark.parametrize("column", ["item_id", "uid", "sids", "title"])
def test_a_missing_column_is_refused(tmp_path: Path, column: str) -> None:
    path = tmp_path / "catalogue.parquet"
    pq.write_table(table().drop_columns([column]), path)
    with pytest.raises(CatalogueError, match=r"catalogue\.parquet"):
        Catalogue.load(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all"])
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "catalogue.parquet"
    with pytest.raises(CatalogueError, match=r"catalogue\.parquet"):
        Catalogue.load(path)
    path.write_bytes(content)
    with pytest.raises(CatalogueError, match=r"catalogue\.parquet"):
        Catalogue.load(path)


def test_an_empty_catalogue_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.parquet"
    pq.write_table(table().slice(0, 0), path)
    with pytest.raises(CatalogueError, match="empty or damaged"):
        Catalogue.load(path)
