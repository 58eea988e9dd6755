"""The second shell: an ASGI app around the very functions that TorchServe's handler calls.

It answers every body with the bytes that TorchServe answers (a test compares the two), so leaving TorchServe
means starting another process and nothing else. One thread runs the model and answers waiting requests
together; requests that find the queue full get 503.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import cast

import torch
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, Histogram, ProcessCollector, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from car_model.recommender.recommender import Recommender
from serving.answering.answer import HEALTH, refusal
from serving.answering.openapi import PATH, document
from serving.archive.load import load_archive
from serving.asgi.batching import Batcher, QueueFullError
from serving.asgi.connections import RETRY_AFTER, uvicorn_settings
from serving.metrics.counters import BUCKETS, SHORT, Metrics
from serving.metrics.observer import InstrumentedResponder
from serving.torchserve.config import LOOPBACK, MAX_REQUEST_BYTES

HELD_BYTES = 64 * 2**20  # of all bodies that are being received, or wait for their answer
QUEUE = 100  # requests that may wait, as TorchServe's job_queue_size
BATCH = 8  # requests that are answered together, as TorchServe's batchSize


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
        self.channel_differs = self._gauge(
            "channel_release_differs", "1 while the channel uses another release than the one that answers."
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
        self.openapi = json.dumps(document(recommender)).encode()
        self._held_bytes = 0

    def starlette(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route(PATH, self.predict, methods=["POST"]),
                Route("/ping", self.ping),
                Route("/openapi.json", lambda _: json_response(HTTPStatus.OK, self.openapi)),
                Route("/metrics", self.metrics.show),
            ],
            exception_handlers={HTTPException: refuse_route},
        )

    async def predict(self, request: Request) -> Response:
        """Answer a body."""
        body = bytearray()
        release = self.recommender.release
        try:
            async for chunk in request.stream():
                body += chunk
                self._held_bytes += len(chunk)
                if len(body) > MAX_REQUEST_BYTES:
                    self.metrics.count_refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, release)
                    return refuse(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                        f"The body has more than {MAX_REQUEST_BYTES} bytes.",
                    )
                if self._held_bytes > HELD_BYTES:
                    self.metrics.count_refusal(HTTPStatus.SERVICE_UNAVAILABLE, release)
                    return busy("Too many large requests are on their way; ask again.")
            return await self.metrics.measure(self._answer(bytes(body)), release)
        except ClientDisconnect:
            return refuse(HTTPStatus.BAD_REQUEST, "The body ended early.")  # nobody is there to read it
        finally:
            self._held_bytes -= len(body)

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
            return busy("Too many requests wait already; ask again.")


def json_response(status: int, body: bytes) -> Response:
    """A response whose body is JSON."""
    return Response(body, status, media_type="application/json")


def refuse(status: int, sentence: str) -> Response:
    """A response that refuses a request."""
    return json_response(*refusal(status, sentence))


def refuse_route(request: Request, error: Exception) -> Response:
    """A response to a path that does not exist, or does not take the method."""
    refused = cast(HTTPException, error)
    response = refuse(
        refused.status_code, f"{refused.detail}: /openapi.json has the paths and their methods."
    )
    response.headers.update(refused.headers or {})
    return response


def busy(sentence: str) -> Response:
    """A response that asks to come back later."""
    response = refuse(HTTPStatus.SERVICE_UNAVAILABLE, sentence)
    response.headers["Retry-After"] = RETRY_AFTER
    return response


def serve_archive(archive: Path, port: int, host: str = LOOPBACK, threads: int = 1) -> None:
    """Serve an archive until the process is told to stop; requests in progress are then still answered."""
    torch.set_num_threads(threads)
    uvicorn.run(App(load_archive(archive)).starlette(), host=host, port=port, **uvicorn_settings())
