"""Is a codebook any good? Usage, perplexity, residual, collisions, and whether codes follow behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from car_model.data.catalogue import Catalogue


def codebook_health(sids: np.ndarray, residual: np.ndarray, spread: np.ndarray, codes: int) -> dict[str, Any]:
    """Health of a codebook on the catalogue it encoded.

    Args:
        sids: int [N, levels].
        residual: squared error after each level, [N, levels].
        spread: squared distance of each vector from the mean, [N].
        codes: codes a level.

    Returns:
        `usage`: share of codes used, `perplexity`: exp of the code entropy in codes, `residual`: share of
        the vectors' variance not explained after the level, `usage_counts`: items a code, most used first;
        each a list over levels. `unexplained`: the quantisation error, the residual after the last level.
        `collision_rate`: share of items whose whole SID another item has too.
    """
    counts = np.stack([np.bincount(level, minlength=codes) for level in sids.T])  # [levels, codes]
    share = counts / counts.sum(axis=1, keepdims=True)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
    perplexity = np.exp(entropy)
    usage = (counts > 0).mean(axis=1)
    return {
        "levels": int(sids.shape[1]),
        "codes": int(codes),
        "items": len(sids),
        "usage": usage.round(6).tolist(),
        "usage_min": round(float(usage.min()), 6),
        "dead_codes": (counts == 0).sum(axis=1).tolist(),
        "perplexity": perplexity.round(4).tolist(),
        "perplexity_min_share": round(float(perplexity.min() / codes), 6),
        "residual": (residual.mean(axis=0) / spread.mean()).round(6).tolist(),
        "unexplained": unexplained(residual, spread),
        "collision_rate": round(collision_rate(sids), 6),
        "usage_counts": (-np.sort(-counts, axis=1)).tolist(),
    }


def unexplained(residual: np.ndarray, spread: np.ndarray) -> float:
    """Quantisation error: share of the vectors' variance that whole SIDs leave unexplained; 0 without items.

    Of items that a codebook was not fit on it may exceed 1: their SIDs say less than the mean would.
    """
    return round(float(residual[:, -1].sum() / spread.sum()), 6) if len(residual) else 0.0


def collision_rate(sids: np.ndarray) -> float:
    """Share of items whose whole SID another item has too: sids [N, levels]."""
    _, group, sizes = np.unique(sids, axis=0, return_inverse=True, return_counts=True)
    return float((sizes[group.ravel()] > 1).mean())


def cooccurrence(train: Sequence[np.ndarray], sid_table: np.ndarray) -> dict[str, list[float]]:
    """How far SID prefixes agree with behaviour: do items that follow one another share the first codes?

    Args:
        train: UIDs of each user, oldest first.
        sid_table: codes by UID, [N + 1, levels].

    Returns:
        lists over levels: `agreement`, share of pairs of different items in a row whose codes are equal up
        to the level; `lift`, that over the share among random pairs (1: codes say nothing of behaviour).
    """
    pairs = [np.stack([seq[:-1], seq[1:]], axis=1) for seq in train if len(seq) > 1]
    drawn = np.concatenate(pairs) if pairs else np.zeros((0, 2), dtype=np.int64)
    drawn = drawn[drawn[:, 0] != drawn[:, 1]]
    if not len(drawn):
        return {"agreement": [0.0] * sid_table.shape[1], "lift": [1.0] * sid_table.shape[1]}
    agreement, lift = [], []
    for level in range(1, sid_table.shape[1] + 1):
        prefix = np.unique(sid_table[:, :level], axis=0, return_inverse=True)[1].ravel()
        first, second = prefix[drawn].T
        shares = [np.bincount(end, minlength=prefix.max() + 1) / len(drawn) for end in (first, second)]
        chance = float(shares[0] @ shares[1])
        agreement.append(round(float((first == second).mean()), 6))
        lift.append(round(float((first == second).mean()) / chance, 4) if chance else 1.0)
    return {"agreement": agreement, "lift": lift}


def churn(old: Catalogue, new: Catalogue) -> dict[str, Any]:
    """What changed for the items that both catalogues offer.

    Returns:
        `items`: number of common items; `by_level`: share of them with another code, each level on its own;
        `whole`: share with another SID; `added`, `retired`: items offered by one alone. SIDs of different
        numbers of levels are compared over the levels they share, and `whole` is then 1.
    """
    before, after = old.offered, new.offered
    common = [item for item in old.item_ids if item in before and item in after]
    one = old.sids[[old.uids[item] - 1 for item in common]]
    other = new.sids[[new.uids[item] - 1 for item in common]]
    levels = min(one.shape[1], other.shape[1])
    changed = one[:, :levels] != other[:, :levels]
    whole = changed.any(axis=1) if one.shape[1] == other.shape[1] else np.ones(len(common), dtype=bool)
    return {
        "items": len(common),
        "by_level": [_share(level) for level in changed.T],
        "whole": _share(whole),
        "added": len(after - before),
        "retired": len(before - after),
    }


def _share(flags: np.ndarray) -> float:
    return round(float(flags.mean()), 6) if len(flags) else 0.0
