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
    ranks = 1 + (rounded > rounded[levels, sids][..., None]).sum(axis=-1)  # [k, L]
    own = (sids, ranks, think[levels, sids], share[levels, sids])
    expected = rounded.argmax(axis=1)  # [L]
    best = list(zip(expected.tolist(), think[levels, expected].tolist(), strict=True))
    return [
        [_level(at, numbers, *best[at]) for at, numbers in enumerate(zip(*item, strict=True))]
        for item in zip(*(array.tolist() for array in own), strict=True)
    ]


def _level(at: int, numbers: tuple[Any, ...], expected: int, highest: float) -> dict[str, Any]:
    code, rank, probability, share = numbers
    return {
        "level": at + 1,
        "code": code,
        "probability": round(probability, DECIMALS),
        "rank": rank,
        "lift": round(probability / share, 1) if share > 0 else None,
        "expected_code": expected,
        "expected_probability": round(highest, DECIMALS),
        "agrees": code == expected,
    }
