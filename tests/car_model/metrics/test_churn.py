"""Churn by hand: what changed for the items that both catalogues offer."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from car_model.data.catalogue import Catalogue
from car_model.metrics.codebook import churn


def catalogue(items: dict[str, list[int]], retired: set[str] | None = None) -> Catalogue:
    return Catalogue(list(items), list(items), np.array(list(items.values())), frozenset(retired or ()))


OLD = catalogue({"a": [1, 1], "b": [1, 2], "c": [2, 1], "gone": [0, 0]})


def test_levels_and_whole_sids_are_counted_over_common_items() -> None:
    new = catalogue({"c": [2, 1], "b": [3, 2], "a": [1, 0], "new": [0, 0]})
    assert churn(OLD, new).model_dump(mode="json") == {
        "items": 3,
        "by_level": [round(1 / 3, 6), round(1 / 3, 6)],
        "whole": round(2 / 3, 6),
        "added": 1,
        "retired": 1,
    }


def test_what_is_retired_counts_as_gone() -> None:
    new = catalogue({"a": [9, 9], "b": [1, 2], "c": [2, 1], "gone": [0, 0]}, retired={"a", "gone"})
    changes = churn(OLD, new)
    assert (changes.items, changes.whole, changes.retired) == (2, 0.0, 2)


def test_another_number_of_levels_changes_every_sid() -> None:
    new = catalogue({"a": [1, 1, 0], "b": [1, 2, 0], "c": [2, 1, 0], "gone": [0, 0, 0]})
    assert churn(OLD, new).model_dump(mode="json") == {
        "items": 4,
        "by_level": [0.0, 0.0],
        "whole": 1.0,
        "added": 0,
        "retired": 0,
    }


def test_nothing_in_common_is_no_churn() -> None:
    assert churn(OLD, catalogue({"x": [0, 0]})).model_dump(mode="json") == {
        "items": 0,
        "by_level": [0.0, 0.0],
        "whole": None,
        "added": 1,
        "retired": 4,
    }


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=12), st.data())
def test_a_level_never_changes_more_often_than_the_whole(sids: list[list[int]], data: st.DataObject) -> None:
    other = data.draw(
        st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=len(sids), max_size=len(sids))
    )
    ids = [str(at) for at in range(len(sids))]
    changes = churn(Catalogue(ids, ids, np.array(sids)), Catalogue(ids, ids, np.array(other)))
    assert max(changes.by_level) <= changes.whole <= min(1.0, sum(changes.by_level) + 1e-6)
