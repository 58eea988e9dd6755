"""The metrics of the ASGI shell: those of every shell, and what TorchServe's front end counts by itself."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from functools import cache

from prometheus_client import CONTENT_TYPE_LATEST, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from serving.metrics.counters import BUCKETS, SHORT, Metrics

UNAVAILABLE = 503


class AsgiMetrics(Metrics):
    """The counters of a process that answers HTTP itself."""

    def __init__(self) -> None:
        super().__init__()
        self.response = Histogram(
            "car_response_duration_seconds",
            "From a body's last byte to its answer, with the wait in the queue.",
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.under_way = Gauge(
            "car_requests_in_progress", "Bodies that wait or are answered now.", registry=self.registry
        )
        ProcessCollector(registry=self.registry)

    def refused(self, status: int, release: str) -> None:
        """Count a body that the recommender never saw."""
        self.requests.labels(str(status), release[:SHORT]).inc()

    async def measured(self, answer: Awaitable[Response], release: str) -> Response:
        """Await the answer to a body and measure how long that took; a full queue's refusal only counts."""
        started = time.perf_counter()
        with self.under_way.track_inprogress():
            found = await answer
        if found.status_code == UNAVAILABLE:
            self.refused(UNAVAILABLE, release)
        else:
            self.response.observe(time.perf_counter() - started)
        return found

    def show(self, request: Request) -> Response:
        """GET /metrics; no coroutine, so Starlette runs it in a thread and answering goes on."""
        return Response(generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


@cache
def process_metrics() -> AsgiMetrics:
    """This process's: a pod changes its release, and its counters go on."""
    return AsgiMetrics()
