"""The second shell: an ASGI app around the very functions that TorchServe's handler calls.

It answers every body with the bytes that TorchServe answers (a test holds both to it), so leaving TorchServe
means starting another process and nothing else. One thread runs the model and takes what waits
together; requests beyond the queue get 503.
"""

from __future__ import annotations

import json
import logging
import tempfile
import zipfile
from pathlib import Path

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from car_model.recommender.recommender import Recommender
from serving.answering.answer import OK
from serving.answering.openapi import PATH, document
from serving.answering.request_body import MAX_BODY_BYTES
from serving.archive import load as unpacked
from serving.archive.build import BUNDLE, HEADER, ArchiveError, read_archive
from serving.asgi.batching import Batcher, FullError
from serving.asgi.metrics_exporter import AsgiMetrics, process_metrics
from serving.metrics.observer import InstrumentedResponder
from serving.torchserve.config import LOOPBACK

MAX_READ_BYTES = 4 * MAX_BODY_BYTES  # as TorchServe's max_request_size: beyond it nothing is read
BAD_REQUEST, TOO_LARGE, UNAVAILABLE = 400, 413, 503
RETRY_AFTER = "1"  # seconds, for those whom a full queue refuses
QUEUE = 100  # requests that wait, as TorchServe's job_queue_size
BATCH = 8  # requests that are answered together, as TorchServe's batchSize
HEALTH = b'{"history": [], "k": 1}'


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
        routes = [
            Route(PATH, self.predict, methods=["POST"]),
            Route("/ping", self.ping),
            Route("/openapi.json", self.describe),
            Route("/metrics", self.metrics.show),
        ]
        return Starlette(routes=routes)

    async def predict(self, request: Request) -> Response:
        """Answer a body."""
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_READ_BYTES:
                    self.metrics.refused(TOO_LARGE, self.recommender.release)
                    return _refuse(TOO_LARGE, f"The body has more than {MAX_READ_BYTES} bytes.")
        except ClientDisconnect:
            return _refuse(BAD_REQUEST, "The body ended early.")  # nobody is there to read it
        return await self.metrics.measured(self._answer(bytes(body)), self.recommender.release)

    async def ping(self, request: Request) -> Response:
        """Whether the model answers, not merely the process."""
        answer = await self._answer(HEALTH)
        if answer.status_code != OK:
            return answer
        return _json(OK, json.dumps({"status": "Healthy", "release": self.recommender.release}).encode())

    async def describe(self, request: Request) -> Response:
        """The OpenAPI document."""
        return _json(OK, self.openapi)

    async def _answer(self, body: bytes) -> Response:
        try:
            return _json(*await self.batcher.ask(body))
        except FullError:
            refusal = _refuse(UNAVAILABLE, "Too many requests wait already; ask again.")
            refusal.headers["Retry-After"] = RETRY_AFTER
            return refusal


def load(archive: Path) -> Recommender:
    """The recommender within a model archive.

    Raises:
        ArchiveError: where the file is not one of our archives, is damaged, or does not load.
    """
    read_archive(archive)
    with tempfile.TemporaryDirectory(prefix="car-asgi-") as folder:
        try:
            with zipfile.ZipFile(archive) as opened:
                wanted = [name for name in opened.namelist() if name.startswith((f"{BUNDLE}/", HEADER))]
                opened.extractall(folder, wanted)
            return unpacked.load(Path(folder))
        except Exception as error:  # whatever a part of the bundle says of itself
            raise ArchiveError(f"{archive} does not load: {type(error).__name__}: {error}") from error


def serve(archive: Path, port: int, host: str = LOOPBACK, threads: int = 1) -> None:
    """Serve an archive until the process is told to stop; what is under way then is still answered."""
    torch.set_num_threads(threads)
    app = App(load(archive)).starlette()
    uvicorn.run(app, host=host, port=port, log_level=logging.WARNING, access_log=False, server_header=False)


def _refuse(status: int, sentence: str) -> Response:
    return _json(status, json.dumps({"error": sentence, "status": status}).encode())


def _json(status: int, body: bytes) -> Response:
    return Response(body, status, media_type="application/json")
