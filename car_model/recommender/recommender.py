"""The Recommender: the one object that is evaluated *and* served, so the two can't differ.

A request passes six stages, all called from `Recommender.recommend_batch`:

    parse -> encode_histories -> score -> mask -> rerank -> explain

Shape letters: B requests, P known items of a history, N items in all, C candidates, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from car_model.action_ranker.data import action_classes
from car_model.action_ranker.rerank import Reranker
from car_model.bundle import Bundle
from car_model.data.histories import kept_positions
from car_model.recommender.ann_index import CandidateIndex
from car_model.recommender.explain import Explainer
from car_model.recommender.history_encoder import HistoryEncoder
from car_model.recommender.near_duplicates import NearDuplicates
from car_model.recommender.request import Request, RequestError, parse
from car_model.recommender.scorer import Scorer, top_of_sum
from car_model.recommender.text_similarity import TextSimilarity

DECIMALS = 4  # of a score in an answer: far above float noise, so equal computation gives equal JSON
MARGIN = 8  # extra items ranked before scores are rounded and ties go to the lower UID
MAX_SCORES = 2**22  # scores held at once: 32 MB
SLACK = 1e-4  # by how much rounding may lift a text similarity above 1


@dataclass(frozen=True, kw_only=True)
class Query:
    """A request with what the stages so far have added to it."""

    request: Request
    history: (
        np.ndarray
    )  # [P] UIDs of the history's items that the catalogue knows, oldest first, as in training
    thinking: int  # SID levels that join the score
    actions: np.ndarray | None  # [P] classes of what was done with these items; None unless ranked by action
    state: Tensor | None = None  # [1, D] after the history; None if no item of it is known
    leave_one_out: Tensor | None = None  # [R, D] after the history without each of its latest items
    scores: Tensor | None = None  # [N + 1] by UID, without text similarity; None if there is an ANN index
    candidates: Tensor | None = None  # [C] UIDs that the ANN index proposes


class RankedItem(NamedTuple):
    """One recommended item."""

    uid: int
    score: float | None = None  # rounded; None for popular items
    liked: float | None = None  # P(the user would like it); None unless ranked by action


class Recommender:
    """Recommends and explains next items from a bundle."""

    def __init__(self, bundle: Bundle, release: str = "unreleased") -> None:
        self.bundle, self.release, self.catalogue = bundle, release, bundle.catalogue
        self.model = bundle.model.eval()
        self.max_history = self.model.config.max_history
        self.n_levels = bundle.codebook.n_levels
        self.codebook_version = bundle.codebook.version  # hashes every array: once, not per answer
        self.encoder = HistoryEncoder(self.model)
        self.scorer = Scorer(self.model, bundle.think_scale, torch.float64)
        self.similarity: TextSimilarity | None = None
        self.ann_index: CandidateIndex | None = None
        if bundle.similarity_scale:
            self.similarity = TextSimilarity.of_catalogue(bundle.catalogue, self.max_history)
        if bundle.ann_candidates:
            texts, scorer = self.similarity.texts if self.similarity else None, self.scorer
            self.ann_index = CandidateIndex(scorer.rows, scorer.bias, texts, bundle.ann_candidates)
        self.near_duplicates: NearDuplicates | None = None
        if bundle.near_duplicate_cosine:
            self.near_duplicates = NearDuplicates(bundle.catalogue, bundle.near_duplicate_cosine)
        self.explainer = Explainer(bundle)

    @classmethod
    def load(cls, folder: Path | str, release: str = "unreleased") -> Recommender:
        """Load a bundle folder; its parts are checked against each other."""
        return cls(Bundle.load(Path(folder)), release)

    def recommend(self, body: Any) -> dict[str, Any]:
        """Answer one request. Raises RequestError, which says what is wrong with the body."""
        [answer] = self.recommend_batch([body])
        if isinstance(answer, RequestError):
            raise answer
        return answer

    def recommend_batch(self, bodies: Sequence[Any]) -> list[dict[str, Any] | RequestError]:
        """Answer requests together, each exactly as if it came alone; a wrong one gets its error."""
        answers: list[Any] = [self._parse(body) for body in bodies]
        valid = [i for i, query in enumerate(answers) if isinstance(query, Query)]
        size = max(1, MAX_SCORES // (self.catalogue.size + 1))
        for start in range(0, len(valid), size):
            batch = valid[start : start + size]
            with torch.inference_mode():
                queries = self._score(self._encode_histories([answers[i] for i in batch]))
                for i, query in zip(batch, queries, strict=True):
                    ranked = self._rerank(query, self._mask(query))
                    answers[i] = self._to_answer(query, ranked, self._explain(query, ranked))
        return answers

    def scores(self, histories: Sequence[np.ndarray], thinking: int | None = None) -> Tensor:
        """Scores [B, N + 1] of every UID: what `Scorer` computes plus the weighted text similarity.

        `histories` are B sequences of UIDs, oldest first, none empty; all SID levels join if `thinking` is
        None. Column 0 is padding and -inf; nothing else is masked.
        """
        histories = [history[kept_positions(history, self.bundle.repeats)] for history in histories]
        with torch.inference_mode():
            states = self.encoder.encode(histories)
            scores = self.scorer.score_all(states, self.n_levels if thinking is None else thinking)
            if self.similarity:
                scores = scores + self.bundle.similarity_scale * self.similarity.to_all(histories)
            return scores.float()

    def _parse(self, body: Any) -> Query | RequestError:
        """Check the body and look up its items; the error is returned, since others of the batch go on."""
        try:
            request = parse(body, self.n_levels, by_action=self.bundle.ranker is not None)
        except RequestError as error:
            return error
        uids, actions = self.catalogue.uids, None
        history = np.array(self._uids(request.history), dtype=np.int64)
        kept = kept_positions(history, self.bundle.repeats)
        if request.rank_by == "action":
            by_item = zip(request.history, request.actions or [None] * len(request.history), strict=True)
            known = [action for item, action in by_item if item in uids]
            values = np.array([np.nan if action is None else action for action in known])
            actions = action_classes(
                values[kept], cast(Reranker, self.bundle.ranker).model.config.liked
            )  # [P]
        return Query(
            request=request,
            history=history[kept],
            thinking=self.n_levels if request.thinking is None else request.thinking,
            actions=actions,
        )

    def _encode_histories(self, queries: list[Query]) -> list[Query]:
        """Add the states after all histories of which an item is known, and those that reasons need."""
        queries, known = list(queries), [i for i, query in enumerate(queries) if len(query.history)]
        if known:
            states = self.encoder.encode([queries[i].history for i in known])
            for i, state in zip(known, states, strict=True):
                queries[i] = replace(queries[i], state=state[None])
        explained = [i for i in known if queries[i].request.explain]
        shortened = self.encoder.encode_leave_one_out([queries[i].history for i in explained])
        for i, leave_one_out in zip(explained, shortened, strict=True):
            queries[i] = replace(queries[i], leave_one_out=leave_one_out)
        return queries

    def _score(self, queries: list[Query]) -> list[Query]:
        """Add scores of all items, or the ANN index's candidates, to queries with a state."""
        queries, known = list(queries), [i for i, query in enumerate(queries) if query.state is not None]
        if not known:
            return queries
        states = torch.cat([cast(Tensor, queries[i].state) for i in known])  # [B, D]
        if self.ann_index:
            histories = [queries[i].history for i in known]
            candidates = self.ann_index.candidates(states, histories, self.max_history)
            for i, uids in zip(known, candidates, strict=True):
                queries[i] = replace(queries[i], candidates=uids)
        else:
            scores = self.scorer.score_all(states, [queries[i].thinking for i in known])
            for i, row in zip(known, scores, strict=True):
                queries[i] = replace(queries[i], scores=row)
        return queries

    def _mask(self, query: Query) -> np.ndarray:
        """Which UIDs must not be recommended: bool [N + 1]; if candidates are given, all others too."""
        named = query.request.candidates
        mask = np.full(self.catalogue.size + 1, named is not None)
        mask[self._uids(named or [])] = False
        excluded = self._uids(query.request.exclude)
        mask[[*self.catalogue.barred, *query.history.tolist(), *excluded]] = True
        return mask

    def _rerank(self, query: Query, mask: np.ndarray) -> list[RankedItem]:
        """The k best items that are not masked, near-duplicates skipped if the release does so.

        By relevance; by relevance and P(liked) if ranked by action; by popularity if the history is unknown.
        Candidates that the request names are all ranked.
        """
        k, count = query.request.k, query.request.k + MARGIN
        while True:
            best = self._best(query, mask, count)
            duplicates = self.near_duplicates if query.request.candidates is None else None
            if duplicates is None:
                return best[:k]
            keep = duplicates.distinct(
                torch.tensor([item.uid for item in best], dtype=torch.long), query.history
            )
            distinct = [item for item, is_kept in zip(best, keep, strict=True) if is_kept]
            if len(distinct) >= k or len(best) < count:  # enough, or there are no more
                return distinct[:k]
            count *= 2

    def _best(self, query: Query, mask: np.ndarray, count: int) -> list[RankedItem]:
        """The best items that are not masked, best first: at least `count` if ranked by relevance."""
        if query.state is None:
            order = [*self.bundle.popular, *sorted(self._uids(query.request.candidates or []))]
            return [RankedItem(uid) for uid in dict.fromkeys(order) if not mask[uid]]
        liked: dict[int, float] = {}
        if query.actions is None:
            values, uids = self._most_relevant(query, torch.from_numpy(mask), count)
        else:
            ranker = cast(Reranker, self.bundle.ranker)
            values, uids = self._most_relevant(query, torch.from_numpy(mask), ranker.candidates)
            values, liked = ranker.rerank(values, uids, query.history, query.actions)
        rounded = zip([round(value, DECIMALS) for value in values.tolist()], uids.tolist(), strict=True)
        best = sorted((pair for pair in rounded if pair[0] > -np.inf), key=lambda pair: (-pair[0], pair[1]))
        return [RankedItem(uid, score, round(liked[uid], DECIMALS) if liked else None) for score, uid in best]

    def _most_relevant(self, query: Query, mask: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Scores, text similarity included, and UIDs of the k most relevant items outside mask [N + 1].

        Scores of the ANN index's candidates are normalised over these. If too few of them are left, or the
        request names candidates of its own, all items are scored.
        """
        state, scores = cast(Tensor, query.state), query.scores
        if query.candidates is not None:
            uids = query.candidates[~mask[query.candidates]]
            if query.request.candidates is None and len(uids) >= k:
                scores = self._score_some(state, [query.history], uids, query.thinking)[0].double()
                best = (scores - scores.logsumexp(dim=0)).topk(min(k, len(uids)))
                return best.values, uids[best.indices]
        if scores is None:
            scores = self.scorer.score_all(state, query.thinking)[0]
        scores[mask] = -torch.inf
        similarity, scale = self.similarity, self.bundle.similarity_scale
        if similarity is None:
            best = scores.topk(min(k, len(scores)))
            return best.values, best.indices

        def weighted_similarity(uids: Tensor) -> Tensor:
            return scale * similarity.to_some([query.history], uids)[0]

        return top_of_sum(scores, weighted_similarity, scale * (1 + SLACK), k)

    def _score_some(
        self, states: Tensor, histories: Sequence[np.ndarray], uids: Tensor, thinking: int
    ) -> Tensor:
        """Scores of UIDs [C] after B histories, up to a constant per history: [B, C]."""
        scores = self.scorer.score_some(states, thinking, uids)
        if self.similarity is None:
            return scores
        return scores + self.bundle.similarity_scale * self.similarity.to_some(histories, uids)

    def _explain(self, query: Query, ranked: Sequence[RankedItem]) -> list[dict[str, Any]]:
        """The reasons for each item; empty if none are asked for."""
        uids = [item.uid for item in ranked]
        if not query.request.explain:
            return [{} for _ in uids]
        if query.state is None or query.leave_one_out is None:
            return [self.explainer.explain_popular(uid) for uid in uids]
        score = partial(self._score_some, thinking=query.thinking)
        return self.explainer.explain(query.state, query.leave_one_out, query.history, uids, score)

    def _to_answer(
        self, query: Query, ranked: Sequence[RankedItem], reasons: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        """The answer's JSON object."""
        catalogue, offered = self.catalogue, self.catalogue.offered
        answer: dict[str, Any] = {
            "release": self.release,
            "codebook": self.codebook_version,
            "items": [
                {
                    "item_id": catalogue.item_ids[item.uid - 1],
                    "title": catalogue.titles[item.uid - 1],
                    "score": item.score,
                    **({} if item.liked is None else {"liked": item.liked}),
                    **explanation,
                }
                for item, explanation in zip(ranked, reasons, strict=True)
            ],
            "skipped": [item for item in query.request.history if item not in catalogue.uids],
            "fallback": "popular" if query.state is None else None,
        }
        if (candidates := query.request.candidates) is not None:
            answer["skipped_candidates"] = [item for item in candidates if item not in offered]
        return answer

    def _uids(self, items: Sequence[str]) -> list[int]:
        """UIDs of the items that the catalogue knows."""
        return [self.catalogue.uids[item] for item in items if item in self.catalogue.uids]
