"""What the think heads expected of recommended items: per level, in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

DECIMALS = 3
EQUAL = 6  # decimals beyond which probabilities are the same to the ranks


def expectations(think: np.ndarray, share: np.ndarray, sids: np.ndarray) -> list[list[dict[str, Any]]]:
    """The item's code against what the model expected, for k items on L levels.

    Args:
        think: [L, K] probability of each code after a history.
        share: [L, K] each code's share of all interactions.
        sids: [k, L] the items' codes.

    Returns:
        per item and level: `level` from 1, `code`, its `probability`, `rank` among all codes and `lift` over
        its share (none: no interaction has it), `expected_code` (the likeliest), `expected_probability`, and
        whether the item's code `agrees` with it.
    """
    rounded, levels = think.round(EQUAL), np.arange(len(think))
    expected = rounded.argmax(axis=1)  # [L]
    usual = share[levels, sids]  # [k, L]
    with np.errstate(divide="ignore", invalid="ignore"):
        lift = (think[levels, sids].astype(float) / usual).round(1).astype(object)
    lift[usual <= 0] = None
    columns = {
        "level": np.broadcast_to(levels + 1, sids.shape),
        "code": sids,
        "probability": think[levels, sids].astype(float).round(DECIMALS),
        "rank": 1 + (rounded > rounded[levels, sids][..., None]).sum(axis=-1),
        "lift": lift,
        "expected_code": np.broadcast_to(expected, sids.shape),
        "expected_probability": np.broadcast_to(
            think[levels, expected].astype(float).round(DECIMALS), sids.shape
        ),
        "agrees": sids == expected,
    }
    values = zip(*(array.tolist() for array in columns.values()), strict=True)  # by item
    return [[dict(zip(columns, one, strict=True)) for one in zip(*item, strict=True)] for item in values]
