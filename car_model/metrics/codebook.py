"""Is a codebook any good? Usage, perplexity, residual, collisions, and whether codes follow behaviour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from car_model.data.catalogue import Catalogue
from car_model.evidence.codebook import Churn, CodebookHealth, Cooccurrence


def codebook_health(
    sids: np.ndarray,
    residual: np.ndarray,
    spread: np.ndarray,
    codebook_size: int,
    cooccurrence: Cooccurrence,
) -> CodebookHealth:
    """Measure a codebook without a parent on the items that it was fit on.

    Args:
        sids: int [N, levels].
        residual: squared error after each level, [N, levels].
        spread: squared distance of each vector from the mean, [N].
    """
    counts = np.stack([np.bincount(level, minlength=codebook_size) for level in sids.T])  # [levels, codes]
    share = counts / counts.sum(axis=1, keepdims=True)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
    perplexity = np.exp(entropy)
    usage = (counts > 0).mean(axis=1)
    return CodebookHealth(
        n_levels=int(sids.shape[1]),
        codebook_size=int(codebook_size),
        items=len(sids),
        usage=tuple(usage.round(6).tolist()),
        usage_min=round(float(usage.min()), 6),
        dead_codes=tuple((counts == 0).sum(axis=1).tolist()),
        perplexity=tuple(perplexity.round(4).tolist()),
        perplexity_min_share=round(float(perplexity.min() / codebook_size), 6),
        residual=tuple((residual.mean(axis=0) / spread.mean()).round(6).tolist()),
        unexplained=unexplained(residual, spread),
        unexplained_new=None,
        cold_items=0,
        unexplained_cold=None,
        collision_rate=round(collision_rate(sids), 6),
        usage_counts=tuple(tuple(level) for level in (-np.sort(-counts, axis=1)).tolist()),
        mode="fit",
        parent=None,
        churn=None,
        cooccurrence=cooccurrence,
    )


def unexplained(residual: np.ndarray, spread: np.ndarray) -> float:
    """Quantisation error: share of the vectors' variance that whole SIDs leave unexplained.

    It may exceed 1 for items that the codebook was not fit on: their SIDs say less than the mean would.
    """
    return round(float(residual[:, -1].sum() / spread.sum()), 6)


def collision_rate(sids: np.ndarray) -> float:
    """Share of items whose whole SID another item has too: sids [N, levels]."""
    _, group, sizes = np.unique(sids, axis=0, return_inverse=True, return_counts=True)
    return float((sizes[group.ravel()] > 1).mean())


def cooccurrence(train: Sequence[np.ndarray], sid_table: np.ndarray) -> Cooccurrence:
    """How far SID prefixes agree with behaviour: do items that follow one another share the first codes?

    Histories hold UIDs, oldest first; the table holds codes by UID, [N + 1, levels].
    """
    n_levels = sid_table.shape[1]
    steps = [np.stack([history[:-1], history[1:]], axis=1) for history in train if len(history) > 1]
    pairs = np.concatenate(steps) if steps else np.zeros((0, 2), dtype=np.int64)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    if not len(pairs):
        return Cooccurrence(agreement=(0.0,) * n_levels, lift=(1.0,) * n_levels)
    agreement, lift = [], []
    for level in range(1, n_levels + 1):
        prefix = np.unique(sid_table[:, :level], axis=0, return_inverse=True)[1].ravel()
        first, second = prefix[pairs].T
        shares = [np.bincount(end, minlength=prefix.max() + 1) / len(pairs) for end in (first, second)]
        chance = float(shares[0] @ shares[1])
        agreement.append(round(float((first == second).mean()), 6))
        lift.append(round(float((first == second).mean()) / chance, 4) if chance else 1.0)
    return Cooccurrence(agreement=tuple(agreement), lift=tuple(lift))


def churn(old: Catalogue, new: Catalogue) -> Churn:
    """What changed for the items that both catalogues offer.

    SIDs with different numbers of levels are compared over the levels that both have; `whole` is then 1.
    """

    def share(flags: np.ndarray) -> float:
        return round(float(flags.mean()), 6) if len(flags) else 0.0

    old_items, new_items = old.offered, new.offered
    common = [item for item in old.item_ids if item in old_items and item in new_items]
    before = old.sids[[old.uids[item] - 1 for item in common]]  # [items, levels]
    after = new.sids[[new.uids[item] - 1 for item in common]]
    levels = min(before.shape[1], after.shape[1])
    changed = before[:, :levels] != after[:, :levels]
    same_levels = before.shape[1] == after.shape[1]
    whole = changed.any(axis=1) if same_levels else np.ones(len(common), dtype=bool)
    return Churn(
        items=len(common),
        by_level=tuple(share(level) for level in changed.T),
        whole=share(whole) if common else None,
        added=len(new_items - old_items),
        retired=len(old_items - new_items),
    )
