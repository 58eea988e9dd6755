"""What an encoder reads of an item: its text columns in a stated order, missing ones skipped."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

SEPARATOR = "; "


def template(columns: Sequence[str]) -> str:
    """The template's name, part of the codebook's version: `{title}; {genres}`."""
    return SEPARATOR.join(f"{{{column}}}" for column in columns)


def columns_of(name: str) -> list[str]:
    """The columns that a template names: the inverse of `template`."""
    return [part[1:-1] for part in name.split(SEPARATOR)]


def compose(items: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """One text an item, in row order; an item without any text is described by its id.

    Raises:
        ValueError: a text column is not in the table.
    """
    missing = [column for column in columns if column not in items.columns]
    if missing:
        raise ValueError(
            f"the items have no text column {missing[0]!r}; there are: {', '.join(items.columns)}."
        )
    parts = [items[column].fillna("").astype(str).str.strip() for column in columns]
    rows = zip(*parts, strict=True)
    texts = [SEPARATOR.join(part for part in row if part) for row in rows]
    return [text or str(item) for text, item in zip(texts, items["item_id"], strict=True)]
