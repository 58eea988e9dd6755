"""What could not be served is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from car_model.recommender.request import parse
from common.limits import MAX_ID, MAX_TITLE
from ingestion.config import IngestError
from ingestion.ingest import ingest
from tests.ingestion.ingest_data import INTERACTIONS, ITEMS, dataset, rows_of


@pytest.mark.parametrize("letter", ["x", "é", "茶", "🍵"])
def test_an_id_that_no_request_may_hold_is_refused(tmp_path: Path, letter: str) -> None:
    longest = letter * MAX_ID
    parse({"history": [longest]}, levels=4)
    items = [*ITEMS, (longest, "Tea")]
    rows = [*INTERACTIONS, *((f"u{u}", longest, "2024-02-01") for u in range(3))]
    ingest(dataset(tmp_path, rows, items), tmp_path / "out")
    assert longest in {row["item_id"] for row in rows_of(tmp_path / "out" / "items.parquet")}

    too_long = [*rows, ("u3", longest + letter, "2024-02-01"), ("u3", longest + letter, "2024-02-02")]
    for tables, place in (
        ((too_long, items), "interactions.csv, column 'item_id', line 25"),
        ((rows, [*items, (longest + letter, "Tea")]), "items.csv, column 'item_id', line 8"),
    ):
        with pytest.raises(IngestError) as refused:
            ingest(dataset(tmp_path, *tables), tmp_path / "out")
        assert str(refused.value) == (
            f"{tmp_path}/{place}, has more than 256 characters, which no request to a server and no answer "
            "may hold; shorten it, or map another column."
        )


def test_a_title_that_no_answer_should_hold_is_refused(tmp_path: Path) -> None:
    for title in ("t" * MAX_TITLE, "  " + "t" * MAX_TITLE + " "):
        ingest(dataset(tmp_path, items=[*ITEMS[:-1], ("i4", title)]), tmp_path / "out")
    with pytest.raises(IngestError, match=r"column 'title', line 6, has more than 1,000 characters"):
        ingest(dataset(tmp_path, items=[*ITEMS[:-1], ("i4", "t" * (MAX_TITLE + 1))]), tmp_path / "out")
