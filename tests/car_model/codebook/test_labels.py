"""Labels: the words that set a code's items apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from car_model.codebook.labels import CodeLabels, item_categories, label_codes, words_of

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


FILMS = [
    *("High Noon; Western; 1952", "Rio Bravo; Western; 1959", "Silverado; Western, Comedy; 1985"),
    *("Shane; western; 1953", "Ghost Town; Comedy; 2008"),
    *("Alien; Sci-Fi; 1979", "Brazil; Sci-Fi; 1984", "Tron; Sci-Fi; 1982", "Contact; Sci-Fi; 1997"),
]
TITLES = [film.split("; ")[0] for film in FILMS]
GENRES = item_categories([[film.split("; ")[1] for film in FILMS], [film.split("; ")[2] for film in FILMS]])
FILM_SIDS = np.array([[0], [0], [0], [0], [0], [1], [1], [1], [1]])
FILM_IDS = [f"f{i}" for i in range(9)]


def test_a_label_is_spelled_as_most_items_spell_it() -> None:
    assert label_codes(TITLES, FILM_SIDS, 2, None, categories=GENRES).words[0] == ["Western", "Sci-Fi"]


def test_an_item_is_shown_only_with_words_it_carries() -> None:
    labels = label_codes(TITLES, FILM_SIDS, 2, FILM_IDS, categories=GENRES)
    assert [labels.items[item][0] for item in FILM_IDS[:5]] == ["Western"] * 4 + [""]  # Ghost Town is none
    assert labels.words[0][FILM_SIDS[4, 0]] == "Western"  # though its group is


def test_a_word_is_said_on_one_level_only() -> None:
    doubled = np.repeat(FILM_SIDS, 2, axis=1)
    assert label_codes(TITLES, doubled, 2, FILM_IDS, categories=GENRES).items["f0"] == ["Western", ""]


def test_categories_are_entries_that_several_items_share() -> None:
    paths = ["Home > 3D Printing > Filament; Sale", "Home > 3D Printing > Nozzles", "Home > Filament", ""]
    prose = [f"Just use it, universally, for {what}." for what in ("PLA", "steel", "ABS", "glue")]
    points = ["easy to use, universally", "just, 3", "easy to use, just, 3", "universally"]
    long = ["Everything that a printer of a larger size needs"] * 4
    years = ["1995", "1996", "1995", "1996"]
    assert item_categories([paths, prose, points, long, years]) == [  # most are at home
        ["3D Printing", "Filament", "Sale"],
        ["3D Printing", "Nozzles"],
        ["Filament"],
        [],
    ]
    assert item_categories([]) == []


def test_a_category_is_a_label_as_a_whole_and_titles_name_items_without_one() -> None:
    titles = [f"{name} Varnish" for name in ("Ruby", "Coral", "Plum", "Navy")]
    titles += [f"{name} Balm" for name in ("Rose", "Honey", "Olive", "Almond")]
    categories = [["Nail Polish"]] * 4 + [[]] * 4
    sids = np.array([[0]] * 4 + [[1]] * 4)
    labels = label_codes(titles, sids, 2, list("abcdefgh"), categories=categories)
    assert labels.words == [["Nail Polish", "Balm"]]
    assert (labels.items["a"], labels.items["h"]) == (["Nail Polish"], ["Balm"])
    assert label_codes(titles, sids, 2, None, categories=[[]] * 8).words == [["Varnish", "Balm"]]


def test_cold_items_have_words_and_change_no_label() -> None:
    cold = [("Barbarella", "Sci-Fi, Camp"), ("Dark Star", "Sci-Fi, Camp"), ("Zardoz", "Camp"), ("Them", "")]
    titles = TITLES + [title for title, _ in cold]
    columns = [[film.split("; ")[1] for film in FILMS] + [genres for _, genres in cold]]
    warm = np.arange(len(titles)) < len(TITLES)
    sids, ids = np.concatenate([FILM_SIDS, [[1]] * 4]), [*FILM_IDS, *"abcd"]
    alone = label_codes(TITLES, FILM_SIDS, 2, FILM_IDS, categories=GENRES)
    together = label_codes(titles, sids, 2, ids, categories=item_categories(columns, warm), warm=warm)
    assert together.words == alone.words
    assert {item: together.items[item] for item in FILM_IDS} == alone.items
    assert [together.items[item] for item in "abcd"] == [["Sci-Fi"], ["Sci-Fi"], [""], [""]]


def test_two_words_that_always_stand_together_are_one_label() -> None:
    titles = [
        "Star Trek: Generations",
        "Star Trek IV",
        "Star Trek VI",
        "A Star Trek",
        "Alien",
        "The Rock",
    ] * 2
    sids = np.array([[0]] * 4 + [[1]] * 2 + [[0]] * 4 + [[1]] * 2)
    assert label_codes(titles, sids, 2).words[0][0].split(", ")[0] == "Star Trek"


@pytest.mark.parametrize("filler", ["just", "use", "universally", "with", "2", "500", "1.5", "x"])
def test_empty_words_and_numbers_name_nothing(filler: str) -> None:
    titles = [f"Filament {filler} PLA"] * 4 + ["Nozzle"] * 4
    labels = label_codes(titles, np.array([[0]] * 4 + [[1]] * 4), 2, list("abcdefgh"))
    words = ", ".join([*labels.words[0], *labels.items["a"]]).replace(", ", " ").lower().split()
    assert "filament" in words
    assert filler not in words


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("PLA Filament, 1.75mm (1,000 g)", ["PLA", "Filament", "1.75mm", "1,000", "g"]),
        ("Schindler's List", ["Schindler's", "List"]),
        ("R&B/Soul: Sci-Fi", ["R&B", "Soul", "Sci-Fi"]),
        ("1/2 Zoll.Schraube", ["1/2", "Zoll", "Schraube"]),
        ("Été à Paris", ["Été", "à", "Paris"]),
        ("हिन्दी फ़िल्म", ["हिन्दी", "फ़िल्म"]),  # marks are no letters, and yet part of the word
        ("Фильм «Брат»", ["Фильм", "Брат"]),
        ("映画「七人の侍」", ["映画", "七人の侍"]),
    ],
)
def test_words_of_a_title_are_whole_in_any_language(title: str, words: list[str]) -> None:
    assert words_of(title) == words


def test_words_of_other_languages_are_labels() -> None:
    titles = ["Bohrer für Stein", "Bohrer für Holz", "Bohrer und Säge", "Bohrer lang"] + [
        "Hammer für Holz"
    ] * 4
    assert label_codes(titles, np.array([[0]] * 4 + [[1]] * 4), 2).words[0][0] == "Bohrer"


def test_words_stand_in_the_items_own_order() -> None:
    titles = ["Trek of a Star"] * 4 + ["Star or Trek"] * 4 + ["x1ab", "y1ab", "z1ab"] * 4
    sids = np.array([[0]] * 8 + [[1]] * 12)
    labels = label_codes(titles, sids, 2, [str(i) for i in range(20)])
    assert (labels.items["0"], labels.items["4"]) == (["Trek, Star"], ["Star, Trek"])


def test_an_item_without_a_text_is_shown_with_what_its_title_says(labels: CodeLabels) -> None:
    assert labels.items == {}
    assert labels.item_words("new", "The WESTERN Man", SIDS[0])[0] == "western"
    assert labels.item_words("new", "Westerners", SIDS[0]) == ["", ""]
    newer = CodeLabels(labels.words, {"new": ["a", "b"]})
    assert newer.item_words("new", "The Western Man", SIDS[0]) == ["a", "b"]


def test_newer_labels_of_the_same_codes_add_items_and_rename_no_code(labels: CodeLabels) -> None:
    old = CodeLabels(labels.words, {"a": ["x", ""], "b": ["y", ""]})
    new = CodeLabels([["other"] * 5] * 2, {"b": ["z", ""], "c": ["w", ""]})
    assert old.with_items_of(new) == CodeLabels(
        labels.words, {"a": ["x", ""], "b": ["z", ""], "c": ["w", ""]}
    )


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(["War", "sci-fi", "Film Noir", "1997", "a", "Été"]), max_size=4),
            st.integers(0, 2),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_whatever_the_texts_an_items_words_are_its_own(items: list[tuple[list[str], int]]) -> None:
    texts = [", ".join(words) for words, _ in items]
    sids = np.array([[code, (code + len(words)) % 3] for words, code in items])
    labels = label_codes(texts, sids, 3, [str(i) for i in range(len(items))])
    for i, text in enumerate(texts):
        own_words = [word for level in labels.items.get(str(i), []) for word in level.split(", ") if word]
        assert len(set(own_words)) == len(own_words)
        assert all(word.lower() in text.lower() for word in own_words)


def test_save_and_load(labels: CodeLabels, tmp_path: Path) -> None:
    accented = CodeLabels([[*labels.words[0], "é “quoted”\n\\"], labels.words[1]], {"ü": ["ö", ""]})
    accented.save(tmp_path)
    assert CodeLabels.load(tmp_path) == accented
    assert "é “quoted”" in (tmp_path / "labels.json").read_text("utf-8")  # for people, too


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
        ("Schindler's List", "Schindler's"),
        ("sci-fi", "sci-fi"),
        ("R&B", "R&B"),
        ("1.75mm", "1.75mm"),
        ("Été", "Été"),
    ],
)
def test_words_are_kept_whole(title: str, word: str) -> None:
    assert word in label_codes([title, title, "other"], np.array([[0], [0], [1]]), 2).words[0][0].split(", ")


@given(st.lists(st.tuples(st.text(max_size=12), st.integers(0, 3)), min_size=1, max_size=12), st.data())
def test_any_titles_give_one_clean_label_a_code(items: list[tuple[str, int]], data: st.DataObject) -> None:
    texts, codes = [text for text, _ in items], [code for _, code in items]
    words = label_codes(texts, np.array(codes)[:, None], 4).words[0]
    order = data.draw(st.permutations(range(len(items))))
    reordered = label_codes([texts[i] for i in order], np.array(codes)[list(order)][:, None], 4).words[0]
    assert len(words) == 4
    assert all(words[code] == "" for code in range(4) if code not in codes)
    assert not any("\n" in word or word != word.strip() for word in words)
    assert reordered == words  # the order of items sets no label
