"""Why an item: the codes the model expected, in words, and the history item it lies closest to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from car_model.bundle import Bundle

LIFT = 1.5  # a code is a reason when it is at least this much likelier than over all interactions
POPULAR = 50  # ranks of popularity that are worth a word
REASONS = 2  # codes named in the reasons
DECIMALS = 3


class Explainer:
    """Turns the think heads' distributions into words."""

    def __init__(self, bundle: Bundle) -> None:
        self.model = bundle.model
        self.labels = bundle.labels.words
        self.catalogue = bundle.catalogue
        self.share = bundle.code_share  # [L, K]
        self.popularity = {uid: rank for rank, uid in enumerate(bundle.popular[:POPULAR], start=1)}
        with torch.inference_mode():
            every = torch.arange(self.catalogue.size + 1)
            self.vectors = F.normalize(self.model.embed(every)[:, -1], dim=-1)  # [N + 1, D] fused chunks

    def explain(self, state: Tensor, history: np.ndarray, uids: Sequence[int]) -> list[dict[str, Any]]:
        """Reasons of recommended UIDs.

        Args:
            state: [1, D] after the history.
            history: UIDs, none empty.

        Returns:
            per item `reasons` (sentences) and `path` (per level: the item's code and label, its probability
            and lift over all interactions, the code the model expected most, and whether they agree).
        """
        think = self.model.think_logits(state)[0].softmax(dim=-1).numpy()  # [L, K]
        near = (self.vectors[list(uids)] @ self.vectors[torch.from_numpy(history)].T).numpy()  # [k, T]
        return [
            self._one(uid, think, history[row.round(5).argmax()]) for uid, row in zip(uids, near, strict=True)
        ]

    def popular(self, uid: int) -> dict[str, Any]:
        """What is said of an item where nothing is known of the history."""
        rank = self.popularity.get(uid)
        place = f"Popular: number {rank} of {self.catalogue.size}" if rank else "Not among the most popular"
        return {"reasons": [f"{place}; nothing is known of this history."], "path": []}

    def _one(self, uid: int, think: np.ndarray, nearest: int) -> dict[str, Any]:
        sids = self.catalogue.sids[uid - 1]
        path = [self._level(level, int(code), think[level]) for level, code in enumerate(sids)]
        reasons = _lifted(path)
        if not reasons and uid in self.popularity:
            reasons = [f"Popular: number {self.popularity[uid]} of {self.catalogue.size}."]
        return {
            "reasons": [*reasons, f"Closest to “{self.catalogue.titles[nearest - 1]}” in the history."],
            "path": path,
        }

    def _level(self, level: int, code: int, probability: np.ndarray) -> dict[str, Any]:
        expected = int(probability.round(6).argmax())
        base = float(self.share[level, code])
        return {
            "level": level + 1,
            "code": code,
            "label": self.labels[level][code],
            "probability": round(float(probability[code]), DECIMALS),
            "lift": round(float(probability[code]) / base, 1) if base > 0 else None,  # none: never trained on
            "expected_code": expected,
            "expected": self.labels[level][expected],
            "expected_probability": round(float(probability[expected]), DECIMALS),
            "agrees": code == expected,
        }


def _lifted(path: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence for each of the likeliest codes the history lifts; levels of one label share it."""
    lifts: dict[str, float] = {}
    for step in sorted(path, key=lambda step: -step["probability"]):
        if step["label"] and (step["lift"] or 0) >= LIFT:
            lifts.setdefault(step["label"], step["lift"])
    return [
        f"“{label}” is {lift:.1f} times as likely after this history as on average."
        for label, lift in list(lifts.items())[:REASONS]
    ]
