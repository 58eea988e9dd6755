"""Bounds on what clients may take of an ASGI server: connections, and time to send requests and read answers.

uvicorn bounds the size of headers and how long an idle connection is kept after an answer, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from serving.answering.answer import refusal

MAX_CONNECTIONS = 512  # of the process; below the usual 1,024 open files
REQUEST_SECONDS = 20.0  # for a header, for a body, and for reading an answer
RETRY_AFTER = "1"  # seconds, in the refusal of whatever there is too much of
DRAIN_SECONDS = 30  # for requests in progress at SIGTERM; terminationGracePeriodSeconds is longer


class BoundedProtocol(H11Protocol):
    """One connection. While the client has to go on, it may be closed: at its deadline, or for room."""

    waiting: ClassVar[dict[BoundedProtocol, asyncio.TimerHandle]] = {}
    """Connections whose client has to go on, the longest waiting first, with their deadlines."""
    phase: object = None
    """What the client sends: IDLE is a header, SEND_BODY a body; in all others, the server has to go on."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection; if there are too many, the one goes that has kept us waiting longest."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            crowded = next(iter(self.waiting), self)
            crowded._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections are open; ask again.")
        if not transport.is_closing():
            self._watch()

    def data_received(self, data: bytes) -> None:
        """Read on, unless the connection was refused already."""
        if not self.transport.is_closing():
            super().data_received(data)
            self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of one that was answered before its end."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._forget()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, "This is no valid HTTP/1.1 request with a header below 16 KiB.")

    def _watch(self) -> None:
        """Begin a deadline when the client has to go on, and end it when the server has to."""
        phase = self.conn.their_state
        if phase is self.phase:
            return
        self._forget()
        self.phase = phase
        if phase in (h11.IDLE, h11.SEND_BODY):
            self.waiting[self] = self.loop.call_later(REQUEST_SECONDS, self._expire)

    def _forget(self) -> None:
        if deadline := self.waiting.pop(self, None):
            deadline.cancel()

    def _expire(self) -> None:
        what = "header" if self.phase is h11.IDLE else "body"
        self._refuse(
            HTTPStatus.REQUEST_TIMEOUT, f"The {what} of the request did not end within {REQUEST_SECONDS:g} s."
        )

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        """Answer with a sentence if that is still possible, and close the connection."""
        self._forget()
        if self.transport.get_write_buffer_size() or self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()  # an answer was sent already, and perhaps not read
            return
        _, body = refusal(status, sentence)
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append(("Retry-After", RETRY_AFTER))
        for event in (
            h11.Response(status_code=status, headers=headers, reason=status.phrase.encode()),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event))
        self.transport.close()


def uvicorn_settings() -> dict[str, Any]:
    """What every listener of the product has in common."""
    return {
        "http": BoundedProtocol,
        "ws": "none",
        "log_level": logging.ERROR,  # warnings are about requests: private, and as many as clients like
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_graceful_shutdown": DRAIN_SECONDS,
    }
