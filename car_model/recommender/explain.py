"""Explain a recommendation: the codes the model expected, in the item's words, and the history's influence.

Shape letters: k items, L levels, K codebook size, D width, R items of the history left out in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from car_model.bundle import Bundle
from car_model.recommender.history_encoder import leave_one_out

DECIMALS = 3
EQUAL_DECIMALS = 6  # probabilities that are equal to so many decimals share a rank
MIN_LIFT = 1.5  # a code is a reason if it is at least this much likelier than over all interactions
POPULAR = 50  # ranks of popularity that are worth a word
MAX_CODES = 2  # codes named in the reasons
MAX_CAUSES = 2  # items of the history named as causes
MIN_DROP = 0.02  # of the score without a cause, in nats
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
    """Turns the think heads' distributions and the history's influence into words."""

    def __init__(self, bundle: Bundle, chunks: Tensor) -> None:
        self.model, self.labels, self.catalogue = bundle.model, bundle.labels, bundle.catalogue
        self.share = bundle.code_share  # [L, K]
        self.chunks = chunks  # [N + 1, D] fused chunks by UID
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
            per item `reasons` (sentences), `words` (the item's own words along its path), `path` (per level:
            the item's code, the words of it that the item carries, the label of its group, its probability,
            rank and lift over all interactions, and the code the model expected most), `because` (the
            items of the history that weigh most, and how far its score drops without each) and `alike` (the
            item of the history that is most like it to the model).
        """
        think = self.model.think_logits(state.float())[0].softmax(dim=-1).numpy()  # [L, K]
        expected = expectations(think, self.share, self.catalogue.sids[np.array(uids, dtype=np.int64) - 1])
        drops = np.zeros((len(uids), 0))
        if len(shortened):
            columns = torch.tensor([*uids, *self.reference])
            scores = score(torch.cat([state, shortened]), [history, *leave_one_out(history)], columns)
            drops = leave_one_out_drop(scores, len(uids)).round(DECIMALS)  # [k, R]
        indices = torch.tensor(uids, dtype=torch.long), torch.from_numpy(history)
        own, past = (F.normalize(self.chunks[index], dim=-1) for index in indices)
        twins = history[(own @ past.T).numpy().round(5).argmax(axis=1)]  # [k]
        latest = history[::-1].tolist()
        explanations = []
        for uid, levels, drop, twin in zip(uids, expected, drops.tolist(), twins, strict=True):
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
            alike = self._item(twin)
            reasons = code_reasons(path)
            if not reasons and uid in self.popularity:
                reasons = [f"Popular: number {self.popularity[uid]} of {len(self.catalogue.offered)}."]
            similar = f"Of the history, “{alike['title']}” is most like it"
            titles = " and ".join(f"“{cause['title']}”" for cause in because)
            weigh = "weigh" if len(because) > 1 else "weighs"
            reasons.append(f"{similar}; {titles} {weigh} most." if because else f"{similar}.")
            own_words = ARROW.join(filter(None, words))
            parts = {"reasons": reasons, "words": own_words, "path": path, "because": because, "alike": alike}
            explanations.append(parts)
        return explanations

    def explain_popular(self, uid: int) -> dict[str, Any]:
        """The same for a popular item, if nothing is known of the history."""
        rank, words = self.popularity.get(uid), ARROW.join(filter(None, self._item_words(uid)))
        popular = (
            f"Popular: number {rank} of {len(self.catalogue.offered)}"
            if rank
            else "Not among the most popular"
        )
        reason = f"{popular}; nothing is known of this history."
        return {"reasons": [reason], "words": words, "path": [], "because": [], "alike": None}

    def _item_words(self, uid: int) -> list[str]:
        catalogue, row = self.catalogue, uid - 1
        return self.labels.item_words(catalogue.item_ids[row], catalogue.titles[row], catalogue.sids[row])

    def _item(self, uid: int) -> dict[str, Any]:
        return {"item_id": self.catalogue.item_ids[uid - 1], "title": self.catalogue.titles[uid - 1]}


def code_reasons(path: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences on the codes that the history makes likelier, and on those that the model expected.

    Codes are named by the item's own words, or by their group's label if no likelier code has own words.
    """
    reasons = []
    lifted = [level for level in path if (level["lift"] or 0) >= MIN_LIFT]
    named = "words" if any(level["words"] for level in lifted) else "group"
    candidates = sorted((level for level in lifted if level[named]), key=lambda level: -level["probability"])
    if candidates:
        label = "“{}”" if named == "words" else "Its group (often “{}”)"
        first, *others = [(label.format(level[named]), level["lift"]) for level in candidates[:MAX_CODES]]
        rest = "".join(f", {code} {lift:.1f} times" for code, lift in others)
        reasons.append(
            f"{first[0]} is {first[1]:.1f} times as likely after this history as on average{rest}."
        )
    agreed = [str(level["level"]) for level in path if level["agrees"]]
    if agreed:
        levels = "levels" if len(agreed) > 1 else "level"
        reasons.append(f"Just what the model expected on {levels} {' and '.join(agreed)} of {len(path)}.")
    return reasons
