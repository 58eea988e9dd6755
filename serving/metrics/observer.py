"""Answer bodies as `serving.answering.answer` does, and count requests and answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from car_model.metrics.answer_drift import TOP
from car_model.recommender.recommender import Recommender, RequestError
from serving.answering.answer import Reply, respond_all
from serving.metrics.counters import KINDS, SHORT, STATUSES, Metrics

logger = logging.getLogger(__name__)

UNLIKE_PROFILE = ("candidates", "rank_by")  # fields that change what comes first: no sign of drift


class InstrumentedResponder:
    """`respond_all` of one recommender, with metrics. If counting fails, answering goes on."""

    def __init__(self, recommender: Recommender, metrics: Metrics, probe: bytes | None = None) -> None:
        """Count a recommender's answers from now on; health checks with the body `probe` are not counted."""
        self.recommender = recommender
        self.metrics = metrics
        self.probe = probe
        self._window = metrics.use(recommender, time.time())
        self._first_codes = recommender.catalogue.sid_table[:, 0].tolist()  # by UID
        release = recommender.release[:SHORT]
        self._statuses = {status: metrics.requests.labels(str(status), release) for status in STATUSES}
        self._durations = [metrics.duration.labels(str(depth)) for depth in range(recommender.n_levels + 1)]
        self._kinds = {kind: metrics.histories.labels(kind) for kind in KINDS}
        self._failure_logged = False

    def __call__(self, bodies: Sequence[object]) -> list[Reply]:
        """Answer bodies: see `respond_all`."""
        probes = [body for body in bodies if body == self.probe]
        if not probes:
            return self._respond_and_count(bodies)
        to_probes = iter(respond_all(self.recommender, probes))
        to_clients = iter(self._respond_and_count([body for body in bodies if body != self.probe]))
        return [next(to_probes if body == self.probe else to_clients) for body in bodies]

    def _respond_and_count(self, bodies: Sequence[object]) -> list[Reply]:
        exchanges: list[tuple[Any, dict[str, Any] | RequestError]] = []
        started = time.perf_counter()
        replies = respond_all(self.recommender, bodies, lambda *exchange: exchanges.append(exchange))
        seconds = time.perf_counter() - started
        try:
            for status, _ in replies:
                self._statuses[status].inc()
            for request, answer in exchanges:
                if isinstance(answer, RequestError):
                    self.metrics.invalid.inc()
                else:
                    self._count(request, answer, seconds)
        except Exception:
            if not self._failure_logged:
                logger.exception("Requests are answered but can't be counted; this is said once.")
            self._failure_logged = True
        return replies

    def _count(self, request: dict[str, Any], answer: dict[str, Any], seconds: float) -> None:
        metrics = self.metrics
        depth = request.get("thinking")
        thinking = self.recommender.n_levels if depth is None else int(depth)
        self._durations[thinking].observe(seconds)
        length, unknown = len(request["history"]), len(answer["skipped"])
        kind = "empty" if not length else "unknown" if answer["fallback"] else "known"
        self._kinds[kind].inc()
        metrics.items.inc(length)
        if unknown:
            metrics.unknown.inc(unknown)
        uids = self.recommender.catalogue.uids
        top = answer["items"][:TOP]
        codes = [self._first_codes[uids[item["item_id"]]] for item in top]
        metrics.recommended.add(codes)
        comparable = kind == "known" and not any(request.get(field) is not None for field in UNLIKE_PROFILE)
        if self._window and top and comparable:
            self._window.add(thinking, top[0]["score"], codes)
