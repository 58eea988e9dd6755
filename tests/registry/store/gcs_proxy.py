"""A proxy in front of the GCS server that misbehaves on demand, as networks and clouds do."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

Answer = tuple[int, bytes]
Fault = Callable[[str, str, Answer], Answer]  # method, path, the server's answer -> the client's answer
CONDITIONS = {"ifGenerationMatch": "generation", "ifMetagenerationMatch": "metageneration"}


def honest(_method: str, _path: str, answer: Answer) -> Answer:
    """Hand on what the server said."""
    return answer


@contextmanager
def proxy(server_url: str, fault: Fault = honest, strict: bool = False, port: int = 0) -> Iterator[str]:
    """Forward every request to the server, then answer with what `fault` makes of the answer.

    Args:
        strict: answer 412 to a deletion whose preconditions fail, as Cloud Storage does. The server ignores
            them there. (It gives a marked object a new generation, Cloud Storage a new metageneration:
            either way, one of the two no longer fits.)
        port: to listen on; 0 is any free one.
    """
    upstream = urlsplit(server_url).netloc
    one_change = threading.Lock()

    def forward(method: str, path: str, body: bytes, headers: dict[str, str]) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(upstream)
        connection.request(method, path, body, headers)
        return connection.getresponse()

    def precondition_fails(method: str, path: str) -> bool:
        conditions = {
            key: value[0] for key, value in parse_qs(urlsplit(path).query).items() if key in CONDITIONS
        }
        if method != "DELETE" or not conditions:
            return False
        answer = forward("GET", urlsplit(path).path, b"", {})
        state = json.loads(answer.read()) if answer.status == http.HTTPStatus.OK else {}
        return bool(state) and any(str(state[CONDITIONS[key]]) != value for key, value in conditions.items())

    class Handler(BaseHTTPRequestHandler):
        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if not strict or self.command == "GET":
                return self._answer(forward(self.command, self.path, body, dict(self.headers)))
            with one_change:  # condition and change are one step
                if precondition_fails(self.command, self.path):
                    return self.send_error(http.HTTPStatus.PRECONDITION_FAILED)
                return self._answer(forward(self.command, self.path, body, dict(self.headers)))

        def _answer(self, response: http.client.HTTPResponse) -> None:
            status, answer = fault(self.command, self.path, (response.status, response.read()))
            self.send_response(status)
            for name, value in response.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "content-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _forward  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    listener = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}"
    finally:
        listener.shutdown()
        listener.server_close()
