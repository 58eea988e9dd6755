"""Texts without HTML: what people meant stays, whatever the file's shop made of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.ingest import ingest
from ingestion.markup import without_markup
from tests.ingestion.ingest_data import ITEMS, dataset, rows_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tea &amp; Cake", "Tea & Cake"),
        ("&lt;p&gt;Green&lt;/p&gt; tea", "Green tea"),
        ("<b>Tea</b>pot<br>large", "Teapot large"),
        ("H<sub>2</sub>O", "H2O"),
        ("<style>p {}</style>Cup<!-- blue -->", "Cup"),
        ("1 < 2 and 3 > 2, I <3 AT&T", "1 < 2 and 3 > 2, I <3 AT&T"),
        ("two\u00a0 blanks\nand a line", "two blanks and a line"),
        ("<br/>", ""),
    ],
)
def test_markup_goes_and_words_stay(text: str, expected: str) -> None:
    assert without_markup(text) == expected


@given(st.text(st.characters(exclude_characters="<&", exclude_categories=["Cs"])))
def test_text_without_signs_of_markup_only_loses_blanks(text: str) -> None:
    assert without_markup(text) == " ".join(text.split())


def test_titles_are_cleaned_unless_they_are_to_be_kept(tmp_path: Path) -> None:
    items = [("i0", "Tea &amp; <i>Cake</i>"), ("i1", "<br>"), *ITEMS[2:]]
    config = dataset(tmp_path, items=items)
    for markup, titles in (("strip", ["Tea & Cake", "i1"]), ("keep", ["Tea &amp; <i>Cake</i>", "<br>"])):
        source = config.items.model_copy(update={"markup": markup})
        ingest(config.model_copy(update={"items": source}), tmp_path / "out")
        assert [row["title"] for row in rows_of(tmp_path / "out" / "items.parquet")[:2]] == titles
