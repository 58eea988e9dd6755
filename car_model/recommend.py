"""The Recommender: the one object that is evaluated *and* served, so that there is no skew between them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from car_model.bundle import Bundle
from car_model.explain import Explainer
from car_model.likeness import likeness_of
from car_model.request import Request, RequestError, parse
from car_model.scoring import Scorer
from car_model.sequences import pad

__all__ = ["Recommender", "RequestError"]

DECIMALS = 4  # of a score in an answer: far above float noise, so equal computation gives equal JSON
MARGIN = 8  # extra candidates kept before scores are rounded and ties go to the lower UID


class Recommender:
    """Scores and explains next items from a bundle."""

    def __init__(self, bundle: Bundle, release: str = "unreleased") -> None:
        self.bundle = bundle
        self.release = release
        self.catalogue = bundle.catalogue
        self.model = bundle.model.eval()
        self.levels = bundle.codebook.levels
        self.codebook = bundle.codebook.version  # hashes every array: once, not an answer
        self._scorer = Scorer(self.model, bundle.think_scale)
        used = bundle.likeness_scale > 0
        self._likeness = likeness_of(bundle.catalogue, self.model.config.history) if used else None
        self._explainer = Explainer(bundle)

    @classmethod
    def load(cls, folder: Path | str, release: str = "unreleased") -> Recommender:
        """Load a bundle folder; its parts are checked against each other."""
        return cls(Bundle.load(Path(folder)), release)

    def scores(self, histories: Sequence[np.ndarray], thinking: int | None = None) -> Tensor:
        """Scores of every UID: what `Scorer` says, and the weighted likeness of its text.

        Args:
            histories: B sequences of UIDs, oldest first, none empty.
            thinking: SID levels that join; None means all.

        Returns:
            [B, N + 1] float32; column 0 is padding and -inf. Nothing else is masked.
        """
        with torch.inference_mode():
            states = self._states(histories)
            return self._all(states, histories, self.levels if thinking is None else thinking)

    def answer(self, body: Any) -> dict[str, Any]:
        """Answer one request (DESIGN: serving request).

        Raises:
            RequestError: the body is wrong; the message says how.
        """
        request = parse(body, self.levels)
        known = self._uids(request.history)
        answer: dict[str, Any] = {"release": self.release, "codebook": self.codebook}
        items = self._ranked(request, np.array(known)) if known else self._popular(request)
        skipped = [item for item in request.history if item not in self.catalogue.uids]
        answer |= {"items": items, "skipped": skipped, "fallback": None if known else "popular"}
        if request.candidates is not None:
            offered = self.catalogue.offered
            answer["skipped_candidates"] = [item for item in request.candidates if item not in offered]
        return answer

    def _states(self, histories: Sequence[np.ndarray]) -> Tensor:
        return self.model.last_state(pad(histories, self.model.config.history))

    def _all(self, states: Tensor, histories: Sequence[np.ndarray], thinking: int) -> Tensor:
        """Scores of every UID after B histories: [B, N + 1]."""
        scores = self._scorer.scores(states, thinking)
        if self._likeness is None:
            return scores
        return scores + self.bundle.likeness_scale * self._likeness.of(histories)

    def _some(self, states: Tensor, histories: Sequence[np.ndarray], uids: Tensor, thinking: int) -> Tensor:
        """Scores of some UIDs [C] after B histories, but for one number a history: [B, C]."""
        scores = self._scorer.some(states, thinking, uids)
        if self._likeness is None:
            return scores
        return scores + self.bundle.likeness_scale * self._likeness.some(histories, uids)

    def _ranked(self, request: Request, history: np.ndarray) -> list[dict[str, Any]]:
        with torch.inference_mode():
            states = self._states([history])
            thinking = self.levels if request.thinking is None else request.thinking
            scores = self._all(states, [history], thinking)[0]
            scores[torch.from_numpy(self._masked(request, history))] = -torch.inf
            top = torch.topk(scores, min(request.k + MARGIN, len(scores)))
            found = [
                (round(value, DECIMALS), uid) for value, uid in zip(*map(Tensor.tolist, top), strict=True)
            ]
            found = sorted(
                (pair for pair in found if pair[0] > -np.inf), key=lambda pair: (-pair[0], pair[1])
            )
            chosen = found[: request.k]
            items = [self._item(uid, score) for score, uid in chosen]
            if request.explain:
                score = partial(self._some, thinking=thinking)
                reasons = self._explainer.explain(states, history, [uid for _, uid in chosen], score)
                items = [{**item, **reason} for item, reason in zip(items, reasons, strict=True)]
        return items

    def _popular(self, request: Request) -> list[dict[str, Any]]:
        masked = self._masked(request, np.zeros(0, dtype=np.int64))
        named = self._uids(request.candidates or [])  # those that are not popular come last
        order = self.bundle.popular if request.candidates is None else [*self.bundle.popular, *sorted(named)]
        chosen = [uid for uid in dict.fromkeys(order) if not masked[uid]][: request.k]
        said = self._explainer.popular if request.explain else lambda uid: {}
        return [{**self._item(uid, None), **said(uid)} for uid in chosen]

    def _masked(self, request: Request, history: np.ndarray) -> np.ndarray:
        """Which UIDs must not be recommended, [N + 1]; where there are candidates, all others too."""
        mask = np.full(self.catalogue.size + 1, request.candidates is not None)
        mask[self._uids(request.candidates or [])] = False
        mask[[*self.catalogue.barred, *history.tolist(), *self._uids(request.exclude)]] = True
        return mask

    def _uids(self, items: Sequence[str]) -> list[int]:
        return [self.catalogue.uids[item] for item in items if item in self.catalogue.uids]

    def _item(self, uid: int, score: float | None) -> dict[str, Any]:
        return {
            "item_id": self.catalogue.item_ids[uid - 1],
            "title": self.catalogue.titles[uid - 1],
            "score": score,
        }
