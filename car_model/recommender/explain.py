"""Why an item: the codes the model expected, in words that the item carries, and what the history adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from car_model.bundle import Bundle
from car_model.recommender.history_states import without

DECIMALS = 3
EQUAL = 6  # decimals beyond which probabilities are the same to the ranks


def expectations(think: np.ndarray, share: np.ndarray, sids: np.ndarray) -> list[list[dict[str, Any]]]:
    """The item's code against what the model expected, for k items on L levels.

    Args:
        think: [L, K] probability of each code after a history.
        share: [L, K] each code's share of all interactions.
        sids: [k, L] the items' codes.

    Returns:
        per item and level: `level` from 1, `code`, its `probability`, `rank` among all codes and `lift` over
        its share (none: no interaction has it), `expected_code` (the likeliest), `expected_probability`, and
        whether the item's code `agrees` with it.
    """
    rounded, levels = think.round(EQUAL), np.arange(len(think))
    expected = rounded.argmax(axis=1)  # [L]
    usual = share[levels, sids]  # [k, L]
    with np.errstate(divide="ignore", invalid="ignore"):
        lift = (think[levels, sids].astype(float) / usual).round(1).astype(object)
    lift[usual <= 0] = None
    columns = {
        "level": np.broadcast_to(levels + 1, sids.shape),
        "code": sids,
        "probability": think[levels, sids].astype(float).round(DECIMALS),
        "rank": 1 + (rounded > rounded[levels, sids][..., None]).sum(axis=-1),
        "lift": lift,
        "expected_code": np.broadcast_to(expected, sids.shape),
        "expected_probability": np.broadcast_to(
            think[levels, expected].astype(float).round(DECIMALS), sids.shape
        ),
        "agrees": sids == expected,
    }
    values = zip(*(array.tolist() for array in columns.values()), strict=True)  # by item
    return [[dict(zip(columns, one, strict=True)) for one in zip(*item, strict=True)] for item in values]


def falls(scores: Tensor, count: int) -> np.ndarray:
    """By how much taking an item out of a history lowers scores, beyond what it does to other items: [k, R].

    Without the last part every item would rest on the latest one, which says what the user is doing at all.

    Args:
        scores: [1 + R, k + others] after the whole history, and after it without each item.
        count: k, the columns that are explained; the rest are compared with.
    """
    lost = (scores[0] - scores[1:]).double()
    return (lost[:, :count] - lost[:, count:].mean(dim=1, keepdim=True)).T.numpy()


LIFT = 1.5  # a code is a reason when it is at least this much likelier than over all interactions
POPULAR = 50  # ranks of popularity that are worth a word
REASONS = 2  # codes named in the reasons
CAUSES = 2  # items of the history that are named
WEIGHT = 0.02  # and by how much, in nats, the score must fall without them
ARROW = " > "

# States [B, D] after B histories, and C UIDs -> what these are ranked by, [B, C]
Score = Callable[[Tensor, Sequence[np.ndarray], Tensor], Tensor]


class Explainer:
    """Turns the think heads' distributions and the history's influence into words.

    Args:
        chunks: [N + 1, D] fused chunks by UID.
    """

    def __init__(self, bundle: Bundle, chunks: Tensor) -> None:
        self.model = bundle.model
        self.labels = bundle.labels
        self.catalogue = bundle.catalogue
        self.share = bundle.code_share  # [L, K]
        self.chunks = chunks
        self.others = bundle.popular or list(range(1, bundle.catalogue.size + 1))
        self.popularity = {uid: rank for rank, uid in enumerate(bundle.popular[:POPULAR], start=1)}

    def explain(
        self, state: Tensor, shortened: Tensor, history: np.ndarray, uids: Sequence[int], score: Score
    ) -> list[dict[str, Any]]:
        """Reasons of recommended UIDs.

        Args:
            state: [1, D] after the history.
            shortened: [R, D] after the history without each of its latest items (`Reader.without`).
            history: UIDs, none empty.
            score: what items are ranked by, after any history.

        Returns:
            per item `reasons` (sentences), `words` (the item's own words along its path), `path` (per level:
            the item's code, the words of it that the item carries, the label of its group, its probability,
            rank and lift over all interactions, and the code the model expected most), `because` (the
            items of the history that weigh most, and how far its score falls without each) and `alike` (the
            item of the history that is most like it to the model).
        """
        think = self.model.think_logits(state.float())[0].softmax(dim=-1).numpy()  # [L, K]
        paths = expectations(think, self.share, self.catalogue.sids[np.array(uids, dtype=np.int64) - 1])
        lost = self._falls(torch.cat([state, shortened]), history, uids, score)  # [k, R]
        mine, theirs = (
            F.normalize(self.chunks[at], dim=-1)
            for at in (torch.tensor(uids, dtype=torch.long), torch.from_numpy(history))
        )
        near = (mine @ theirs.T).numpy()  # [k, T]
        alike = history[near.round(5).argmax(axis=1)]
        latest = history[::-1].tolist()
        return [
            self._one(uid, levels, self._because(latest, row), self._named(twin))
            for uid, levels, row, twin in zip(uids, paths, lost.tolist(), alike, strict=True)
        ]

    def _falls(self, states: Tensor, history: np.ndarray, uids: Sequence[int], score: Score) -> np.ndarray:
        """What k items lose without each of the latest, [k, R]: states [1 + R, D] with all, and without."""
        if len(states) < 2:  # nothing would be left
            return np.zeros((len(uids), 0))
        scores = score(states, [history, *without(history)], torch.tensor([*uids, *self.others]))
        return falls(scores, len(uids)).round(DECIMALS)

    def popular(self, uid: int) -> dict[str, Any]:
        """What is said of an item where nothing is known of the history."""
        rank = self.popularity.get(uid)
        place = f"Popular: number {rank} of {self.catalogue.size}" if rank else "Not among the most popular"
        words = ARROW.join(filter(None, self._own(uid)))
        said = f"{place}; nothing is known of this history."
        return {"reasons": [said], "words": words, "path": [], "because": [], "alike": None}

    def _one(
        self,
        uid: int,
        levels: list[dict[str, Any]],
        because: list[dict[str, Any]],
        alike: dict[str, Any],
    ) -> dict[str, Any]:
        own = self._own(uid)
        path = [self._told(*found) for found in zip(levels, own, self.labels.words, strict=True)]
        reasons = [*_lifted(path), *_agreed(path)]
        if not reasons and uid in self.popularity:
            reasons = [f"Popular: number {self.popularity[uid]} of {self.catalogue.size}."]
        return {
            "reasons": [*reasons, _history(because, alike)],
            "words": ARROW.join(filter(None, own)),
            "path": path,
            "because": because,
            "alike": alike,
        }

    def _own(self, uid: int) -> list[str]:
        catalogue, at = self.catalogue, uid - 1
        return self.labels.own(catalogue.item_ids[at], catalogue.titles[at], catalogue.sids[at])

    def _because(self, latest: list[int], lost: list[float]) -> list[dict[str, Any]]:
        """The items whose absence costs most, each once; equal ones latest first."""
        found: dict[int, float] = {}
        for weight, uid in sorted(zip(lost, latest, strict=False), key=lambda pair: -pair[0]):
            if weight < WEIGHT or len(found) == CAUSES:
                break
            found.setdefault(uid, weight)
        return [{**self._named(uid), "weight": weight} for uid, weight in found.items()]

    def _named(self, uid: int) -> dict[str, Any]:
        return {"item_id": self.catalogue.item_ids[uid - 1], "title": self.catalogue.titles[uid - 1]}

    def _told(self, level: dict[str, Any], own: str, groups: list[str]) -> dict[str, Any]:
        """A level with its words: the item's own, and the labels of its group and of the expected one."""
        group, expected = groups[level["code"]], groups[level["expected_code"]]
        return {"words": own, "group": group, "expected_group": expected, **level}


def _lifted(path: Sequence[dict[str, Any]]) -> list[str]:
    """What the history lifts, in the item's own words; where it lifts none of those, in its groups'."""
    lifted = [step for step in path if (step["lift"] or 0) >= LIFT and (step["words"] or step["group"])]
    own = [step for step in lifted if step["words"]]
    if not lifted:
        return []
    first, *more = sorted(own or lifted, key=lambda step: -step["probability"])[:REASONS]
    rest = "".join(f", {_label(step)} {step['lift']:.1f} times" for step in more)
    return [f"{_label(first)} is {first['lift']:.1f} times as likely after this history as on average{rest}."]


def _label(step: dict[str, Any]) -> str:
    return f"“{step['words']}”" if step["words"] else f"Its group (often “{step['group']}”)"


def _agreed(path: Sequence[dict[str, Any]]) -> list[str]:
    levels = [str(step["level"]) for step in path if step["agrees"]]
    if not levels:
        return []
    plural = "s" if len(levels) > 1 else ""
    return [f"Just what the model expected on level{plural} {' and '.join(levels)} of {len(path)}."]


def _history(because: Sequence[dict[str, Any]], alike: dict[str, Any]) -> str:
    """What the item owes to the history."""
    said = f"Of the history, “{alike['title']}” is most like it"
    weighty = " and ".join(f"“{one['title']}”" for one in because)
    return f"{said}; {weighty} weigh{'' if len(because) > 1 else 's'} most." if because else f"{said}."
