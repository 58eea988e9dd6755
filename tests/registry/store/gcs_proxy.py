"""A proxy in front of the GCS server that misbehaves on demand, as networks and clouds do."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Answer = tuple[int, bytes]
Fault = Callable[[str, str, Answer], Answer]  # method, path, the server's answer -> the client's answer
CONDITIONS = {"ifGenerationMatch": "generation", "ifMetagenerationMatch": "metageneration"}
OBJECT = re.compile(r"/storage/v1/b/([^/]+)/o/([^/]+)")


def honest(_method: str, _path: str, answer: Answer) -> Answer:
    """Hand on what the server said."""
    return answer


@contextmanager
def proxy(server_url: str, fault: Fault = honest, strict: bool = False, port: int = 0) -> Iterator[str]:
    """Forward every request to the server, then answer with what `fault` makes of the answer.

    Args:
        strict: let the server do what Cloud Storage documents. A change of an object's metadata keeps its
            generation, raises its metageneration and sets the time of its update (the server gives it a new
            generation, and no time). A deletion whose preconditions fail gets 412 (the server ignores them).
        port: to listen on; 0 is any free one.
    """
    upstream = urlsplit(server_url).netloc
    one_change = threading.Lock()
    marked: dict[tuple[str, str], tuple[str, dict[str, str]]] = {}  # -> the server's generation, right fields

    def forward(method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[Any, bytes]:
        connection = http.client.HTTPConnection(upstream)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response, response.read()

    def correct(state: dict[str, Any], bucket: str) -> dict[str, Any]:
        """An object's state as Cloud Storage would report it."""
        generation, fields = marked.get((bucket, state.get("name", "")), ("", {}))
        return state | fields if generation == state.get("generation") else state

    def corrected(path: str, answer: bytes) -> bytes:
        bucket = re.match(r"/storage/v1/b/([^/]+)/o", path)
        try:
            content = json.loads(answer)
        except ValueError:
            return answer
        if not bucket or not isinstance(content, dict):
            return answer
        if "items" in content:
            content["items"] = [correct(state, bucket[1]) for state in content["items"]]
        return json.dumps(correct(content, bucket[1])).encode()

    def change(method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[Any, bytes]:
        """Forward a change of an object, as one step with its condition."""
        url = urlsplit(path)
        target = OBJECT.fullmatch(url.path)
        if method not in ("DELETE", "PATCH") or not target:
            return forward(method, path, body, headers)
        response, answer = forward("GET", url.path, b"", {})
        if response.status != http.HTTPStatus.OK:
            return response, answer
        state = correct(json.loads(answer), target[1])
        for condition, field in CONDITIONS.items():
            value = parse_qs(url.query).get(condition)
            if value and value[0] != str(state[field]):
                response.status = http.HTTPStatus.PRECONDITION_FAILED
                return response, b"{}"
        response, answer = forward(method, path, body, headers)
        key = target[1], unquote(target[2])
        if method == "PATCH":
            fields = {
                "generation": state["generation"],
                "metageneration": str(int(state["metageneration"]) + 1),
                "updated": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            }
            marked[key] = json.loads(answer)["generation"], fields
        else:
            marked.pop(key, None)
        return response, answer

    class Handler(BaseHTTPRequestHandler):
        def _forward(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            if len(body) < length:  # the client died
                self.close_connection = True
                return
            request = self.command, self.path, body, dict(self.headers)
            if strict and self.command != "GET":
                with one_change:
                    response, answer = change(*request)
            else:
                response, answer = forward(*request)
            if strict and "alt=media" not in self.path:
                answer = corrected(self.path, answer)
            status, answer = fault(self.command, self.path, (response.status, answer))
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
