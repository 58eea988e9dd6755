"""The second shell: an ASGI app around the very functions that TorchServe's handler calls.

It answers every body with the bytes that TorchServe answers (a test compares the two), so leaving TorchServe
means starting another process and nothing else. One thread runs the model and answers waiting requests
together; requests that find the queue full get 503.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable
from functools import cache
from http import HTTPStatus
from pathlib import Path

import torch
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, Histogram, ProcessCollector, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from car_model.recommender.recommender import Recommender
from serving.answering.answer import refusal
from serving.answering.openapi import PATH, document
from serving.answering.request_body import MAX_BODY_BYTES
from serving.archive.load import load_archive
from serving.asgi.batching import Batcher, QueueFullError
from serving.metrics.counters import BUCKETS, SHORT, Metrics
from serving.metrics.observer import InstrumentedResponder
from serving.torchserve.config import LOOPBACK

MAX_READ_BYTES = 4 * MAX_BODY_BYTES  # of a body, as TorchServe's max_request_size
RETRY_AFTER = "1"  # seconds, in the refusal of a full queue
QUEUE = 100  # requests that may wait, as TorchServe's job_queue_size
BATCH = 8  # requests that are answered together, as TorchServe's batchSize
HEALTH = b'{"history": [], "k": 1}'


class AsgiMetrics(Metrics):
    """The metrics of every shell, and what TorchServe's front end counts by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.response = Histogram(
            "car_response_duration_seconds",
            "Seconds from a body's last byte to its answer, including the wait in the queue.",
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.in_progress = self._gauge(
            "requests_in_progress", "Bodies that wait in the queue or are being answered."
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


class App:
    """Routes of one recommender."""

    def __init__(
        self, recommender: Recommender, queue: int = QUEUE, metrics: AsgiMetrics | None = None
    ) -> None:
        self.recommender = recommender
        self.metrics = metrics or process_metrics()
        self.batcher = Batcher(InstrumentedResponder(recommender, self.metrics, probe=HEALTH), BATCH, queue)
        self.openapi = json.dumps(document()).encode()

    def starlette(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route(PATH, self.predict, methods=["POST"]),
                Route("/ping", self.ping),
                Route("/openapi.json", lambda _: json_response(HTTPStatus.OK, self.openapi)),
                Route("/metrics", self.metrics.show),
            ]
        )

    async def predict(self, request: Request) -> Response:
        """Answer a body."""
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_READ_BYTES:
                    self.metrics.count_refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self.recommender.release)
                    return refuse(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body has more than {MAX_READ_BYTES} bytes."
                    )
        except ClientDisconnect:
            return refuse(HTTPStatus.BAD_REQUEST, "The body ended early.")  # nobody is there to read it
        return await self.metrics.measure(self._answer(bytes(body)), self.recommender.release)

    async def ping(self, request: Request) -> Response:
        """Whether the model answers, not merely the process."""
        answer = await self._answer(HEALTH)
        if answer.status_code != HTTPStatus.OK:
            return answer
        status = {"status": "Healthy", "release": self.recommender.release}
        return json_response(HTTPStatus.OK, json.dumps(status).encode())

    async def _answer(self, body: bytes) -> Response:
        try:
            return json_response(*await self.batcher.submit(body))
        except QueueFullError:
            response = refuse(HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests wait already; ask again.")
            response.headers["Retry-After"] = RETRY_AFTER
            return response


def json_response(status: int, body: bytes) -> Response:
    """A response whose body is JSON."""
    return Response(body, status, media_type="application/json")


def refuse(status: int, sentence: str) -> Response:
    """A response that refuses a request."""
    return json_response(*refusal(status, sentence))


def serve_archive(archive: Path, port: int, host: str = LOOPBACK, threads: int = 1) -> None:
    """Serve an archive until the process is told to stop; requests in progress are then still answered."""
    torch.set_num_threads(threads)
    app = App(load_archive(archive)).starlette()
    uvicorn.run(app, host=host, port=port, log_level=logging.WARNING, access_log=False, server_header=False)
