"""What a container on a cluster runs: the ASGI shell behind keys, with probes, one release after another.

TorchServe makes keys of its own for every process, which replicas behind one address can't share. So pods run
the second shell: its keys come from a Secret, and there is no management API that could be called.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Literal

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from car_model.recommender.recommender import Recommender
from serving.answering.answer import respond
from serving.answering.golden import Golden, first_difference
from serving.asgi.api_keys import Keys
from serving.asgi.app import HEALTH, App
from serving.asgi.metrics_exporter import process_metrics
from serving.errors import ServingError

OK, UNAUTHORIZED, NOT_FOUND, UNAVAILABLE = 200, 401, 404, 503
METRICS = "/metrics"
BEAT_SECONDS = 10.0  # how often the model is asked whether it lives
HUNG_SECONDS = 120.0  # without an answer in this time it does not; the longest queue takes far less
DRAIN_SECONDS = 30  # what is under way at SIGTERM is answered; terminationGracePeriodSeconds fits it
WITHOUT_KEY = "Send a valid key in the header 'Authorization: Bearer KEY'."
NO_RELEASE = "No release answers yet; ask again."


class Pod:
    """An ASGI application whose release can be changed under load, with /live and /ready for the kubelet.

    Every request is answered by the release that was used when it came, so no answer mixes two.
    """

    def __init__(self, keys: Keys | None, hung_seconds: float = HUNG_SECONDS) -> None:
        self.keys = keys
        self.hung_seconds = hung_seconds
        self.app: App | None = None
        self._inner: ASGIApp | None = None
        self._heard = time.monotonic()
        routes = [Route("/live", self.live), Route("/ready", self.ready)]
        self._probes = Starlette(routes=routes, lifespan=self._lifespan)

    @property
    def release(self) -> str | None:
        """The release that answers, if one does."""
        return self.app.recommender.release if self.app else None

    def use(self, recommender: Recommender, golden: Golden) -> None:
        """Let a release answer from now on, once it has given every golden answer.

        Raises:
            ServingError: where it gives another answer; whatever answered before still does.
        """
        prove(recommender, golden)
        app = App(recommender)
        self.app, self._inner = app, app.starlette()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: probes for all, the rest for those who show a key."""
        if scope["type"] != "http" or scope["path"] in ("/live", "/ready"):
            await self._probes(scope, receive, send)
            return
        await self._guarded(scope)(scope, receive, send)

    async def live(self, request: Request) -> Response:
        """Whether the process is worth keeping: the model has answered lately, or none is there yet."""
        silent = time.monotonic() - self._heard
        if self.app is None or silent < self.hung_seconds:
            return _json(OK, {"status": "Live"})
        return _refuse(UNAVAILABLE, f"The model has not answered for {silent:.0f} s.")

    async def ready(self, request: Request) -> Response:
        """Whether a release answers; which, only those may know who hold a key."""
        return _json(OK, {"status": "Ready"}) if self.app else _refuse(UNAVAILABLE, NO_RELEASE)

    def metrics(self) -> ASGIApp:
        """An application of its own port that passes /metrics on and nothing else."""

        async def only_metrics(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return
            inner = self._inner if scope["path"] == METRICS else None
            await (inner or _refuse(NOT_FOUND, f"There is only {METRICS} here."))(scope, receive, send)

        return only_metrics

    def _guarded(self, scope: Scope) -> ASGIApp:
        if self.keys and not self.keys.admit(Headers(scope=scope).get("authorization", "")):
            process_metrics().refused(UNAUTHORIZED, self.release or "none")
            refusal = _refuse(UNAUTHORIZED, WITHOUT_KEY)
            refusal.headers["WWW-Authenticate"] = "Bearer"
            return refusal
        if scope["path"] == METRICS:
            return _refuse(NOT_FOUND, "Metrics have a port of their own.")
        return self._inner or _refuse(UNAVAILABLE, NO_RELEASE)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        beat = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            beat.cancel()

    async def _beat(self) -> None:
        """Ask the model now and then, past the limit of the queue: being busy is not being hung."""
        while True:
            if app := self.app:
                await app.batcher.ask(HEALTH, always=True)
            self._heard = time.monotonic()
            await asyncio.sleep(min(BEAT_SECONDS, self.hung_seconds / 4))


def prove(recommender: Recommender, golden: Golden) -> None:
    """Check that a recommender gives every golden answer, value for value, under its own release.

    Raises:
        ServingError: naming the first difference.
    """
    for number, (request, expected) in enumerate(zip(golden.requests, golden.answers, strict=True)):
        _, body = respond(recommender, json.dumps(request).encode())
        if difference := first_difference(expected | {"release": recommender.release}, json.loads(body)):
            raise ServingError(
                f"Release {recommender.release[:12]} is not served: golden request {number}: {difference}."
            )


def serve(pod: Pod, host: str, port: int, metrics: tuple[str, int] | None = None, threads: int = 1) -> None:
    """Listen until told to stop; what is under way then is still answered.

    Args:
        metrics: address of the second listener, if there is one.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    main = uvicorn.Server(_config(pod, host, port))
    beside = _Beside(_config(pod.metrics(), *metrics, lifespan="off")) if metrics else None
    asyncio.run(_both(main, beside))


def _config(app: ASGIApp, host: str, port: int, lifespan: Literal["auto", "off"] = "auto") -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host,
        port,
        lifespan=lifespan,
        log_level=logging.WARNING,
        access_log=False,  # requests say who likes what
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


async def _both(main: uvicorn.Server, beside: uvicorn.Server | None) -> None:
    """The metrics live as long as the server does: signals end the server, the server ends the metrics."""
    second = asyncio.create_task(beside.serve()) if beside else None
    await main.serve()
    if beside and second:
        beside.should_exit = True
        await second


class _Beside(uvicorn.Server):
    """A second listener, which leaves the process's signals to the first."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _refuse(status: int, sentence: str) -> Response:
    return _json(status, {"error": sentence, "status": status})


def _json(status: int, value: dict[str, object]) -> Response:
    return Response(json.dumps(value).encode(), status, media_type="application/json")
