"""Drift of the latest answers from the answer profile of the release that gave them."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np

from car_model.metrics.answer_drift import AnswerProfile, code_drift, score_drift

LATEST = 2000  # answers in the window
FEWEST = 200  # answers below which drift is 0: too few to compare


@dataclass(frozen=True)
class WindowDrift:
    """PSI of the best items' scores and of the first-level codes, each less what chance gives."""

    score: float
    code: float
    answers: int


class DriftWindow:
    """Counts of the latest answers; threads may add and read at once."""

    def __init__(self, profile: AnswerProfile, latest: int = LATEST, fewest: int = FEWEST) -> None:
        self.profile = profile
        self.fewest = fewest
        self._latest: deque[tuple[int, int, Sequence[int]]] = deque(maxlen=latest)
        self._edges = profile.edges.tolist()
        self._scores = np.zeros_like(profile.scores).tolist()  # lists: a few numbers change at a time
        self._codes = np.zeros_like(profile.codes).tolist()
        self._lock = Lock()

    def add(self, thinking: int, score: float, codes: Sequence[int]) -> None:
        """Count an answer: its thinking, its best item's score and its items' first-level codes."""
        entry = (thinking, bisect_right(self._edges[thinking], score), codes)
        with self._lock:
            if len(self._latest) == self._latest.maxlen:
                self._count(self._latest[0], -1)
            self._latest.append(entry)
            self._count(entry, 1)

    def read(self) -> WindowDrift:
        """The drift now; 0 while there are too few answers."""
        with self._lock:
            answers = len(self._latest)
            scores, codes = np.array(self._scores), np.array(self._codes)
        if answers < self.fewest:
            return WindowDrift(0.0, 0.0, answers)
        score, code = score_drift(self.profile, scores), code_drift(self.profile, codes, answers)
        return WindowDrift(score, code, answers)

    def _count(self, entry: tuple[int, int, Sequence[int]], step: int) -> None:
        thinking, score, codes = entry
        self._scores[thinking][score] += step
        for code in codes:
            self._codes[thinking][code] += step
