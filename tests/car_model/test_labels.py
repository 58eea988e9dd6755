"""Labels: the words that set a code's items apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from car_model.labelling import label_codes
from car_model.labels import CodeLabels

TEXTS = ["the western duel film", "a western ride film", "space war film", "space ship film", "lone film"]
SIDS = np.array([[0, 1], [0, 1], [2, 1], [2, 0], [3, 0]], dtype=np.int32)


@pytest.fixture
def labels() -> CodeLabels:
    return label_codes(TEXTS, SIDS, 5)


def test_the_word_that_sets_a_code_apart_comes_first(labels: CodeLabels) -> None:
    assert labels.words[0][0].split(", ")[0] == "western"
    assert labels.words[0][2].split(", ")[0] == "space"


def test_unused_codes_have_no_label_and_every_code_has_a_place(labels: CodeLabels) -> None:
    assert [len(level) for level in labels.words] == [5, 5]
    assert (labels.words[0][1], labels.words[0][4], labels.words[1][4]) == ("", "", "")


def test_levels_are_labelled_on_their_own(labels: CodeLabels) -> None:
    assert labels.words[1][1].split(", ")[0] == "western"  # two of its three items


@pytest.mark.parametrize(
    ("carriers", "of", "labels"),
    [
        (1, 10, False),  # too few items
        (2, 4, False),  # half of them, but two may be chance
        (3, 20, False),  # three, but not a fifth
        (4, 20, True),
        (3, 10, False),  # three may be chance too
        (4, 10, True),
    ],
)
def test_a_rare_word_labels_a_code_only_where_enough_items_carry_it(
    carriers: int, of: int, labels: bool
) -> None:
    """All items of the code say drama; the rare word would weigh more wherever it is let in."""
    inside = ["drama zebra"] * carriers + ["drama"] * (of - carriers)
    outside = ["comedy zebra", "comedy", "comedy"] if carriers == 1 else ["comedy"] * 3
    sids = np.array([0] * of + [1] * 3)[:, None]
    assert ("zebra" in label_codes(inside + outside, sids, 2).words[0][0]) == labels


def test_a_path_falls_back_to_the_codes_number(labels: CodeLabels) -> None:
    assert labels.path([2, 4]) == [labels.words[0][2], "code 4"]


def test_save_and_load(labels: CodeLabels, tmp_path: Path) -> None:
    accented = CodeLabels([[*labels.words[0], "é “quoted”\n\\"], labels.words[1]])
    accented.save(tmp_path)
    assert CodeLabels.load(tmp_path) == accented


@pytest.mark.parametrize(
    "texts",
    [
        ["", "", ""],
        ["the of and", "the of and", "a"],  # stop words alone
        ["one", "two", "three"],  # no word twice
        ["!!!", "???", "..."],
        ["\0\x1b[31m", "<script>", "'; DROP TABLE"],
        ["\U0001d54f", "🎬🎬", "\u202eevil"],
    ],
)
def test_texts_without_common_words_leave_labels_empty_not_broken(texts: list[str]) -> None:
    words = label_codes(texts, np.array([[0], [1], [1]]), 2).words
    assert words == [["", ""]]


def test_a_single_item_has_no_label() -> None:
    assert label_codes(["a film"], np.array([[1, 0]]), 2).words == [["", ""], ["", ""]]


@pytest.mark.parametrize(
    ("title", "word"),
    [
        ("Schindler's List", "schindler's"),
        ("sci-fi", "sci-fi"),
        ("R&B", "r&b"),
        ("1995", "1995"),
        ("Été", "été"),
    ],
)
def test_words_are_kept_whole(title: str, word: str) -> None:
    assert word in label_codes([title, title, "other"], np.array([[0], [0], [1]]), 2).words[0][0].split(", ")


@given(st.lists(st.tuples(st.text(max_size=12), st.integers(0, 3)), min_size=1, max_size=12), st.data())
def test_any_titles_give_one_clean_label_a_code(items: list[tuple[str, int]], data: st.DataObject) -> None:
    texts, codes = [text for text, _ in items], [code for _, code in items]
    words = label_codes(texts, np.array(codes)[:, None], 4).words[0]
    order = data.draw(st.permutations(range(len(items))))
    turned = label_codes([texts[at] for at in order], np.array(codes)[list(order)][:, None], 4).words[0]
    assert len(words) == 4
    assert all(words[code] == "" for code in range(4) if code not in codes)
    assert not any("\n" in word or word != word.strip() for word in words)
    assert turned == words  # the order of items sets no label
