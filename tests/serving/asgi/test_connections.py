"""What clients may take of the ASGI server: connections, time and memory, each with a sentence at its end."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
import uvicorn

from car_model.recommender.recommender import Recommender
from serving.answering.answer import HEALTH, respond
from serving.answering.openapi import PATH
from serving.asgi import app as app_module
from serving.asgi import connections
from serving.asgi.app import App, AsgiMetrics
from serving.asgi.connections import BoundedProtocol, uvicorn_settings
from tests.serving.deployment.following import wait_until

MAX_CONNECTIONS = 8
HELD_BYTES = 1000
BODY = b'{"history": ["i1"], "k": 2}'
HEAD = f"POST {PATH} HTTP/1.1\r\nHost: car\r\n"
HALF_BODY = f"{HEAD}Content-Length: 500\r\n\r\n".encode() + b"x" * 400
WHOLE = f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", MAX_CONNECTIONS)
    monkeypatch.setattr(app_module, "HELD_BYTES", HELD_BYTES)


@pytest.fixture
def impatient(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.3)


@pytest.fixture
def port(recommender: Recommender) -> Iterator[int]:
    """A real server in a thread; nothing may be left open in it."""
    application = App(recommender, metrics=AsgiMetrics())
    server = uvicorn.Server(uvicorn.Config(application.starlette(), port=0, **uvicorn_settings()))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield server.servers[0].sockets[0].getsockname()[1]
        wait_until(lambda: not server.server_state.connections)
        wait_until(lambda: application._held_bytes == 0)
        assert BoundedProtocol.waiting == {}
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def held(port: int, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """Connections that have sent something and wait."""
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(count)]
        for client in clients:
            client.settimeout(60)
            client.sendall(sent)
        yield clients


def reply(client: socket.socket) -> tuple[int, dict[str, object]]:
    """Status and JSON of the next response."""
    response = http.client.HTTPResponse(client)
    response.begin()
    return response.status, json.loads(response.read() or "{}")


def last_reply(client: socket.socket) -> tuple[int, dict[str, object]]:
    """The next response, after which the server closes."""
    received = reply(client)
    with suppress(ConnectionResetError):  # what the client sent last was not read any more
        assert client.recv(1) == b""
    return received


def ask(port: int, sent: bytes = WHOLE) -> int:
    """Status of one request."""
    with held(port, 1, sent) as (client,):
        return reply(client)[0]


@pytest.mark.parametrize(
    ("sent", "what"),
    [(b"", "header"), (HEAD.encode(), "header"), (HALF_BODY, "body")],
    ids=["silent", "half a header", "half a body"],
)
@pytest.mark.usefixtures("impatient")
def test_a_request_that_does_not_end_gets_408(port: int, sent: bytes, what: str) -> None:
    with held(port, 2, sent) as clients:
        for client in clients:
            status, answer = last_reply(client)
            assert status == 408
            assert answer == {
                "error": f"The {what} of the request did not end within 0.3 s.", "status": 408
            }  # fmt: skip


@pytest.mark.usefixtures("impatient")
def test_a_second_request_has_its_own_deadline(port: int) -> None:
    with held(port, 1, WHOLE) as (client,):
        assert reply(client)[0] == 200
        client.sendall(HEAD.encode())
        assert last_reply(client)[0] == 408


@pytest.mark.usefixtures("impatient")
def test_an_answer_before_the_body_s_end_does_not_keep_the_connection(port: int) -> None:
    """405 needs no body; what is then sent drop by drop is no reason to wait for more."""
    with held(port, 1, HALF_BODY.replace(b"POST", b"PUT")) as (client,):
        assert client.recv(65536).startswith(b"HTTP/1.1 405")
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            wait_until(lambda: client.send(b"x") == 0)


@pytest.mark.parametrize("sent", [b"", HEAD.encode(), HALF_BODY[:-300]], ids=["silent", "header", "body"])
@pytest.mark.usefixtures("patient")
def test_whoever_kept_the_server_waiting_longest_makes_room(port: int, sent: bytes) -> None:
    with held(port, MAX_CONNECTIONS, sent) as clients:
        assert [ask(port) for _ in range(3)] == [200] * 3
        status, answer = last_reply(clients[0])
        assert (status, answer["error"]) == (503, "Too many connections are open; ask again.")


@pytest.mark.usefixtures("patient")
def test_a_flood_of_connections_leaves_as_many_as_allowed(port: int) -> None:
    with held(port, 20 * MAX_CONNECTIONS, b"") as clients:
        assert ask(port) == 200
        wait_until(lambda: len(BoundedProtocol.waiting) <= MAX_CONNECTIONS)
        assert reply(clients[0])[0] == 503


@pytest.mark.usefixtures("patient")
def test_bodies_take_no_more_memory_than_allowed(port: int, recommender: Recommender) -> None:
    with held(port, 2, HALF_BODY) as clients:
        wait_until(lambda: ask(port, HALF_BODY.replace(b"xxxx", b"yyyy")) == 503)
        assert ask(port) == 200  # a small one still finds room
        for client in clients:
            client.sendall(b"x" * 100)
            assert reply(client)[0] == 400
    assert respond(recommender, HEALTH)[0] == ask(port) == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /ping\r\n\r\n",  # HTTP/0.9
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS
        b"\r\n" * 3 + b"no words\r\n\r\n",
        b"GET /ping HTTP/1.1\r\n\r\n",  # no Host
        b"GET /ping HTTP/1.1\r\nHost: car\r\n" + b"X-A: b\r\n" * 5000,
        b"GET /ping HTTP/1.1\r\nHost: car\r\nX: " + b"y" * 20_000,
        f"{HEAD}Content-Length: -1\r\n\r\n".encode(),
        f"{HEAD}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd".encode(),
        f"{HEAD}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n".encode(),
        f"{HEAD}Transfer-Encoding: gzip\r\n\r\n".encode(),
        f"{HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\n".encode(),
        f"{HEAD}Transfer-Encoding: chunked\r\n\r\n{'f' * 30}\r\n".encode(),
    ],
)
@pytest.mark.usefixtures("patient")
def test_what_is_no_http_is_refused_with_a_sentence(
    port: int, sent: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with held(port, 1, sent) as (client,):
        status, answer = last_reply(client)
    assert status in (400, 501)
    assert answer["error"]
    assert ask(port) == 200
    assert capfd.readouterr() == ("", "")  # strangers write no log


@pytest.mark.usefixtures("patient")
def test_a_packed_body_is_not_unpacked(port: int) -> None:
    bomb = gzip.compress(b" " * 10_000_000 + BODY)[:HELD_BYTES]
    head = f"{HEAD}Content-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    with held(port, 1, head.encode() + bomb) as (client,):
        status, answer = reply(client)
    assert (status, answer["error"]) == (400, "The body is not UTF-8 (byte 1).")


@pytest.mark.usefixtures("patient")
def test_requests_in_a_row_on_one_connection_are_all_answered(port: int) -> None:
    with held(port, 1, WHOLE * 30 + HEAD.encode() + b"Connection: close\r\nContent-Length: 0\r\n\r\n") as (
        client,
    ):
        text = b""
        while chunk := client.recv(65536):
            text += chunk
    assert text.count(b"HTTP/1.1 200 OK") == 30
    assert text.count(b"HTTP/1.1 400") == 1


@pytest.mark.usefixtures("impatient")
def test_answers_that_nobody_reads_are_dropped(port: int) -> None:
    """As many requests as fit, and not one answer read: the connection ends, with all that it holds."""
    with held(port, 1, b"") as (client,):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(1)
        request = WHOLE.replace(BODY, BODY[:-1] + b" " * 9 + b"}").replace(b": 27", b": 36")
        with pytest.raises(OSError, match=r"reset|Broken pipe|timed out"):
            for _ in range(100_000):
                client.sendall(request * 20)
        wait_until(lambda: BoundedProtocol.waiting == {})
