"""Answer bodies and count what was asked and answered: `serving.answering.answer` with its eyes open."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from car_model.metrics.drift import TOP
from car_model.recommender.recommender import Recommender, RequestError
from serving.answering.answer import respond_all
from serving.metrics.counters import KINDS, SHORT, STATUSES, Metrics

logger = logging.getLogger(__name__)

UNLIKE_PROFILE = ("candidates", "rank_by")  # fields that change what comes first: no sign of drift


class InstrumentedResponder:
    """`respond_all` of one recommender, with metrics: counting may fail, answering goes on."""

    def __init__(self, recommender: Recommender, metrics: Metrics, probe: bytes | None = None) -> None:
        """Let a recommender's answers be counted from now on.

        Args:
            probe: body of health checks, which are answered and not counted.
        """
        self.recommender = recommender
        self.metrics = metrics
        self.probe = probe
        self._window = metrics.use(recommender, time.time())
        self._first = recommender.catalogue.sid_table[:, 0].tolist()
        release = recommender.release[:SHORT]
        self._statuses = {status: metrics.requests.labels(str(status), release) for status in STATUSES}
        self._durations = [metrics.duration.labels(str(depth)) for depth in range(recommender.levels + 1)]
        self._kinds = {kind: metrics.histories.labels(kind) for kind in KINDS}
        self._told = False

    def __call__(self, bodies: Sequence[object]) -> list[tuple[int, bytes]]:
        """Answer bodies: see `respond_all`."""
        probes = [body for body in bodies if body == self.probe]
        if not probes:
            return self._watched(bodies)
        ours = iter(respond_all(self.recommender, probes))
        others = iter(self._watched([body for body in bodies if body != self.probe]))
        return [next(ours if body == self.probe else others) for body in bodies]

    def _watched(self, bodies: Sequence[object]) -> list[tuple[int, bytes]]:
        started = time.perf_counter()
        ear = _Ear(self.recommender)
        replies = respond_all(ear, bodies)
        seconds = time.perf_counter() - started
        try:
            for status, _ in replies:
                self._statuses[status].inc()
            for request, answer in ear.heard:
                self._count(request, answer, seconds)
        except Exception:
            if not self._told:
                logger.exception("Requests are answered but can't be counted; this is said once.")
            self._told = True
        return replies

    def _count(self, request: dict[str, Any], answer: dict[str, Any] | RequestError, seconds: float) -> None:
        metrics = self.metrics
        if isinstance(answer, RequestError):
            metrics.invalid.inc()
            return
        asked = request.get("thinking")
        thinking = self.recommender.levels if asked is None else int(asked)
        self._durations[thinking].observe(seconds)
        history, skipped = len(request["history"]), len(answer["skipped"])
        kind = "empty" if not history else "unknown" if answer["fallback"] else "known"
        self._kinds[kind].inc()
        metrics.items.inc(history)
        if skipped:
            metrics.unknown.inc(skipped)
        uids = self.recommender.catalogue.uids
        top = answer["items"][:TOP]
        codes = [self._first[uids[item["item_id"]]] for item in top]
        metrics.recommended.add(codes)
        comparable = kind == "known" and not any(request.get(field) is not None for field in UNLIKE_PROFILE)
        if self._window and top and comparable:
            self._window.add(thinking, top[0]["score"], codes)


class _Ear:
    """A recommender that remembers what it was asked and what it answered."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender
        self.heard: list[tuple[Any, dict[str, Any] | RequestError]] = []

    def answers(self, bodies: Sequence[Any]) -> list[dict[str, Any] | RequestError]:
        found = self._recommender.answers(bodies)
        self.heard += zip(bodies, found, strict=True)
        return found
