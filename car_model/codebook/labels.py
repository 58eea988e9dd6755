"""Readable labels for codes: the words that set a code's items apart from the rest of the catalogue.

Class-based TF-IDF (Grootendorst 2022, arXiv 2203.05794): the items of a code are one document, and a term
counts by its share of that document times log(1 + mean document length / the term's total count). Terms are
the categories of an item, whole, or the words of its title if it has none. Descriptions are prose and name
nothing.

A label belongs to its group; a single item may carry none of its words. So each item also gets words of its
own, among those that it carries and that its group carries more often than the catalogue.

Serving reads labels but never makes them, so scikit-learn is imported only by the functions that do.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import regex

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

FILE = "labels.json"
SEPARATOR = ", "  # between the words of a label
MAX_WORDS = 2  # words in a label
ENTRIES = re.compile(r"\s*[;,|>\n\t]\s*")  # between the categories of an item
MAX_ENTRY = 30  # characters of a category; a longer one is no label
MOST = 0.5  # share of a column's entries, or cells
SENTENCE = re.compile(r"[^\s.][.!?](\s|$)")
# Letters of any script with their marks, and digits; joined by apostrophes, hyphens and the like, digits by a
# point or comma too: Schindler's, R&B, 1.75mm.
WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+(?:(?:['\u2019&+-]|(?<=\p{N})[.,/](?=\p{N}))[\p{L}\p{M}\p{N}]+)*")
# Beyond scikit-learn's stop words: what titles say of goods of any kind.
FILLERS = frozenset(
    """also best color colors colour colours count each easy extra fit fits fl free good great inch
    inches item items just large like lot lots make makes medium new now ounce ounces oz pack
    packs pair pc pcs perfect piece pieces premium pro product products quality set sets size
    sizes small style super type unit units universal universally use used user uses using various
    version way ways works""".split()  # noqa: SIM905
)
MIN_SHARE = 0.2  # a word labels a code if at least this share of its items carry it,
MIN_CARRIERS = 4  # and at least so many of them, more often than over all; if none does, the most frequent do
OWN_LIFT = 1.5  # a label's word is an item's own if its group carries it so much more often than all items

Term = tuple[str, str]  # a term in lower case, and its most frequent spelling


@dataclass(frozen=True)
class CodeLabels:
    """What codes are called: `words[level][code]` is one label for all items of the code, "" if it has none.

    A single item need not carry these words; `items` holds those that it does, by item id and level.
    """

    words: list[list[str]]
    items: dict[str, list[str]] = field(default_factory=dict)

    def item_words(self, item_id: str, title: str, sids: Sequence[int]) -> list[str]:
        """Per level the words of the code that this item carries, "" for none.

        For an item that came without a text, such as one that was onboarded, only the title is searched.
        """
        if item_id in self.items:
            return self.items[item_id]
        words = " ".join(words_of(title))
        labels = [level[code].split(SEPARATOR) for level, code in zip(self.words, sids, strict=True)]
        return [SEPARATOR.join(word for word in label if _contains(words, word.lower())) for label in labels]

    def with_items_of(self, newer: CodeLabels) -> CodeLabels:
        """These labels, with the item words of newer labels for the same codes added."""
        return CodeLabels(self.words, {**self.items, **newer.items})

    def save(self, folder: Path) -> None:
        """Write labels.json."""
        content = {"words": self.words, "items": self.items}
        (folder / FILE).write_text(json.dumps(content, ensure_ascii=False, indent=0) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path) -> CodeLabels:
        """Read labels.json."""
        content = json.loads((folder / FILE).read_text("utf-8"))
        return cls(content["words"], content["items"])


def label_codes(
    titles: Sequence[str],
    sids: np.ndarray,
    codebook_size: int,
    item_ids: Sequence[str] | None = None,
    *,
    categories: Sequence[Sequence[str]] | None = None,
    warm: np.ndarray | None = None,
) -> CodeLabels:
    """Label the codes of every level from the items that carry them, and each item by itself.

    `titles`, `item_ids` and `categories` (of `item_categories`) are [N], `sids` [N, levels]; without ids
    only the codes are labelled. Labels are those of the items in `warm` [N], all by default; the others
    change none.
    """
    from sklearn.feature_extraction.text import CountVectorizer  # noqa: PLC0415

    categories = categories or [[] for _ in titles]
    carried_terms = [own or _title_terms(title) for own, title in zip(categories, titles, strict=True)]
    counter = CountVectorizer(analyzer=lambda terms: map(str.lower, terms), min_df=2, binary=True)
    warm = np.ones(len(titles), dtype=bool) if warm is None else warm
    try:
        counter.fit(compress(carried_terms, warm))
    except ValueError:  # no word occurs twice: labels fall back to the code's number
        return CodeLabels([[""] * codebook_size for _ in range(sids.shape[1])])
    keys, counts = counter.get_feature_names_out(), counter.transform(carried_terms)  # [N, terms]
    frequent = np.asarray(counts[warm].sum(axis=0))[0] >= np.where(
        [" " in key for key in keys], MIN_CARRIERS, 0
    )
    counts, keys = counts[:, frequent], keys[frequent]
    spellings: dict[str, Counter[str]] = {key: Counter() for key in keys}
    for own_terms in compress(carried_terms, warm):
        for term in set(own_terms):
            if term.lower() in spellings:
                spellings[term.lower()][term] += 1
    terms: list[Term] = [
        (key, min(forms, key=lambda form: (-forms[form], form))) for key, forms in spellings.items()
    ]
    levels = [_label_level(counts[warm], terms, codes, codebook_size) for codes in sids[warm].T]
    labels, weights = [words for words, _ in levels], [weight for _, weight in levels]
    if not item_ids:
        return CodeLabels(labels)

    items = {}  # per level the heaviest terms of the code that an item carries and no earlier level has used
    bounds = zip(counts.indptr[:-1], counts.indptr[1:], strict=True)
    for item, (start, stop), codes, own_terms in zip(item_ids, bounds, sids, carried_terms, strict=True):
        carried, own, order = counts.indices[start:stop], list[str](), [term.lower() for term in own_terms]
        for weight, code in zip(weights, codes, strict=True):
            fitting = carried[weight[code, carried] > 0]
            fresh = [i for i in fitting if not any(_contains(words, terms[i][0]) for words in own)]
            heaviest = sorted(_heaviest(terms, fresh, weight[code]), key=lambda term: order.index(term[0]))
            own.append(SEPARATOR.join(spelling for _, spelling in heaviest))
        items[item] = own
    return CodeLabels(labels, items)


def item_categories(columns: Iterable[Sequence[str]], warm: np.ndarray | None = None) -> list[list[str]]:
    """The categories of every item, each once: the short entries of the columns that hold categories.

    `columns` are text columns other than the title, [N] each, with lists such as `Makeup > Nails, OPI`.
    A column holds categories if most of its entries belong to several items, and most of its cells hold no
    sentence: a description is one item's, and what every description says names nothing. Nor does what most
    items are. All of this is counted among the items in `warm` [N].
    """
    categories: list[dict[str, None]] = []
    for column in columns:
        entries = [list(filter(None, ENTRIES.split(text.strip()))) for text in column]
        categories = categories or [{} for _ in entries]
        counted = np.ones(len(entries), dtype=bool) if warm is None else warm
        carriers = Counter(entry.lower() for own in compress(entries, counted) for entry in set(own))
        shared = sum(n for n in carriers.values() if n > 1) >= MOST * carriers.total()
        sentences = sum(SENTENCE.search(text) is not None for text in compress(column, counted))
        if shared and sentences <= MOST * sum(map(bool, compress(entries, counted))):
            for item, own in zip(categories, entries, strict=True):
                item.update(
                    (entry, None)
                    for entry in own
                    if len(entry) <= MAX_ENTRY and carriers[entry.lower()] <= MOST * counted.sum()
                )
    names = {entry for item in categories for entry in item if _names(words_of(entry))}
    return [[entry for entry in item if entry in names] for item in categories]


def words_of(title: str) -> list[str]:
    """The words of a title as written, in any language; numbers and their units stay whole."""
    return WORD.findall(title)


def _title_terms(title: str) -> list[str]:
    """The words of a title that can name a kind of item, and each two that follow each other."""
    matches = [match for match in WORD.finditer(title) if _names([match[0]])]
    pairs = [title[a.start() : b.end()] for a, b in pairwise(matches) if title[a.end() : b.start()] == " "]
    return [*(match[0] for match in matches), *pairs]


def _names(words: Iterable[str]) -> bool:
    """Whether any of some words can name a kind of item: no stop words, single letters, numbers."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # noqa: PLC0415

    return any(
        sum(map(str.isalpha, word)) > 1 and word.lower() not in ENGLISH_STOP_WORDS | FILLERS for word in words
    )


def _label_level(
    counts: csr_matrix, terms: list[Term], codes: np.ndarray, codebook_size: int
) -> tuple[list[str], np.ndarray]:
    """Labels [K] of a level, and what each term weighs for a single item of the code [K, terms].

    `counts` [N, terms] are 1 if the item has the term; `codes` [N] are the items' on this level.
    """
    from scipy.sparse import csr_matrix  # noqa: PLC0415

    ones, rows = np.ones(len(codes)), np.arange(len(codes))
    members = csr_matrix((ones, (codes, rows)), shape=(codebook_size, len(codes)))
    carriers = np.asarray((members @ counts).todense())  # [K, terms] items of the code that carry the term
    sizes = np.bincount(codes, minlength=codebook_size)
    share = carriers / np.maximum(sizes, 1)[:, None]
    overall = carriers.sum(axis=0) / sizes.sum()
    rarity = np.log1p(carriers.sum(axis=1).mean() / carriers.sum(axis=0))
    weight = share * rarity
    common = (share >= MIN_SHARE) & (carriers >= MIN_CARRIERS) & (share > overall)
    usable = np.where(common.any(axis=1, keepdims=True), weight * common, share * (share > overall))
    heaviest = [_heaviest(terms, row.nonzero()[0], row) for row in usable]  # none if no item uses the code
    labels = [SEPARATOR.join(spelling for _, spelling in code_terms) for code_terms in heaviest]
    return labels, (weight * common * (share >= OWN_LIFT * overall)).astype(np.float32)


def _heaviest(terms: list[Term], indices: Iterable[int], weight: np.ndarray) -> list[Term]:
    """The heaviest terms of some; of equally heavy ones the longer first, and none that contains another."""
    heaviest: list[Term] = []
    for i in sorted(indices, key=lambda i: (-round(float(weight[i]), 6), -terms[i][0].count(" "), terms[i])):
        key = terms[i][0]
        if len(heaviest) == MAX_WORDS:
            break
        if not any(_contains(other, key) or _contains(key, other) for other, _ in heaviest):
            heaviest.append(terms[i])
    return heaviest


def _contains(label: str, key: str) -> bool:
    return f" {key} " in f" {label.lower().replace(SEPARATOR, ' ')} "
