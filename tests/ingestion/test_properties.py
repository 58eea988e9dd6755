"""What must hold for any input, against slow but obvious Python."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.digests import tree_files
from ingestion import transform
from ingestion.config import IngestError
from ingestion.engines.duckdb import DuckEngine, open_duckdb
from ingestion.ingest import ingest
from tests.ingestion.ingest_data import dataset, naive_k_core, rows_of

USERS, THINGS = [f"u{n}" for n in range(8)], [f"i{n}" for n in range(7)]
PAIRS = st.lists(st.tuples(st.sampled_from(USERS), st.sampled_from(THINGS)), min_size=1, max_size=60)
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckEngine]:
    with open_duckdb(tmp_path_factory.mktemp("engine")) as running:
        yield running


def stored(engine: DuckEngine, rows: list[tuple[str, str, int]]) -> ibis.Table:
    """Rows of (user_id, item_id, position) as a table with source_row."""
    columns = dict(zip(("user_id", "item_id", "position"), map(list, zip(*rows, strict=True)), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.table({**columns, "source_row": list(range(len(rows)))}), f"{folder}/rows.parquet")
        return engine.store(engine.connection.read_parquet(f"{folder}/rows.parquet"))[0]


@FEW
@given(pairs=PAIRS, user_core=st.integers(0, 5), item_core=st.integers(0, 5))
def test_k_core_is_the_fixpoint(
    engine: DuckEngine, pairs: list[tuple[str, str]], user_core: int, item_core: int
) -> None:
    table = stored(engine, [(user, item, 0) for user, item in pairs])
    core, _ = transform.k_core(table, user_core, item_core, engine.store)
    core_pairs = [(row["user_id"], row["item_id"]) for row in core.to_pyarrow().to_pylist()]
    assert Counter(core_pairs) == Counter(naive_k_core(pairs, user_core, item_core))


def test_k_core_needs_several_rounds_on_a_chain(engine: DuckEngine) -> None:
    chain = [(f"u{n}", f"i{n + step}", 0) for n in range(5) for step in (0, 1)]
    core, rounds = transform.k_core(stored(engine, chain), 2, 2, engine.store)
    assert core.count().execute() == 0
    assert rounds >= 3


@FEW
@given(
    rows=st.lists(st.tuples(st.sampled_from(USERS), st.sampled_from(THINGS), st.integers(0, 4)), min_size=1)
)
def test_leave_one_out(engine: DuckEngine, rows: list[tuple[str, str, int]]) -> None:
    split = transform.leave_one_out(stored(engine, rows)).to_pyarrow().to_pylist()
    assert len(split) == len(rows)
    for user in {row[0] for row in rows}:
        mine = sorted((row for row in split if row["user_id"] == user), key=lambda row: row["position"])
        expected = sorted(
            (position, row_number) for row_number, (who, _, position) in enumerate(rows) if who == user
        )
        assert [row["source_row"] for row in mine] == [row_number for _, row_number in expected]
        assert [row["position"] for row in mine] == list(range(len(mine)))
        tail = ["valid", "test"] if len(mine) >= 3 else []
        assert [row["split"] for row in mine] == ["train"] * (len(mine) - len(tail)) + tail


MESSY = st.lists(
    st.tuples(
        st.sampled_from([None, *USERS[:4]]),
        st.sampled_from([None, "nowhere", *THINGS[:4]]),
        st.sampled_from([None, "2024-01-01", "2024-01-02T03:04:05Z", "2999-01-01"]),
    ),
    min_size=1,
    max_size=40,
)


@settings(parent=FEW, max_examples=12)
@given(rows=MESSY, rule=st.sampled_from(["first", "last", "all"]), core=st.integers(0, 3))
def test_dropped_and_kept_add_up(rows: list[tuple[str | None, ...]], rule: str, core: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = [(item, item.upper()) for item in THINGS]
        config = dataset(folder, rows, items, duplicates=rule, user_core=core, item_core=core)
        try:
            report = ingest(config, folder / "out")
        except IngestError as error:
            assert "No interaction" in str(error), "the only refusal that such rows may meet"
            return
        finally:
            assert len(rows_of(folder / "out" / "source_interactions.parquet")) == len(rows)
        assert report.read.interactions == len(rows)
        assert report.kept.interactions + sum(report.dropped.interactions.values()) == len(rows)
        assert report.kept.items + sum(report.dropped.items.values()) == len(items)
        result = rows_of(folder / "out" / "interactions.parquet")
        assert len(result) == report.kept.interactions == sum(report.splits.values())
        offered = [row["item_id"] for row in rows_of(folder / "out" / "items.parquet")]
        warm = {row["item_id"] for row in result}
        assert offered == [*sorted(warm), *sorted(set(THINGS) - warm)]
        assert (report.items, report.cold_items) == (len(warm), len(THINGS) - len(warm))


@settings(parent=FEW, max_examples=5)
@given(data=st.data())
def test_row_order_does_not_matter_where_times_differ(data: st.DataObject) -> None:
    pairs = data.draw(st.lists(st.sampled_from([(u, i) for u in USERS[:4] for i in THINGS[:4]]), min_size=1))
    rows = [(user, item, f"2024-01-01T00:00:{n:02d}Z") for n, (user, item) in enumerate(pairs[:60])]
    shuffled = data.draw(st.permutations(rows))
    items = [(item, item) for item in THINGS]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for order, part in ((rows, "one"), (shuffled, "two")):
            ingest(dataset(folder / part, order, items, user_core=0, item_core=0), folder / f"out-{part}")
        first, second = (tree_files(folder / f"out-{part}") for part in ("one", "two"))
    for file in ("interactions.parquet", "items.parquet", "source_items.parquet"):
        assert first[file] == second[file]
