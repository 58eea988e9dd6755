"""How far a release's answers have moved from its answer profile: PSI, less what chance alone gives.

The population stability index is the sum over bins of (p - q) ln(p / q), the symmetric Kullback-Leibler
divergence of two distributions. Its usual reading: below 0.1 nothing moved, above 0.25 much did (Siddiqi,
Credit Risk Scorecards, 2006). In small samples over many bins it is above 0 by chance; that expected value is
subtracted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import UserError

FORMAT = 1
FILE = "answer_profile.json"
TOP = 10  # items of an answer that count


class AnswerProfileError(UserError):
    """The profile is damaged or of another format; the message says how."""


@dataclass(frozen=True, kw_only=True)
class AnswerProfile:
    """Counts over the answers to a number of requests, each asked with every value of thinking.

    By chance alone, PSI of the codes between samples of n and m answers is about code_spread * (1/n + 1/m);
    it is measured between halves, since an answer's items are not independent.
    """

    requests: int  # histories that were asked about
    edges: np.ndarray  # float64 [T, S - 1], ascending; score s lies in bin `searchsorted(edges, s, "right")`
    scores: np.ndarray  # int64 [T, S], best items in each bin
    codes: np.ndarray  # int64 [T, C], items that carry each first-level code, `TOP` of every answer
    code_spread: float

    def save(self, path: Path) -> None:
        """Write JSON; equal profiles give equal bytes."""
        value = {
            "format": FORMAT,
            "requests": self.requests,
            "scores": {"edges": self.edges.tolist(), "counts": self.scores.tolist()},
            "codes": self.codes.tolist(),
            "code_spread": self.code_spread,
        }
        path.write_text(json.dumps(value, allow_nan=False) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> AnswerProfile:
        """Read what `save` wrote.

        Raises AnswerProfileError if it is unreadable, of another format, or its tables do not fit each other.
        """
        try:
            value = json.loads(path.read_text("utf-8"))
            if value["format"] != FORMAT:
                raise ValueError(f"format {value['format']!r}, this code reads {FORMAT}")
            profile = cls(
                requests=int(value["requests"]),
                edges=np.array(value["scores"]["edges"], dtype=np.float64),
                scores=np.array(value["scores"]["counts"], dtype=np.int64),
                codes=np.array(value["codes"], dtype=np.int64),
                code_spread=float(value["code_spread"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AnswerProfileError(f"the answer profile {path} can't be read: {error!r}.") from error
        edges, scores, codes = profile.edges, profile.scores, profile.codes
        problem = ""
        if any(table.ndim != 2 or not table.size for table in (edges, scores, codes)):
            problem = "its tables are not [thinking, ...]"
        elif not len(edges) == len(scores) == len(codes) or edges.shape[1] + 1 != scores.shape[1]:
            problem = "its tables differ in size"
        elif not np.isfinite(edges).all() or (np.diff(edges, axis=1) < 0).any():
            problem = "its score edges do not ascend"
        elif (scores < 0).any() or (codes < 0).any() or profile.requests < 1:
            problem = "it holds negative counts"
        elif not np.isfinite(profile.code_spread) or profile.code_spread < 0:
            problem = "its spread is not a number"
        if problem:
            raise AnswerProfileError(f"the answer profile {path} is damaged: {problem}.")
        return profile


PSEUDO = 0.5  # counts added to every bin (Jeffreys), so that an empty one is rare instead of impossible


def shares(counts: np.ndarray) -> np.ndarray:
    """Smoothed shares of counts [..., bins]; each row sums to 1."""
    smooth = counts + PSEUDO
    return np.asarray(smooth / smooth.sum(axis=-1, keepdims=True))


def psi(actual: np.ndarray, expected: np.ndarray) -> float:
    """The index between two distributions [bins] without zeros."""
    return float(((actual - expected) * np.log(actual / expected)).sum())


def beyond_chance(index: float, spread: float, answers: int, reference: int) -> float:
    """An index less its expectation by chance, spread * (1/answers + 1/reference), but at least 0."""
    return max(0.0, index - spread * (1 / answers + 1 / reference))


def mixture(expected: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The distribution to expect from counts [T, bins] if traffic uses values of thinking by weights [T]."""
    return np.asarray(weights / weights.sum() @ shares(expected))


def score_drift(profile: AnswerProfile, counts: np.ndarray) -> float:
    """Drift of the best items' scores: counts by thinking and bin, [T, S], at least one."""
    index = psi(shares(counts.sum(axis=0)), mixture(profile.scores, counts.sum(axis=1)))
    return beyond_chance(index, counts.shape[1] - 1, int(counts.sum()), profile.requests)


def code_drift(profile: AnswerProfile, counts: np.ndarray, answers: int) -> float:
    """Drift of first-level codes: counts by thinking and code, [T, C], at least one, of so many answers."""
    index = psi(shares(counts.sum(axis=0)), mixture(profile.codes, counts.sum(axis=1)))
    return beyond_chance(index, profile.code_spread, answers, profile.requests)
