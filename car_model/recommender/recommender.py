"""The Recommender: the one object that is evaluated *and* served, so that there is no skew between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from car_model.action_ranker.data import action_classes
from car_model.action_ranker.rerank import Reranker
from car_model.bundle import Bundle
from car_model.recommender.candidate_index import Shortlist
from car_model.recommender.explain import Explainer
from car_model.recommender.history_states import Reader
from car_model.recommender.request import Request, RequestError, parse
from car_model.recommender.scorer import Scorer, top_of_sum
from car_model.recommender.text_similarity import likeness_of

__all__ = ["Recommender", "RequestError"]

DECIMALS = 4  # of a score in an answer: far above float noise, so equal computation gives equal JSON
MARGIN = 8  # extra candidates kept before scores are rounded and ties go to the lower UID
CELLS = 2**22  # scores of requests that are computed at once: 32 MB
SLACK = 1e-4  # by how much rounding may lift a likeness above 1


@dataclass(frozen=True)
class Asked:
    """A request, the UIDs that are known of its history, and what was read of them.

    Attributes:
        state: [1, D] after the history; none of these where nothing of it is known.
        scores: [N + 1] of every UID, without likeness.
        without: [R, D] after the history without each of its latest items; only where reasons are asked for.
        actions: [P] classes of what was done with the history's items; only where ranked by action.
        near: UIDs [C] that may be among the best, in place of scores where there is a shortlist.
    """

    request: Request
    history: np.ndarray
    state: Tensor | None = None
    scores: Tensor | None = None
    without: Tensor | None = None
    actions: np.ndarray | None = None
    near: Tensor | None = None


class Recommender:
    """Scores and explains next items from a bundle."""

    def __init__(self, bundle: Bundle, release: str = "unreleased") -> None:
        self.bundle = bundle
        self.release = release
        self.catalogue = bundle.catalogue
        self.model = bundle.model.eval()
        self.levels = bundle.codebook.levels
        self.codebook = bundle.codebook.version  # hashes every array: once, not an answer
        self._reader = Reader(self.model)
        self._scorer = Scorer(self.model, bundle.think_scale, torch.float64)
        used = bundle.likeness_scale > 0
        self._likeness = likeness_of(bundle.catalogue, self.model.config.max_history) if used else None
        self._shortlist = self._make_shortlist()
        self._explainer = Explainer(bundle, self._reader.chunks[:, -1])

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
            states = self._reader.states(histories)
            return self._all(states, histories, self.levels if thinking is None else thinking).float()

    def answer(self, body: Any) -> dict[str, Any]:
        """Answer one request (DESIGN: serving request).

        Raises:
            RequestError: the body is wrong; the message says how.
        """
        [found] = self.answers([body])
        if isinstance(found, RequestError):
            raise found
        return found

    def answers(self, bodies: Sequence[Any]) -> list[dict[str, Any] | RequestError]:
        """Answer requests that are read together, each as alone; errors stand in place of answers."""
        at_once = max(1, CELLS // (self.catalogue.size + 1))
        return [
            answer
            for start in range(0, len(bodies), at_once)
            for answer in self._together(bodies[start : start + at_once])
        ]

    def _together(self, bodies: Sequence[Any]) -> list[dict[str, Any] | RequestError]:
        asked = [self._asked(body) for body in bodies]
        with torch.inference_mode():
            read = iter(self._read([one for one in asked if isinstance(one, Asked)]))
            return [one if isinstance(one, RequestError) else self._answer(next(read)) for one in asked]

    def _asked(self, body: Any) -> Asked | RequestError:
        try:
            request = parse(body, self.levels, by_action=self.bundle.ranker is not None)
        except RequestError as error:
            return error
        actions = self._actions(request) if request.rank_by == "action" else None
        return Asked(request, np.array(self._uids(request.history), dtype=np.int64), actions=actions)

    def _read(self, asked: list[Asked]) -> list[Asked]:
        """Read and score the histories of which something is known."""
        known = [at for at, one in enumerate(asked) if len(one.history)]
        if not known:
            return asked
        states = self._reader.states([asked[at].history for at in known])
        explained = [at for at in known if asked[at].request.explain]
        without = dict(
            zip(explained, self._reader.without([asked[at].history for at in explained]), strict=True)
        )
        found, ranked = list(asked), self._scored([asked[at] for at in known], states)
        for at, state, one in zip(known, states, ranked, strict=True):
            found[at] = replace(one, state=state[None], without=without.get(at))
        return found

    def _scored(self, asked: list[Asked], states: Tensor) -> list[Asked]:
        """What ranks the items after states [B, D]: a score of each, or the few that may be the best."""
        if self._shortlist:
            latest = self.model.config.max_history
            near = self._shortlist.of(states, [one.history for one in asked], latest)
            return [replace(one, near=uids) for one, uids in zip(asked, near, strict=True)]
        scores = self._scorer.scores(states, [self._depth(one.request) for one in asked])
        return [replace(one, scores=row) for one, row in zip(asked, scores, strict=True)]

    def _make_shortlist(self) -> Shortlist | None:
        if not self.bundle.shortlist:
            return None
        texts = None if self._likeness is None else self._likeness.texts
        return Shortlist(self._scorer.rows, self._scorer.bias, texts, self.bundle.shortlist)

    def _answer(self, asked: Asked) -> dict[str, Any]:
        request = asked.request
        answer: dict[str, Any] = {"release": self.release, "codebook": self.codebook}
        known = asked.state is not None
        items = self._ranked(asked) if known else self._popular(request)
        skipped = [item for item in request.history if item not in self.catalogue.uids]
        fallback = "popular" if asked.state is None else None
        answer |= {"items": items, "skipped": skipped, "fallback": fallback}
        if request.candidates is not None:
            offered = self.catalogue.offered
            answer["skipped_candidates"] = [item for item in request.candidates if item not in offered]
        return answer

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

    def _ranked(self, asked: Asked) -> list[dict[str, Any]]:
        request, history = asked.request, asked.history
        state = cast(Tensor, asked.state)
        chosen, liked = self._best(asked)
        items = [
            {**self._item(uid, score), **({"liked": round(liked[uid], DECIMALS)} if liked else {})}
            for score, uid in chosen
        ]
        if asked.without is None:
            return items
        score = partial(self._some, thinking=self._depth(request))
        uids = [uid for _, uid in chosen]
        reasons = self._explainer.explain(state, asked.without, history, uids, score)
        return [{**item, **reason} for item, reason in zip(items, reasons, strict=True)]

    def _best(self, asked: Asked) -> tuple[list[tuple[float, int]], dict[int, float]]:
        """Rounded scores and UIDs of the k best; P(liked) by UID where ranked by action."""
        request, history = asked.request, asked.history
        masked = torch.from_numpy(self._masked(request, history))
        liked: dict[int, float] = {}
        if asked.actions is None:
            values, uids = self._top(asked, masked, request.k + MARGIN)
        else:
            ranker = cast(Reranker, self.bundle.ranker)
            values, uids = self._top(asked, masked, ranker.candidates)
            values, liked = ranker.reordered(values, uids, history, asked.actions)
        found = [
            (round(score, DECIMALS), uid) for score, uid in zip(values.tolist(), uids.tolist(), strict=True)
        ]
        found = sorted((pair for pair in found if pair[0] > -np.inf), key=lambda pair: (-pair[0], pair[1]))
        return found[: request.k], liked

    def _top(self, asked: Asked, masked: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The best of what is not masked [N + 1]: values, the weighted likeness within, and UIDs."""
        if asked.near is not None:
            near = asked.near[~masked[asked.near]]
            if asked.request.candidates is None and len(near) >= k:
                return self._top_of(asked, near, k)
        history, likeness, scale = asked.history, self._likeness, self.bundle.likeness_scale
        scores = asked.scores
        if scores is None:  # the shortlist has too few, or candidates are given
            scores = self._scorer.scores(cast(Tensor, asked.state), self._depth(asked.request))[0]
        scores[masked] = -torch.inf
        if likeness is None:
            best = scores.topk(min(k, len(scores)))
            return best.values, best.indices
        return top_of_sum(
            scores, lambda uids: scale * likeness.some([history], uids)[0], scale * (1 + SLACK), k
        )

    def _top_of(self, asked: Asked, uids: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The best of a shortlist [C]: scores are log-probabilities within it."""
        depth = self._depth(asked.request)
        scores = self._some(cast(Tensor, asked.state), [asked.history], uids, depth)[0].double()
        best = (scores - scores.logsumexp(dim=0)).topk(min(k, len(uids)))
        return best.values, uids[best.indices]

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

    def _actions(self, request: Request) -> np.ndarray:
        """Classes of what was done with the history's known items, [P]."""
        given = request.actions or [None] * len(request.history)
        known = [did for item, did in zip(request.history, given, strict=True) if item in self.catalogue.uids]
        values = np.array([np.nan if did is None else did for did in known])
        return action_classes(values, cast(Reranker, self.bundle.ranker).model.config.liked)

    def _depth(self, request: Request) -> int:
        """How many SID levels join."""
        return self.levels if request.thinking is None else request.thinking

    def _uids(self, items: Sequence[str]) -> list[int]:
        return [self.catalogue.uids[item] for item in items if item in self.catalogue.uids]

    def _item(self, uid: int, score: float | None) -> dict[str, Any]:
        return {
            "item_id": self.catalogue.item_ids[uid - 1],
            "title": self.catalogue.titles[uid - 1],
            "score": score,
        }
