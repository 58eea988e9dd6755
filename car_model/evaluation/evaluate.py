"""Challenger, champion and baselines on the same holdout, by the same code.

Full ranking over the catalogue, history masked, leave-one-out. Never sampled negatives, never hits on SIDs.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from car_model.compute import limit_threads
from car_model.data.catalogue import Catalogue
from car_model.data.dataset import Dataset
from car_model.data.histories import pad
from car_model.evaluation.actions import evaluate_action_ranker
from car_model.evidence.codebook import CodebookHealth
from car_model.evidence.drift import DataDrift
from car_model.evidence.evaluation import (
    ChampionComparison,
    ColdItems,
    Evaluation,
    HoldoutSummary,
    Interval,
    Latency,
    Part,
    RecommendedItem,
    Sample,
    Slice,
)
from car_model.evidence.training import RankerSummary, TrainingCurves
from car_model.metrics.ranking import interval, mask_histories, paired, per_user, ranks_of, summary
from car_model.models.baselines import Popularity, SASRec
from car_model.recommender.near_duplicates import NearDuplicates
from car_model.recommender.recommender import Recommender
from car_model.recommender.text_similarity import TextSimilarity
from car_model.weights import weights_digest
from common.digests import json_digest
from common.limits import MAX_HISTORY

ROWS = 256  # users scored at once
HEAD_SHARE = 0.2  # the most popular fifth of the items is the head
LATENCY_REQUESTS = 200
COLD_CUTOFFS = (10, 50)
NO_RANKER = "the release has no action ranker."


class Ranker(Protocol):
    """What can be evaluated: a catalogue, and scores [B, N + 1] of its UIDs after histories of UIDs."""

    catalogue: Catalogue

    def scores(self, histories: Sequence[np.ndarray]) -> Tensor: ...


class Scorer(Protocol):
    """Scores [B, N + 1] of every UID after right-padded histories [B, T]."""

    def score(self, uids: Tensor) -> Tensor: ...


@dataclass
class Baseline:
    """A model that scores padded UIDs, as a Ranker."""

    catalogue: Catalogue
    model: Scorer
    max_history: int

    def scores(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Scores [B, N + 1]."""
        weights = self.model.parameters() if isinstance(self.model, torch.nn.Module) else iter(())
        device = next(weights, torch.empty(0)).device
        with torch.inference_mode():
            return self.model.score(pad(histories, self.max_history).to(device)).clone()


@dataclass
class NearestText:
    """Ranks by text similarity: alone, or added with a weight to the scores of a ranker."""

    catalogue: Catalogue
    similarity: TextSimilarity
    ranker: Ranker | None = None
    weight: float = 1.0

    def scores(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Scores [B, N + 1]."""
        scores = self.weight * self.similarity.to_all(histories)
        return scores if self.ranker is None else self.ranker.scores(histories) + scores


@dataclass(frozen=True)
class Holdout:
    """Prompts and targets by item id, the same for every model."""

    users: list[str]
    prompts: list[list[str]]  # items before the test item, oldest first, at most as many as in a request
    targets: list[str]  # test items
    counts: dict[str, int]  # training interactions by item id

    @classmethod
    def of(cls, dataset: Dataset) -> Holdout:
        """The test split of a dataset: users with a test item and something before it.

        Raises ValueError if there is no such user.
        """
        frame = dataset.interactions.sort_values(["user_id", "position"], kind="stable")
        test = frame[frame["split"] == "test"].set_index("user_id")["item_id"]
        before = frame[frame["split"] != "test"].groupby("user_id", sort=False)["item_id"].agg(list)
        users = [user for user in test.index if user in before.index]
        if not users:
            raise ValueError("no user has a test item and a history before it to evaluate on.")
        prompts = [before[user][-MAX_HISTORY:] for user in users]
        counts = frame[frame["split"] == "train"]["item_id"].value_counts()
        return cls(users, prompts, test[users].tolist(), {str(item): int(n) for item, n in counts.items()})

    def digest(self, ranked: Collection[str]) -> str:
        """Version of the holdout with the items that are ranked: metrics of equal ones can be compared."""
        return json_digest([self.users, self.prompts, self.targets, sorted(ranked)])

    def part(self, rows: Sequence[int]) -> Holdout:
        """The same holdout for some of its users."""
        return replace(
            self,
            users=[self.users[row] for row in rows],
            prompts=[self.prompts[row] for row in rows],
            targets=[self.targets[row] for row in rows],
        )


def holdout_ranks(
    ranker: Ranker,
    holdout: Holdout,
    candidates: set[str] | None = None,
    name: str = "",
    duplicates: NearDuplicates | None = None,
) -> np.ndarray:
    """Rank of each user's test item among candidates (None: all on offer), [users]; inf if it has none.

    Near-duplicates are skipped as in answers, perhaps the test item too: if given, or if the ranker does.
    """
    if isinstance(ranker, Recommender):
        duplicates = ranker.near_duplicates
    uids = ranker.catalogue.uids
    ranked = ranker.catalogue.offered if candidates is None else ranker.catalogue.offered & candidates
    masked = [0, *(uid for item, uid in uids.items() if item not in ranked)]
    ranks = np.full(len(holdout.users), np.inf)
    prompts = [np.array([uids[item] for item in prompt if item in uids]) for prompt in holdout.prompts]
    rows = [row for row, prompt in enumerate(prompts) if len(prompt) and holdout.targets[row] in ranked]
    for start in tqdm(range(0, len(rows), ROWS), desc=f"score {name}", unit="batch", mininterval=2):
        batch = rows[start : start + ROWS]
        histories = [prompts[row] for row in batch]
        with torch.inference_mode():
            scores = mask_histories(ranker.scores(histories), histories)
            scores[:, masked] = -torch.inf
            if duplicates:
                duplicates.bar(scores, histories)
        ranks[batch] = ranks_of(scores, np.array([uids[holdout.targets[row]] for row in batch]))
    return ranks


def evaluate(
    dataset: Dataset,
    challenger: Recommender,
    sasrec: SASRec,
    champion: Recommender | None = None,
    *,
    sasrec_similarity: float = 0.0,
    codebook: CodebookHealth | None = None,
    drift: DataDrift | None = None,
    training: Mapping[str, TrainingCurves] | None = None,
    ranker_summary: RankerSummary | None = None,
    release: str | None = None,
) -> Evaluation:
    """Measure everything that the gate judges.

    If the champion has another catalogue, both are ranked over the items that they share, and compared on the
    users whose test item is among these. The baseline has what CAR has: the same budget, and text similarity
    in its score.

    Args:
        sasrec_similarity: weight of text similarity in SASRec's score, chosen on validation.
        codebook, drift, training: what other steps measured, passed on.
        ranker_summary: what training the action ranker reported.
        release: the release that the challenger's bundle makes.
    """
    limit_threads()
    catalogue = challenger.catalogue
    holdout = Holdout.of(dataset)
    counts = np.array([0, *(holdout.counts.get(item, 0) for item in catalogue.item_ids)])
    max_history = challenger.model.config.max_history
    rankers: dict[str, Ranker] = {
        "challenger": challenger,
        "sasrec": Baseline(catalogue, sasrec, sasrec.config.max_history),
        "popularity": Baseline(catalogue, Popularity(counts), max_history),
    }
    if similarity := TextSimilarity.of_catalogue(catalogue, max_history):
        rankers["nearest_text"] = NearestText(catalogue, similarity)
    if similarity and sasrec_similarity:
        similarity = TextSimilarity(cast(np.ndarray, catalogue.text_table), sasrec.config.max_history)
        rankers["sasrec"] = NearestText(catalogue, similarity, rankers["sasrec"], sasrec_similarity)
    skipped = challenger.near_duplicates  # by all alike
    ranks = {name: holdout_ranks(ranker, holdout, None, name, skipped) for name, ranker in rankers.items()}
    models = {name: summary(model_ranks) for name, model_ranks in ranks.items()}
    differences = {name: paired(ranks["challenger"], ranks[name]) for name in rankers if name != "challenger"}
    comparison = ChampionComparison(release=None)
    if champion is not None:
        shared = catalogue.offered & champion.catalogue.offered
        users = np.array([target in shared for target in holdout.targets], dtype=bool)
        ours, theirs = ranks["challenger"], holdout_ranks(champion, holdout, shared, "champion")
        if not shared == catalogue.offered == champion.catalogue.offered:
            ours = holdout_ranks(challenger, holdout, shared, "challenger, shared items")
        ours, theirs = ours[users], theirs[users]
        differences["champion"] = paired(ours, theirs)
        comparison = ChampionComparison(
            release=champion.release,
            items=len(shared),
            items_challenger=len(catalogue.offered),
            items_champion=len(champion.catalogue.offered),
            users=int(users.sum()),
            users_share=round(float(users.mean()), 6),
            holdout=holdout.part(np.flatnonzero(users).tolist()).digest(shared),
            models={"challenger": summary(ours), "champion": summary(theirs)},
            same_weights=scored_by(challenger) == scored_by(champion),
            same_ranks=bool(np.array_equal(ours, theirs)),
        )
    cold = cold_items(challenger, holdout, ranks)
    return Evaluation(
        release=release,
        holdout=HoldoutSummary(
            users=len(holdout.users),
            items=len(catalogue.offered),
            hits=int((ranks["challenger"] <= 10).sum()),
            digest=holdout.digest(catalogue.offered),
        ),
        models=models,
        paired=differences,
        similarity={"challenger": challenger.bundle.similarity_scale, "sasrec": sasrec_similarity},
        slices=slices(holdout, ranks),
        champion=comparison,
        latency=latency(challenger, holdout),
        samples=samples(challenger, holdout),
        cold=cold,
        action=evaluate_action_ranker(dataset, challenger),
        codebook=codebook,
        drift=drift,
        training=dict(training or {}),
        not_measured=nothing_to_measure(challenger, cold, codebook, drift, ranker_summary),
    )


def scored_by(recommender: Recommender) -> tuple[str, float, float]:
    """Version of a recommender's weights, and those of the parts of its score."""
    bundle = recommender.bundle
    return weights_digest(recommender.model), bundle.think_scale, bundle.similarity_scale


def nothing_to_measure(
    challenger: Recommender,
    cold: ColdItems | None,
    codebook: CodebookHealth | None,
    drift: DataDrift | None,
    ranker_summary: RankerSummary | None,
) -> dict[Part, str]:
    """Parts of the evidence that there is nothing to measure for, and why."""
    reasons: dict[Part, str] = {}
    if challenger.bundle.ranker is None:
        reasons["action"] = (ranker_summary.why if ranker_summary else "") or NO_RANKER
    if cold is None:
        reasons["cold"] = "no user's test item is one that was never trained on."
    if challenger.catalogue.text is None:
        reasons["models.nearest_text"] = reasons["paired.nearest_text"] = "the catalogue has no texts."
    if codebook and codebook.unexplained_cold is None:
        reasons["codebook.unexplained_cold"] = "every item has training interactions."
    if codebook and codebook.parent and codebook.unexplained_new is None:
        reasons["codebook.unexplained_new"] = "production has every item of this catalogue."
    if codebook and (churn := codebook.churn):
        if churn.whole is None:
            reasons["codebook.churn.whole"] = "production and this catalogue share no item."
        if churn.unasked is None:
            asked = "a new codebook was asked for (mode fit)." if codebook.mode == "fit" else ""
            reasons["codebook.churn.unasked"] = asked or reasons["codebook.churn.whole"]
    if drift and drift.action and drift.action.before is None:
        reasons["drift.action.shift"] = "production's interactions have no actions."
    if drift and drift.newest and drift.newest.before is None:
        reasons["drift.newest.days_back"] = "production's interactions have no timestamps."
    return reasons


def slices(holdout: Holdout, ranks: Mapping[str, np.ndarray]) -> dict[str, Slice]:
    """Metrics on parts of the holdout: head, tail and cold items, short and long histories."""
    popularity = np.array([holdout.counts.get(item, 0) for item in holdout.targets])
    counts = np.sort(np.array(list(holdout.counts.values())))[::-1]
    head = max(counts[: max(1, round(HEAD_SHARE * len(counts)))][-1], 1) if len(counts) else 1
    lengths = np.array([len(prompt) for prompt in holdout.prompts])
    median = int(np.median(lengths)) if len(lengths) else 0
    parts = {
        f"head items (top {HEAD_SHARE:.0%})": popularity >= head,
        "tail items": (popularity < head) & (popularity > 0),
        "cold items (never trained on)": popularity == 0,
        f"short histories (up to {median})": lengths <= median,
        f"long histories (over {median})": lengths > median,
    }
    result = {}
    for name, users in parts.items():
        if users.any():
            metrics = {model: per_user(model_ranks[users]) for model, model_ranks in ranks.items()}
            means = {
                model: {metric: round(float(values.mean()), 6) for metric, values in part.items()}
                for model, part in metrics.items()
            }
            result[name] = Slice(users=int(users.sum()), models=means)
    return result


def latency(recommender: Recommender, holdout: Holdout) -> Latency:
    """Time of one answer in this process, one request at a time, after a warm-up."""
    prompts = [holdout.prompts[i % len(holdout.prompts)] for i in range(LATENCY_REQUESTS)]
    times = []  # milliseconds
    for prompt in prompts[:20] + prompts:
        start = time.perf_counter()
        recommender.recommend({"history": prompt, "k": 10})
        times.append(1000 * (time.perf_counter() - start))
    p50, p99 = np.percentile(times[20:], [50, 99])
    return Latency(p50_ms=round(float(p50), 3), p99_ms=round(float(p99), 3))


def samples(recommender: Recommender, holdout: Holdout, users: int = 3) -> tuple[Sample, ...]:
    """What the challenger recommends to a few users, evenly spread, for people to read."""
    titles = dict(zip(recommender.catalogue.item_ids, recommender.catalogue.titles, strict=True))
    step = max(1, len(holdout.users) // users)
    result = []
    for row in range(0, len(holdout.users), step)[:users]:
        answer = recommender.recommend({"history": holdout.prompts[row], "k": 5})
        fields = ("item_id", "title", "score")
        items = tuple(
            RecommendedItem(**{f: item[f] for f in fields}, reasons=tuple(item.get("reasons", ())))
            for item in answer["items"]
        )
        history = tuple(titles[item] for item in holdout.prompts[row][-10:] if item in titles)
        user = holdout.users[row]
        result.append(Sample(user=user, history=history, items=items, fallback=answer["fallback"]))
    return tuple(result)


def cold_items(challenger: Ranker, holdout: Holdout, ranks: Mapping[str, np.ndarray]) -> ColdItems | None:
    """How the challenger ranks cold items, among each other and among all; None if no test item is cold.

    Among all items, cold ones compete with popular ones; among each other, their order alone counts.

    Args:
        ranks: of each model, among all items, [users].
    """
    cold = {item for item in challenger.catalogue.offered if not holdout.counts.get(item)}
    rows = [row for row, target in enumerate(holdout.targets) if target in cold]
    if not rows:
        return None
    part = holdout.part(rows)
    among = holdout_ranks(challenger, part, cold, "cold items")
    others = np.array([len(cold.difference(prompt)) - 1 for prompt in part.prompts])
    shares = np.clip((others + 1 - among) / np.maximum(others, 1), 0.0, 1.0)[others > 0]
    low, high = interval(shares)
    ahead = (float(shares.mean()), low, high) if len(shares) else (None, None, None)
    recall = [round(float((among <= cutoff).mean()), 6) for cutoff in COLD_CUTOFFS]
    random = [round(min(1.0, cutoff / len(cold)), 6) for cutoff in COLD_CUTOFFS]
    found = {name: model_ranks[rows] for name, model_ranks in ranks.items()}
    return ColdItems(
        users=len(rows),
        items=len(cold),
        ahead=Interval(
            **{
                name: None if value is None else round(value, 6)
                for name, value in zip(("mean", "low", "high"), ahead, strict=True)
            }
        ),
        recall_10=recall[0],
        recall_50=recall[1],
        random_10=random[0],
        random_50=random[1],
        models={name: summary(model_ranks) for name, model_ranks in found.items()},
        paired={
            name: paired(found["challenger"], model_ranks)
            for name, model_ranks in found.items()
            if name != "challenger"
        },
    )
