"""How well items are found that no training interaction has shown: through their SIDs alone."""

from __future__ import annotations

from typing import Any

from scipy.stats import binomtest

from car_model.evaluation import Holdout, Ranker, holdout_ranks

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
