"""How far counts have moved from what is expected: the population stability index, less what chance gives.

PSI = sum over bins of (p - q) ln(p / q), the symmetric Kullback-Leibler divergence of two distributions. Its
usual reading: below 0.1 nothing moved, above 0.25 much did (Siddiqi, Credit Risk Scorecards, 2006). Small
samples of many bins look moved where nothing is, so the expected value of that is taken off.
"""

from __future__ import annotations

import numpy as np

from car_model.profile import Profile

PSEUDO = 0.5  # counts added to every bin (Jeffreys), so that an empty one is rare instead of impossible


def shares(counts: np.ndarray) -> np.ndarray:
    """Smoothed shares of counts [..., bins]; each row sums to 1."""
    smooth = counts + PSEUDO
    return np.asarray(smooth / smooth.sum(axis=-1, keepdims=True))


def psi(found: np.ndarray, expected: np.ndarray) -> float:
    """The index between two distributions [bins] without zeros."""
    return float(((found - expected) * np.log(found / expected)).sum())


def beyond_chance(index: float, spread: float, answers: int, reference: int) -> float:
    """An index less its expectation where nothing moved, but at least 0.

    Args:
        spread: expected index times 1 / (1/n + 1/m) between samples of n and m answers.
        answers, reference: n and m.
    """
    return max(0.0, index - spread * (1 / answers + 1 / reference))


def mixed(expected: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The distribution to expect of traffic that thinks as deeply as this one does.

    Args:
        expected: counts [T, bins] by thinking.
        weights: how much of the traffic used each value of thinking, [T].
    """
    return np.asarray(weights / weights.sum() @ shares(expected))


def score_drift(profile: Profile, found: np.ndarray) -> float:
    """Drift of the best items' scores.

    Args:
        found: best items by thinking and bin, [T, S], at least one.
    """
    answers = int(found.sum())
    index = psi(shares(found.sum(axis=0)), mixed(profile.scores, found.sum(axis=1)))
    return beyond_chance(index, found.shape[1] - 1, answers, profile.requests)


def code_drift(profile: Profile, found: np.ndarray, answers: int) -> float:
    """Drift of the first-level codes of what is recommended.

    Args:
        found: recommended items by thinking and code, [T, C], at least one.
        answers: that they come from.
    """
    index = psi(shares(found.sum(axis=0)), mixed(profile.codes, found.sum(axis=1)))
    return beyond_chance(index, profile.code_spread, answers, profile.requests)
