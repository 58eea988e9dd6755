"""What an encoder reads of an item."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from car_model.data.dataset import DatasetError, compose_texts, text_template

ITEMS = pd.DataFrame(
    {
        "item_id": ["1", "2", "3", "4", "5"],
        "title": ["Heat", "  Ran ", None, "", "; "],
        "genre": ["crime", np.nan, "drama", " \t", ""],
        "year": [1995, 1985, 2000, 2001, 2002],
    }
)


def test_columns_come_in_the_stated_order() -> None:
    assert compose_texts(ITEMS, ["title", "genre"])[0] == "Heat; crime"
    assert compose_texts(ITEMS, ["genre", "title"])[0] == "crime; Heat"
    assert compose_texts(ITEMS, ["year", "title"])[0] == "1995; Heat"


def test_missing_and_blank_parts_are_skipped() -> None:
    assert compose_texts(ITEMS, ["title", "genre"])[1:3] == ["Ran", "drama"]


def test_an_item_without_text_is_described_by_its_id() -> None:
    assert compose_texts(ITEMS, ["title", "genre"])[3] == "4"


def test_rows_keep_their_order_whatever_the_index() -> None:
    turned = ITEMS.iloc[::-1]
    assert compose_texts(turned, ["title", "year"]) == compose_texts(ITEMS, ["title", "year"])[::-1]


def test_a_missing_column_is_named_with_what_there_is() -> None:
    with pytest.raises(DatasetError, match="no text column 'brand'; there are: item_id, title, genre, year"):
        compose_texts(ITEMS, ["title", "brand"])


def test_the_template_names_columns_in_order() -> None:
    assert text_template(["title", "genre"]) == "{title}; {genre}"
    assert text_template(["title", "genre"]) != text_template(["genre", "title"])
