"""Readable labels for codes: the words that set a code's items apart from the rest of the catalogue.

Class-based TF-IDF (Grootendorst 2022, arXiv 2203.05794): the items of a code are one document, and a word
counts by its share of that document times log(1 + mean document length / the word's total count).

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
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

FILE = "labels.json"
SEPARATOR = ", "  # between the words of a label
MAX_WORDS = 2  # words in a label
TOKEN = re.compile(r"\b[^\W_][\w'&+-]*[^\W_]\b")  # words and numbers, hyphens kept
PHRASE = re.compile(r"[^;,|>/()\[\]:]+")  # an entry of a list, such as a category
PHRASE_WORDS = 3  # entries of two or three words are terms of their own
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
        title_words = title.casefold().split()
        labels = [level[code].split(SEPARATOR) for level, code in zip(self.words, sids, strict=True)]
        return [SEPARATOR.join(word for word in label if word.casefold() in title_words) for label in labels]

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
    texts: Sequence[str], sids: np.ndarray, codebook_size: int, item_ids: Sequence[str] | None = None
) -> CodeLabels:
    """Label the codes of every level from the texts of the items that carry them, and each item by itself.

    `texts` and `item_ids` are [N], `sids` [N, levels]; without ids only the codes are labelled.
    """
    from sklearn.feature_extraction.text import CountVectorizer  # noqa: PLC0415

    counter = CountVectorizer(
        analyzer=lambda text: [word.lower() for word in _spelled_terms(text)], min_df=2, binary=True
    )
    try:
        counts = counter.fit_transform(texts)  # [N, terms]
    except ValueError:  # no word occurs twice: labels fall back to the code's number
        return CodeLabels([[""] * codebook_size for _ in range(sids.shape[1])])
    keys = counter.get_feature_names_out()
    frequent = np.asarray(counts.sum(axis=0))[0] >= np.where([" " in key for key in keys], MIN_CARRIERS, 0)
    counts, keys = counts[:, frequent], keys[frequent]

    spellings: dict[str, Counter[str]] = {key: Counter() for key in keys}
    for text in texts:
        for term in set(_spelled_terms(text)):
            if term.lower() in spellings:
                spellings[term.lower()][term] += 1
    terms: list[Term] = [
        (key, min(forms, key=lambda form: (-forms[form], form))) for key, forms in spellings.items()
    ]
    levels = [_label_level(counts, terms, codes, codebook_size) for codes in sids.T]
    labels, weights = [words for words, _ in levels], [weight for _, weight in levels]
    if not item_ids:
        return CodeLabels(labels)

    items = {}  # per level the heaviest terms of the code that an item carries and no earlier level has used
    bounds = zip(counts.indptr[:-1], counts.indptr[1:], strict=True)
    for item, (start, stop), codes, text in zip(item_ids, bounds, sids, texts, strict=True):
        carried, own = counts.indices[start:stop], list[str]()
        for weight, code in zip(weights, codes, strict=True):
            fitting = carried[weight[code, carried] > 0]
            fresh = [i for i in fitting if not any(_contains(words, terms[i][0]) for words in own)]
            heaviest = _heaviest(terms, fresh, weight[code])
            in_text_order = sorted(heaviest, key=lambda term: text.lower().find(term[0]))
            own.append(SEPARATOR.join(spelling for _, spelling in in_text_order))
        items[item] = own
    return CodeLabels(labels, items)


def _spelled_terms(text: str) -> list[str]:
    """The words of a text as written, without stop words, and list entries of a few words."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # noqa: PLC0415

    terms = []
    for phrase in PHRASE.findall(text):
        words = TOKEN.findall(phrase)
        content = [word for word in words if word.lower() not in ENGLISH_STOP_WORDS]
        terms += content
        if 1 < len(words) <= PHRASE_WORDS and len(content) == len(words):
            terms.append(" ".join(words))
    return terms


def _label_level(
    counts: csr_matrix, terms: list[Term], codes: np.ndarray, codebook_size: int
) -> tuple[list[str], np.ndarray]:
    """Labels [K] of a level, and what each term weighs for a single item of the code [K, terms].

    `counts` [N, terms] are 1 if the item's text has the term; `codes` [N] are the items' on this level.
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
