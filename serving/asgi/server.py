"""What a container on a cluster runs: the ASGI shell behind keys, with probes, one release after another.

TorchServe makes its own keys for every process, which replicas behind one address cannot share. So pods run
the second shell: its keys come from a Secret, and it has no management API that somebody could call.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from car_model.recommender.recommender import Recommender
from serving.answering.answer import HEALTH, respond
from serving.answering.golden import GoldenRequests, replay
from serving.asgi.api_keys import ApiKeys
from serving.asgi.app import App, json_response, process_metrics, refuse, refuse_route
from serving.asgi.connections import uvicorn_settings
from serving.errors import RequestRefusedError, ServingError

METRICS = "/metrics"
BEAT_SECONDS = 10.0  # between two health checks of the model
HUNG_SECONDS = 120.0  # without an answer the model counts as hung; the longest queue takes far less
NO_RELEASE = "No release answers yet; ask again."


class Pod:
    """An ASGI application whose release can be changed under load, with /live and /ready for the kubelet.

    Every request is answered by the release that was in use when it arrived, so no answer mixes two.

    Attributes:
        app: the release that answers, if there is one.
    """

    def __init__(self, keys: ApiKeys | None, hung_seconds: float = HUNG_SECONDS) -> None:
        self.keys = keys
        self.hung_seconds = hung_seconds
        self.app: App | None = None
        self._release_routes: ASGIApp | None = None
        self._last_answer = time.monotonic()
        routes = [Route("/live", self.live), Route("/ready", self.ready)]
        self._probes = Starlette(
            routes=routes, lifespan=self._lifespan, exception_handlers={HTTPException: refuse_route}
        )

    @property
    def release(self) -> str | None:
        """The digest of the release that answers."""
        return self.app.recommender.release if self.app else None

    def use(self, recommender: Recommender, golden: GoldenRequests) -> None:
        """Let a release answer from now on, once it has given every golden answer.

        Raises ServingError if it gives another answer; the release that answered before still does.
        """

        def predict(request: dict[str, Any]) -> dict[str, Any]:
            status, body = respond(recommender, json.dumps(request).encode())
            answer: dict[str, Any] = json.loads(body)
            if status != HTTPStatus.OK:
                raise RequestRefusedError(status, answer["error"])
            return answer

        report = replay(golden, recommender.release, predict)
        if not report.passed:
            raise ServingError(f"Release {recommender.release[:12]} is not served: {report.sentence()}.")
        app = App(recommender)
        self.app, self._release_routes = app, app.starlette()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: probes are open to all, other paths need a key."""
        if scope["type"] != "http" or scope["path"] in ("/live", "/ready"):
            app: ASGIApp = self._probes
        elif self.keys and not self.keys.accept(Headers(scope=scope).get("authorization", "")):
            process_metrics().count_refusal(HTTPStatus.UNAUTHORIZED, self.release or "none")
            app = refuse(
                HTTPStatus.UNAUTHORIZED, "Send a valid key in the header 'Authorization: Bearer KEY'."
            )
            app.headers["WWW-Authenticate"] = "Bearer"
        elif scope["path"] == METRICS:
            app = refuse(HTTPStatus.NOT_FOUND, "Metrics have a port of their own.")
        else:
            app = self._release_routes or refuse(HTTPStatus.SERVICE_UNAVAILABLE, NO_RELEASE)
        await app(scope, receive, send)

    async def live(self, request: Request) -> Response:
        """Whether the process should be kept: the model has answered lately, or there is none yet."""
        silent = time.monotonic() - self._last_answer
        if self.app is None or silent < self.hung_seconds:
            return json_response(HTTPStatus.OK, b'{"status": "Live"}')
        return refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"The model has not answered for {silent:.0f} s.")

    async def ready(self, request: Request) -> Response:
        """Whether a release answers; its digest is only for callers with a key."""
        if self.app is None:
            return refuse(HTTPStatus.SERVICE_UNAVAILABLE, NO_RELEASE)
        return json_response(HTTPStatus.OK, b'{"status": "Ready"}')

    def metrics(self) -> ASGIApp:
        """The application of the metrics' own port: /metrics and nothing else."""

        async def only_metrics(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return
            app = self._release_routes if scope["path"] == METRICS else None
            await (app or refuse(HTTPStatus.NOT_FOUND, f"There is only {METRICS} here."))(
                scope, receive, send
            )

        return only_metrics

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async def check_health() -> None:
            """Ask the model now and then, even if the queue is full: a busy model is not a hung one."""
            while True:
                if app := self.app:
                    await app.batcher.submit(HEALTH, force=True)
                self._last_answer = time.monotonic()
                await asyncio.sleep(min(BEAT_SECONDS, self.hung_seconds / 4))

        beat = asyncio.create_task(check_health())
        try:
            yield
        finally:
            beat.cancel()


def serve_pod(
    pod: Pod, host: str, port: int, metrics: tuple[str, int] | None = None, threads: int = 1
) -> None:
    """Listen until told to stop; requests in progress are then still answered.

    Requests and probes arrive on `host` and `port`; `metrics` are address and port of the metrics, if any.
    """
    torch.set_num_threads(threads)
    main = uvicorn.Server(uvicorn.Config(pod, host, port, **uvicorn_settings()))

    async def run() -> None:
        """Signals stop the main listener, which stops the second one."""
        if metrics is None:
            await main.serve()
            return
        second = _SecondListener(
            uvicorn.Config(pod.metrics(), *metrics, lifespan="off", **uvicorn_settings())
        )
        task = asyncio.create_task(second.serve())
        await main.serve()
        second.should_exit = True
        await task

    asyncio.run(run())


class _SecondListener(uvicorn.Server):
    """A listener that leaves the process's signals to the first one."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
