"""Churn: how much of a catalogue's meaning moved between two releases."""

from __future__ import annotations

from typing import Any

import numpy as np

from car_model.catalogue import Catalogue


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
