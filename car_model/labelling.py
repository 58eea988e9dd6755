"""Finding a label for every code: the words that set its items apart from the rest of the catalogue.

Class-based TF-IDF (Grootendorst 2022, arXiv 2203.05794): the items of a code are one document, and a word
counts by its share of that document times log(1 + mean document length / the word's total count).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

from car_model.labels import CodeLabels

WORDS = 2  # words in a label
TOKEN = r"(?u)\b[^\W_][\w'&+-]*[^\W_]\b"  # noqa: S105 - words and numbers, hyphens kept
SHARE = 0.2  # a word labels a code if at least this share of its items carry it,
CARRIERS = 4  # at least so many of them, and more often than over all; where none does, the most frequent do


def label_codes(texts: Sequence[str], sids: np.ndarray, codes: int) -> CodeLabels:
    """Label the codes of every level from the texts of the items that carry them.

    Args:
        texts: [N]; sids: [N, levels].
    """
    counter = CountVectorizer(token_pattern=TOKEN, stop_words="english", min_df=2, binary=True)
    try:
        words = counter.fit_transform(texts)
    except ValueError:  # no word occurs twice: labels fall back to the code's number
        return CodeLabels([[""] * codes for _ in range(sids.shape[1])])
    names = counter.get_feature_names_out()
    return CodeLabels([_label_level(words, names, level, codes) for level in sids.T])


def _label_level(words: csr_matrix, names: np.ndarray, level: np.ndarray, codes: int) -> list[str]:
    member = csr_matrix((np.ones(len(level)), (level, np.arange(len(level)))), shape=(codes, len(level)))
    counts = np.asarray((member @ words).todense())  # [codes, vocabulary] items of the code with the word
    sizes = np.bincount(level, minlength=codes)
    share = counts / np.maximum(sizes, 1)[:, None]
    rarity = np.log1p(counts.sum(axis=1).mean() / counts.sum(axis=0))
    weight = share * rarity
    apart = share > counts.sum(axis=0) / sizes.sum()
    common = (share >= SHARE) & (counts >= CARRIERS) & apart
    weight = np.where(common.any(axis=1, keepdims=True), weight * common, share * apart)
    return [_join(names, weight[code]) if sizes[code] else "" for code in range(codes)]


def _join(names: np.ndarray, weight: np.ndarray) -> str:
    order = np.lexsort((names, -weight))[:WORDS]
    return ", ".join(str(names[at]) for at in order if weight[at] > 0)
