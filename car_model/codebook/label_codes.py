"""Finding a label for every code: the words that set its items apart from the rest of the catalogue.

Class-based TF-IDF (Grootendorst 2022, arXiv 2203.05794): the items of a code are one document, and a word
counts by its share of that document times log(1 + mean document length / the word's total count).

A label is its group's: an item may carry none of its words. What a single item is shown with is therefore
chosen anew among the words that it carries and that its group carries more often than the catalogue does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from car_model.codebook.labels import JOIN, CodeLabels

WORDS = 2  # words in a label
TOKEN = re.compile(r"\b[^\W_][\w'&+-]*[^\W_]\b")  # words and numbers, hyphens kept
PHRASE = re.compile(r"[^;,|>/()\[\]:]+")  # an entry of a list, such as a category
PHRASE_WORDS = 3  # entries of two or three words are terms of their own
SHARE = 0.2  # a word labels a code if at least this share of its items carry it,
CARRIERS = 4  # at least so many of them, and more often than over all; where none does, the most frequent do
OWN_LIFT = 1.5  # a label's word is shown with an item if its group carries it so much oftener than all do

Names = list[tuple[str, str]]  # a term, and how it is mostly written


def label_codes(
    texts: Sequence[str], sids: np.ndarray, codes: int, item_ids: Sequence[str] | None = None
) -> CodeLabels:
    """Label the codes of every level from the texts of the items that carry them, and each item by itself.

    Args:
        texts: [N]; sids: [N, levels].
        item_ids: [N]; without them only the codes are labelled.
    """
    counter = CountVectorizer(analyzer=_terms, min_df=2, binary=True)
    try:
        terms = counter.fit_transform(texts)
    except ValueError:  # no word occurs twice: labels fall back to the code's number
        return CodeLabels([[""] * codes for _ in range(sids.shape[1])])
    keys = counter.get_feature_names_out()
    often = np.asarray(terms.sum(axis=0))[0] >= np.where([" " in key for key in keys], CARRIERS, 0)
    terms, keys = terms[:, often], keys[often]
    names = list(zip(keys, _spellings(texts, keys), strict=True))
    found = [_label_level(terms, names, level, codes) for level in sids.T]
    own = _own_words(terms, [weight for _, weight in found], sids, names, texts) if item_ids else []
    return CodeLabels([labels for labels, _ in found], dict(zip(item_ids or [], own, strict=True)))


def _terms(text: str) -> list[str]:
    """The words of a text in lower case, and the list entries of a few words."""
    return [term.lower() for term in _spelled_terms(text)]


def _spelled_terms(text: str) -> list[str]:
    found = []
    for part in PHRASE.findall(text):
        words = TOKEN.findall(part)
        kept = [word for word in words if word.lower() not in ENGLISH_STOP_WORDS]
        found += kept
        if 1 < len(words) <= PHRASE_WORDS and len(kept) == len(words):
            found.append(" ".join(words))
    return found


def _spellings(texts: Sequence[str], keys: np.ndarray) -> list[str]:
    """How each term is mostly written."""
    forms: dict[str, Counter[str]] = {key: Counter() for key in keys}
    for text in texts:
        for term in set(_spelled_terms(text)):
            if term.lower() in forms:
                forms[term.lower()][term] += 1
    return [min(counts, key=lambda form: (-counts[form], form)) for counts in forms.values()]


def _label_level(
    terms: csr_matrix, names: Names, level: np.ndarray, codes: int
) -> tuple[list[str], np.ndarray]:
    """Labels [codes], and what a term weighs for a single item of the code [codes, terms]."""
    member = csr_matrix((np.ones(len(level)), (level, np.arange(len(level)))), shape=(codes, len(level)))
    counts = np.asarray((member @ terms).todense())  # [codes, terms] items of the code with the term
    sizes = np.bincount(level, minlength=codes)
    share = counts / np.maximum(sizes, 1)[:, None]
    overall = counts.sum(axis=0) / sizes.sum()
    rarity = np.log1p(counts.sum(axis=1).mean() / counts.sum(axis=0))
    weight = share * rarity
    common = (share >= SHARE) & (counts >= CARRIERS) & (share > overall)
    chosen = np.where(common.any(axis=1, keepdims=True), weight * common, share * (share > overall))
    labels = [
        _join(_heaviest(names, chosen[code].nonzero()[0], chosen[code])) if sizes[code] else ""
        for code in range(codes)
    ]
    return labels, (weight * common * (share >= OWN_LIFT * overall)).astype(np.float32)


def _own_words(
    terms: csr_matrix, weights: list[np.ndarray], sids: np.ndarray, names: Names, texts: Sequence[str]
) -> list[list[str]]:
    """Per item and level the heaviest terms of its code that it carries and that no earlier level said."""
    found = []
    bounds = zip(terms.indptr[:-1], terms.indptr[1:], strict=True)
    for (start, stop), codes, text in zip(bounds, sids, texts, strict=True):
        carried, said = terms.indices[start:stop], list[str]()
        for weight, code in zip(weights, codes, strict=True):
            fits = carried[weight[code, carried] > 0]
            fresh = [at for at in fits if not any(_says(label, names[at][0]) for label in said)]
            chosen = _heaviest(names, fresh, weight[code])
            said.append(
                _join(sorted(chosen, key=lambda name: text.lower().find(name[0])))
            )  # as the item has it
        found.append(said)
    return found


def _says(label: str, key: str) -> bool:
    return f" {key} " in f" {label.lower().replace(JOIN, ' ')} "


def _heaviest(names: Names, some: Iterable[int], weight: np.ndarray) -> Names:
    """The heaviest of some terms; of equally heavy ones the longer first, and none that another contains."""
    chosen: Names = []
    for at in sorted(
        some, key=lambda at: (-round(float(weight[at]), 6), -names[at][0].count(" "), names[at])
    ):
        key = names[at][0]
        if len(chosen) < WORDS and not any(_says(one, key) or _says(key, one) for one, _ in chosen):
            chosen.append(names[at])
    return chosen


def _join(chosen: Names) -> str:
    return JOIN.join(spelled for _, spelled in chosen)
