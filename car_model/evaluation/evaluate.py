"""Challenger, champion and baselines on the same holdout, by the same code: the gate's evidence.

Full ranking over the catalogue, history masked, leave-one-out. Never sampled negatives, never hits on SIDs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor
from tqdm import tqdm

from car_model.compute import limit_threads
from car_model.data.catalogue import Catalogue
from car_model.data.dataset import Dataset
from car_model.data.histories import MAX_HISTORY, pad
from car_model.metrics.ranking import device_ranks, mask_histories, paired, per_user, summary
from car_model.models.baselines import Popularity, SASRec
from car_model.recommender.recommender import Recommender
from common.digests import json_digest

ROWS = 256
HEAD_SHARE = 0.2  # the most popular fifth of the items is the head
LATENCY_REQUESTS = 200


class Ranker(Protocol):
    """What can be scored: a catalogue, and scores [B, N + 1] of its UIDs after histories of UIDs."""

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
    history: int

    def scores(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Scores [B, N + 1]."""
        with torch.inference_mode():
            return self.model.score(pad(histories, self.history).to(self._device())).clone()

    def _device(self) -> torch.device:
        """Where the model's weights are, if it has any."""
        weights = self.model.parameters() if isinstance(self.model, torch.nn.Module) else iter(())
        return next(weights, torch.empty(0)).device


@dataclass(frozen=True)
class Holdout:
    """Prompts and targets by item id, the same for every model.

    Attributes:
        prompts: what a user did before the test item, oldest first, as much as a request may carry.
        targets: the test item of each user.
        counts: training interactions by item id.
    """

    users: list[str]
    prompts: list[list[str]]
    targets: list[str]
    counts: dict[str, int]

    @classmethod
    def of(cls, dataset: Dataset) -> Holdout:
        """The test split of a dataset: users with a test item and something before it.

        Raises:
            ValueError: there is no such user.
        """
        frame = dataset.interactions.sort_values(["user_id", "position"], kind="stable")
        test = frame[frame["split"] == "test"].set_index("user_id")["item_id"]
        before = frame[frame["split"] != "test"].groupby("user_id", sort=False)["item_id"].agg(list)
        users = [user for user in test.index if user in before.index]
        if not users:
            raise ValueError("no user has a test item and a history before it to evaluate on.")
        counts = frame[frame["split"] == "train"]["item_id"].value_counts()
        return cls(
            users,
            [before[user][-MAX_HISTORY:] for user in users],
            test[users].tolist(),
            {str(item): int(n) for item, n in counts.items()},
        )

    @property
    def digest(self) -> str:
        """Version of the holdout."""
        return json_digest([self.users, self.prompts, self.targets])


def holdout_ranks(
    ranker: Ranker, holdout: Holdout, candidates: set[str] | None = None, name: str = ""
) -> np.ndarray:
    """Rank of each user's test item, [users]; infinity where the model can't rank it.

    Args:
        candidates: items that may be ranked, of those offered; None means all that are offered.
    """
    uids = ranker.catalogue.uids
    wanted = ranker.catalogue.offered if candidates is None else ranker.catalogue.offered & candidates
    barred = [0, *(uid for item, uid in uids.items() if item not in wanted)]
    ranks = np.full(len(holdout.users), np.inf)
    known = [[uids[item] for item in prompt if item in uids] for prompt in holdout.prompts]
    able = [at for at, prompt in enumerate(known) if prompt and holdout.targets[at] in wanted]
    for start in tqdm(range(0, len(able), ROWS), desc=f"score {name}", unit="batch", mininterval=2):
        group = able[start : start + ROWS]
        prompts = [np.array(known[at]) for at in group]
        with torch.inference_mode():
            scores = mask_histories(ranker.scores(prompts), prompts)
            scores[:, barred] = -torch.inf
        ranks[group] = device_ranks(scores, np.array([uids[holdout.targets[at]] for at in group]))
    return ranks


def evaluate(
    dataset: Dataset, challenger: Recommender, sasrec: SASRec, champion: Recommender | None = None
) -> dict[str, Any]:
    """All the gate needs to know (docs/architecture.md: evaluation.json).

    With a champion of another catalogue, both are ranked over the items they share and compared on the
    users whose test item is among them.
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
    compared = {name: paired(ranks["challenger"], ranks[name]) for name in ("popularity", "sasrec")}
    models = {name: summary(found) for name, found in ranks.items()}
    against: dict[str, Any] = {"release": None}
    if champion is not None:
        ours, theirs, against = _champion_ranks(holdout, challenger, champion, ranks["challenger"])
        compared["champion"], models["champion"] = paired(ours, theirs), summary(theirs)
    return {
        "holdout": {
            "split": "test",
            "users": len(holdout.users),
            "items": len(catalogue.offered),
            "digest": holdout.digest,
        },
        "models": models,
        "paired": compared,
        "slices": slices(holdout, ranks),
        "champion": against,
        "latency": latency(challenger, holdout),
        "samples": samples(challenger, holdout),
    }


def _champion_ranks(
    holdout: Holdout, challenger: Recommender, champion: Recommender, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Ranks of both over the items they share, for the users whose test item is shared."""
    common = challenger.catalogue.offered & champion.catalogue.offered
    same = common == challenger.catalogue.offered == champion.catalogue.offered
    ours = own if same else holdout_ranks(challenger, holdout, common, "challenger, shared items")
    theirs = holdout_ranks(champion, holdout, common, "champion")
    users = np.array([target in common for target in holdout.targets], dtype=bool)
    stated = {
        "release": champion.release,
        "items": len(common),
        "items_challenger": len(challenger.catalogue.offered),
        "items_champion": len(champion.catalogue.offered),
        "users": int(users.sum()),
        "users_share": round(float(users.mean()), 6),
    }
    return ours[users], theirs[users], stated


def slices(holdout: Holdout, ranks: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Metrics on parts of the holdout: head, tail and cold items, short and long histories."""
    popularity = np.array([holdout.counts.get(item, 0) for item in holdout.targets])
    every = np.sort(np.array(list(holdout.counts.values())))[::-1]
    bound = every[: max(1, round(HEAD_SHARE * len(every)))][-1] if len(every) else 0
    lengths = np.array([len(prompt) for prompt in holdout.prompts])
    middle = int(np.median(lengths)) if len(lengths) else 0
    parts = {
        f"head items (top {HEAD_SHARE:.0%})": popularity >= max(bound, 1),
        "tail items": (popularity < bound) & (popularity > 0),
        "cold items (never trained on)": popularity == 0,
        f"short histories (up to {middle})": lengths <= middle,
        f"long histories (over {middle})": lengths > middle,
    }
    return {
        name: {
            "users": int(mask.sum()),
            "models": {
                model: {
                    metric: round(float(values.mean()), 6) for metric, values in per_user(found[mask]).items()
                }
                for model, found in ranks.items()
            },
        }
        for name, mask in parts.items()
        if mask.any()
    }


def latency(recommender: Recommender, holdout: Holdout) -> dict[str, float]:
    """Milliseconds of one answer in this process, one request at a time, after a warm-up."""
    prompts = [holdout.prompts[at % len(holdout.prompts)] for at in range(LATENCY_REQUESTS)]
    spent = []
    for prompt in prompts[:20] + prompts:
        start = time.perf_counter()
        recommender.answer({"history": prompt, "k": 10})
        spent.append(1000 * (time.perf_counter() - start))
    p50, p99 = np.percentile(spent[20:], [50, 99])
    return {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}


def samples(recommender: Recommender, holdout: Holdout, users: int = 3) -> list[dict[str, Any]]:
    """A few users' recent history in titles and what the challenger answers, for people to read."""
    titles = dict(zip(recommender.catalogue.item_ids, recommender.catalogue.titles, strict=True))
    step = max(1, len(holdout.users) // users)
    return [
        {
            "user": holdout.users[at],
            "history": [titles[item] for item in holdout.prompts[at][-10:] if item in titles],
            "answer": recommender.answer({"history": holdout.prompts[at], "k": 5}),
        }
        for at in range(0, len(holdout.users), step)[:users]
    ]


CUTOFFS = (10, 50)


def cold_recall(ranker: Ranker, holdout: Holdout) -> dict[str, Any]:
    """Recall among cold items, for the users whose test item is one.

    Only cold items are ranked: among all items the answer would mostly say how many of them are popular.

    Returns:
        `users`, `items`: how many there are; `recall@10`, `recall@50` and what random order would reach
        (`random@10`, ...); `shortfall`: by how much recall@50 is *surely* below random (upper end of its
        exact 95 % interval), 0 where it is not, or nobody's test item is cold.
    """
    cold = {item for item in ranker.catalogue.offered if not holdout.counts.get(item)}
    asked = [at for at, target in enumerate(holdout.targets) if target in cold]
    found: dict[str, Any] = {"users": len(asked), "items": len(cold), "shortfall": 0.0}
    if not asked:
        return found
    part = Holdout(
        [holdout.users[at] for at in asked],
        [holdout.prompts[at] for at in asked],
        [holdout.targets[at] for at in asked],
        holdout.counts,
    )
    ranks = holdout_ranks(ranker, part, cold, "cold items")
    for cutoff in CUTOFFS:
        found[f"recall@{cutoff}"] = round(float((ranks <= cutoff).mean()), 6)
        found[f"random@{cutoff}"] = round(min(1.0, cutoff / len(cold)), 6)
    high = binomtest(int((ranks <= CUTOFFS[-1]).sum()), len(ranks)).proportion_ci().high
    found["shortfall"] = round(max(0.0, found[f"random@{CUTOFFS[-1]}"] - float(high)), 6)
    return found
