"""Explain a recommendation: what kind of item a history asks for, and which of its items speak for this one.

Shape letters: k items, L levels, K codebook size, D width, A axes of texts, P items of a history, R of them
left out in turn.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from car_model.bundle import Bundle
from car_model.codebook.labels import SEPARATOR
from car_model.recommender.history_encoder import leave_one_out

DECIMALS = 3
EQUAL_DECIMALS = 6  # probabilities that are equal to so many decimals share a rank
MIN_LIFT = 1.5  # a code is a reason if it is at least this much likelier than over all interactions
MAX_TERMS = 2  # of an item's words in the reasons
POPULAR = 50  # ranks of popularity that are worth a word
MAX_CAUSES = 2  # items of the history named as causes
MIN_DROP = 0.02  # of the score without a cause
MIN_NAMED_DROP = 0.3  # of a cause that the reasons name
NEAR = 0.5  # cosine of two texts from which an item is said to be like the other
RELATED = 0.25  # cosine from which an item is named as a cause: the latest item weighs in on everything
MAX_TITLE = 48  # characters of a title in the reasons, and of an item's words: so reasons have at most 160
ARROW = " > "

# States [B, D] after B histories, the histories, and C UIDs -> scores [B, C]
Score = Callable[[Tensor, Sequence[np.ndarray], Tensor], Tensor]


def expectations(think: np.ndarray, share: np.ndarray, sids: np.ndarray) -> list[list[dict[str, Any]]]:
    """Each item's codes against what the model expected, for k items on L levels.

    Args:
        think: [L, K] probability of each code after a history.
        share: [L, K] each code's share of all interactions.
        sids: [k, L] the items' codes.

    Returns:
        per item and level: `level` from 1, `code`, its `probability`, `rank` among all codes and `lift` over
        its share (None if no interaction has it), `expected_code` (the likeliest), `expected_probability`,
        and whether the item's code `agrees` with it.
    """
    rounded, levels = think.round(EQUAL_DECIMALS), np.arange(len(think))
    expected = rounded.argmax(axis=1)  # [L]
    probability, usual = think[levels, sids].astype(float), share[levels, sids]  # [k, L]
    with np.errstate(divide="ignore", invalid="ignore"):
        lift = (probability / usual).round(1).astype(object)
    lift[usual <= 0] = None
    columns = {
        "level": levels + 1,
        "code": sids,
        "probability": probability.round(DECIMALS),
        "rank": 1 + (rounded > rounded[levels, sids][..., None]).sum(axis=-1),
        "lift": lift,
        "expected_code": expected,
        "expected_probability": think[levels, expected].astype(float).round(DECIMALS),
        "agrees": sids == expected,
    }
    items = zip(*(np.broadcast_to(array, sids.shape).tolist() for array in columns.values()), strict=True)
    return [[dict(zip(columns, level, strict=True)) for level in zip(*item, strict=True)] for item in items]


def leave_one_out_drop(scores: Tensor, count: int) -> np.ndarray:
    """How much leaving an item out of a history lowers scores, beyond its effect on other items: [k, R].

    Without the comparison the latest item would weigh most for every item: it sets what the user is doing.

    Args:
        scores: [1 + R, k + others] after the whole history, and after it without each item.
        count: k, the columns that are explained; the rest are compared with.
    """
    drop = (scores[0] - scores[1:]).double()
    return (drop[:, :count] - drop[:, count:].mean(dim=1, keepdim=True)).T.numpy()


class Explainer:
    """Turns the think heads' distributions, the nearest texts and the history's influence into words."""

    def __init__(self, bundle: Bundle) -> None:
        self.model, self.labels, self.catalogue = bundle.model, bundle.labels, bundle.catalogue
        self.share = bundle.code_share  # [L, K]
        self.reference = bundle.popular or list(range(1, bundle.catalogue.size + 1))  # compared with
        self.popularity = {uid: rank for rank, uid in enumerate(bundle.popular[:POPULAR], start=1)}

    def explain(
        self, state: Tensor, shortened: Tensor, history: np.ndarray, uids: Sequence[int], score: Score
    ) -> list[dict[str, Any]]:
        """Reasons for recommended UIDs.

        Args:
            state: [1, D] after the history.
            shortened: [R, D] after the history without each of its latest items.
            history: UIDs, not empty.
            score: what items are ranked by, after any history.

        Returns:
            per item `reasons` (one or two sentences), `words` (the item's own words along its path), `path`
            (per level: the item's code, the words of it that the item carries, the label of its group, its
            probability, rank and lift over all interactions, and the code the model expected most), `because`
            (the items of the history that weigh most, and how far its score drops without each) and `alike`
            (the item of the history with the nearest text, None if none is near).
        """
        think = self.model.think_logits(state.float())[0].softmax(dim=-1).numpy()  # [L, K]
        expected = expectations(think, self.share, self.catalogue.sids[np.array(uids, dtype=np.int64) - 1])
        drops = np.zeros((len(uids), 0))
        if len(shortened):
            columns = torch.tensor([*uids, *self.reference])
            scores = score(torch.cat([state, shortened]), [history, *leave_one_out(history)], columns)
            drops = leave_one_out_drop(scores, len(uids)).round(DECIMALS)  # [k, R]
        latest = history[::-1].tolist()
        seen = {word for uid in dict.fromkeys(latest) for word in self._terms(self._item_words(uid))}
        past = {uid: column for column, uid in enumerate(dict.fromkeys(latest))}
        cosines = self._text_cosines(uids, list(past))
        explanations = []
        for uid, levels, drop, near in zip(uids, expected, drops.tolist(), cosines, strict=True):
            words, path = self._item_words(uid), []
            for level, word, groups in zip(levels, words, self.labels.words, strict=True):
                group, expected_group = groups[level["code"]], groups[level["expected_code"]]
                path.append({"words": word, "group": group, "expected_group": expected_group, **level})
            causes: dict[int, float] = {}  # without which the score drops most; equal ones latest first
            for fall, item in sorted(zip(drop, latest, strict=False), key=lambda pair: -pair[0]):
                if fall < MIN_DROP or len(causes) == MAX_CAUSES:
                    break
                causes.setdefault(item, fall)
            because = [{**self._item(item), "weight": fall} for item, fall in causes.items()]
            column, alike = int(near.argmax()), None  # of equally near items the latest
            if near[column] >= NEAR:
                alike = {**self._item(list(past)[column]), "similarity": float(near[column])}
            named = [item for item, fall in causes.items() if fall >= MIN_NAMED_DROP][:1]
            history_reason = ""
            if alike:
                weighs = ", which counts most" if named and past[named[0]] == column else ""
                history_reason = f"Like “{brief(alike['title'])}”{weighs}."
            elif named and (self.catalogue.text is None or near[past[named[0]]] >= RELATED):
                history_reason = f"Mostly because of “{brief(because[0]['title'])}”."
            reasons = [self._interest(path, seen), history_reason, self._popularity(uid)]
            parts = {
                "reasons": list(filter(None, reasons))[:2] or ["The history as a whole speaks for it."],
                "words": ARROW.join(filter(None, words)),
                "path": path,
                "because": because,
                "alike": alike,
            }
            explanations.append(parts)
        return explanations

    def explain_popular(self, uid: int) -> dict[str, Any]:
        """The same for a popular item, if nothing is known of the history."""
        words = ARROW.join(filter(None, self._item_words(uid)))
        popular = self._popularity(uid) or "Not among the most popular."
        reason = f"{popular.removesuffix('.')}; nothing is known of this history."
        return {"reasons": [reason], "words": words, "path": [], "because": [], "alike": None}

    def _interest(self, path: Sequence[dict[str, Any]], seen: set[str]) -> str:
        """What the item is, in words of its own whose codes the history makes likelier; "" if none is.

        Words that items of the history carry too come first.
        """
        lifted = [level for level in path if (level["lift"] or 0) >= MIN_LIFT]
        terms = self._terms(level["words"] for level in sorted(lifted, key=lambda at: -at["probability"]))
        shared = [term for term in terms if term in seen][:MAX_TERMS]
        if not shared:
            return f"{brief(terms[0])} often comes next." if terms else ""
        words = " and ".join(shared)
        return f"Fits the interest in {brief(words if len(words) <= MAX_TITLE else shared[0])}."

    def _popularity(self, uid: int) -> str:
        """That an item is popular, if it is."""
        rank = self.popularity.get(uid)
        return f"Popular: number {rank} of {len(self.catalogue.offered)}." if rank else ""

    def _text_cosines(self, uids: Sequence[int], past: Sequence[int]) -> np.ndarray:
        """Cosines [k, P] of the texts of UIDs to those of the history's items, rounded; 0 without texts."""
        if self.catalogue.text is None:
            return np.zeros((len(uids), len(past)))
        own, others = (unit_rows(self.catalogue.text[np.array(rows) - 1]) for rows in (uids, past))
        return (own @ others.T).round(DECIMALS)

    def _item_words(self, uid: int) -> list[str]:
        catalogue, row = self.catalogue, uid - 1
        return self.labels.item_words(catalogue.item_ids[row], catalogue.titles[row], catalogue.sids[row])

    @staticmethod
    def _terms(words: Iterable[str]) -> list[str]:
        """The single terms of levels' words."""
        return [term for level in words if level for term in level.split(SEPARATOR)]

    def _item(self, uid: int) -> dict[str, Any]:
        return {"item_id": self.catalogue.item_ids[uid - 1], "title": self.catalogue.titles[uid - 1]}


def brief(title: str) -> str:
    """A title of at most MAX_TITLE characters, cut between words if it can be."""
    title = " ".join(title.split())
    if len(title) <= MAX_TITLE:
        return title
    cut = textwrap.shorten(title, MAX_TITLE - 1, placeholder="").rstrip(" ,;:-(&/")
    return f"{cut or title[: MAX_TITLE - 1]}…"


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows [n, A] in float64, each of length 1; a zero row stays zero."""
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float64).tiny)
