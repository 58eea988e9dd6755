"""Challenger, champion and baselines on the same holdout, by the same code.

Full ranking over the catalogue, history masked, leave-one-out. Never sampled negatives, never hits on SIDs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from scipy.stats import binomtest
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
    Latency,
    RecommendedItem,
    Sample,
    Slice,
)
from car_model.evidence.training import RankerSummary, TrainingCurves
from car_model.metrics.ranking import mask_histories, paired, per_user, ranks_of, summary
from car_model.models.baselines import Popularity, SASRec
from car_model.recommender.recommender import Recommender
from common.digests import json_digest
from common.limits import MAX_HISTORY

ROWS = 256  # users scored at once
HEAD_SHARE = 0.2  # the most popular fifth of the items is the head
LATENCY_REQUESTS = 200
COLD_CUTOFFS = (10, 50)


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

    @property
    def digest(self) -> str:
        """Version of the holdout."""
        return json_digest([self.users, self.prompts, self.targets])

    def part(self, rows: Sequence[int]) -> Holdout:
        """The same holdout for some of its users."""
        return replace(
            self,
            users=[self.users[row] for row in rows],
            prompts=[self.prompts[row] for row in rows],
            targets=[self.targets[row] for row in rows],
        )


def holdout_ranks(
    ranker: Ranker, holdout: Holdout, candidates: set[str] | None = None, name: str = ""
) -> np.ndarray:
    """Rank of each user's test item among candidates (None: all on offer), [users]; inf if it has none."""
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
        ranks[batch] = ranks_of(scores, np.array([uids[holdout.targets[row]] for row in batch]))
    return ranks


def evaluate(
    dataset: Dataset,
    challenger: Recommender,
    sasrec: SASRec,
    champion: Recommender | None = None,
    *,
    codebook: CodebookHealth | None = None,
    drift: DataDrift | None = None,
    training: Mapping[str, TrainingCurves] | None = None,
    ranker_summary: RankerSummary | None = None,
    release: str | None = None,
) -> Evaluation:
    """Measure everything that the gate judges.

    If the champion has another catalogue, both are ranked over the items that they share, and compared on the
    users whose test item is among these.

    Args:
        codebook, drift, training: what other steps measured, passed on.
        ranker_summary: what training the action ranker reported.
        release: the release that the challenger's bundle makes.
    """
    limit_threads()
    catalogue = challenger.catalogue
    holdout = Holdout.of(dataset)
    counts = np.array([0, *(holdout.counts.get(item, 0) for item in catalogue.item_ids)])
    rankers: dict[str, Ranker] = {
        "challenger": challenger,
        "popularity": Baseline(catalogue, Popularity(counts), challenger.model.config.max_history),
        "sasrec": Baseline(catalogue, sasrec, sasrec.config.max_history),
    }
    ranks = {name: holdout_ranks(ranker, holdout, name=name) for name, ranker in rankers.items()}
    models = {name: summary(model_ranks) for name, model_ranks in ranks.items()}
    differences = {name: paired(ranks["challenger"], ranks[name]) for name in ("popularity", "sasrec")}
    comparison = ChampionComparison(release=None)
    if champion is not None:
        shared = catalogue.offered & champion.catalogue.offered
        users = np.array([target in shared for target in holdout.targets], dtype=bool)
        ours, theirs = ranks["challenger"], holdout_ranks(champion, holdout, shared, "champion")
        if not shared == catalogue.offered == champion.catalogue.offered:
            ours = holdout_ranks(challenger, holdout, shared, "challenger, shared items")
        models["champion"] = summary(theirs[users])
        differences["champion"] = paired(ours[users], theirs[users])
        comparison = ChampionComparison(
            release=champion.release,
            items=len(shared),
            items_challenger=len(catalogue.offered),
            items_champion=len(champion.catalogue.offered),
            users=int(users.sum()),
            users_share=round(float(users.mean()), 6),
        )
    return Evaluation(
        release=release,
        holdout=HoldoutSummary(
            users=len(holdout.users),
            items=len(catalogue.offered),
            hits=int((ranks["challenger"] <= 10).sum()),
            digest=holdout.digest,
        ),
        models=models,
        paired=differences,
        slices=slices(holdout, ranks),
        champion=comparison,
        latency=latency(challenger, holdout),
        samples=samples(challenger, holdout),
        cold=cold_recall(challenger, holdout),
        action=evaluate_action_ranker(dataset, challenger, ranker_summary),
        codebook=codebook,
        drift=drift,
        training=dict(training or {}),
    )


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


def cold_recall(ranker: Ranker, holdout: Holdout) -> ColdItems:
    """Recall among cold items, for the users whose test item is one.

    Only cold items are ranked: among all items the number would mostly say how many of them are popular.
    """
    cold = {item for item in ranker.catalogue.offered if not holdout.counts.get(item)}
    rows = [row for row, target in enumerate(holdout.targets) if target in cold]
    if not rows:
        return ColdItems(users=0, items=len(cold), shortfall=0.0)
    ranks = holdout_ranks(ranker, holdout.part(rows), cold, "cold items")
    recall = [round(float((ranks <= cutoff).mean()), 6) for cutoff in COLD_CUTOFFS]
    random = [round(min(1.0, cutoff / len(cold)), 6) for cutoff in COLD_CUTOFFS]
    upper = binomtest(int((ranks <= COLD_CUTOFFS[-1]).sum()), len(ranks)).proportion_ci().high
    return ColdItems(
        users=len(rows),
        items=len(cold),
        recall_10=recall[0],
        recall_50=recall[1],
        random_10=random[0],
        random_50=random[1],
        shortfall=round(max(0.0, random[1] - float(upper)), 6),
    )
