"""The metrics of the ASGI shell: those of every shell, and what TorchServe's front end counts by itself."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from functools import cache
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from serving.metrics.counters import BUCKETS, SHORT, Metrics


class AsgiMetrics(Metrics):
    """The counters of a process that answers HTTP itself."""

    def __init__(self) -> None:
        super().__init__()
        self.response = Histogram(
            "car_response_duration_seconds",
            "Seconds from a body's last byte to its answer, including the wait in the queue.",
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "car_requests_in_progress",
            "Bodies that wait in the queue or are being answered.",
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)

    def count_refusal(self, status: int, release: str) -> None:
        """Count a body that the recommender never saw."""
        self.requests.labels(str(int(status)), release[:SHORT]).inc()

    async def measure(self, answer: Awaitable[Response], release: str) -> Response:
        """Await the answer to a body and record how long that took; a full queue's refusal only counts."""
        started = time.perf_counter()
        with self.in_progress.track_inprogress():
            response = await answer
        if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
            self.count_refusal(HTTPStatus.SERVICE_UNAVAILABLE, release)
        else:
            self.response.observe(time.perf_counter() - started)
        return response

    def show(self, request: Request) -> Response:
        """GET /metrics; not a coroutine, so that Starlette runs it in a thread of its own."""
        return Response(generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


@cache
def process_metrics() -> AsgiMetrics:
    """The metrics of this process; they outlive a change of its release."""
    return AsgiMetrics()
