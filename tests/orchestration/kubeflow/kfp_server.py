"""The API of Kubeflow Pipelines (v2beta1) over HTTP, for tests: it keeps state, and it turns away strangers.

The real server needs a database, an object store and Kubernetes, which a test machine has not. What is sent
must be what the published models hold, field by field; experiments, runs and recurring runs are kept and
listed in pages; a multi-user server wants a namespace and a person who may use it.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api

Tree = dict[str, Any]
API = "/apis/v2beta1/"
KINDS = {
    "experiments": kfp_server_api.V2beta1Experiment,
    "runs": kfp_server_api.V2beta1Run,
    "recurringruns": kfp_server_api.V2beta1RecurringRun,
}
IDS = {"experiments": "experiment_id", "runs": "run_id", "recurringruns": "recurring_run_id"}
LISTS = {"experiments": "experiments", "runs": "runs", "recurringruns": "recurringRuns"}
PAGE = 2  # a small page, so that clients must turn it


class RefusedError(Exception):
    """An answer of 4xx."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Pipelines:
    """What the server holds.

    Attributes:
        people: Authorization or Cookie header -> the namespaces it may use.
        multi_user: whether everything belongs to a namespace.
        log: requests as "METHOD path".
        stories: by a run's id, what is answered about it in turn; the last answer stays.
    """

    people: dict[str, set[str]]
    multi_user: bool = True
    held: dict[str, dict[str, Tree]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    log: list[str] = field(default_factory=list)
    stories: dict[str, list[Tree]] = field(default_factory=dict)
    count: int = 0

    def answer(self, method: str, path: str, headers: Any, body: Tree | None) -> Tree:
        """Answer one request.

        Raises:
            RefusedError: nobody known asks, or asks for what is another's, unknown or malformed.
        """
        parts = urlsplit(path)
        self.log.append(f"{method} {parts.path}")
        allowed = self.people.get(headers.get("authorization") or headers.get("cookie") or "")
        if allowed is None:
            raise RefusedError(401, "Unauthenticated")
        kind, _, name = parts.path.removeprefix(API).partition("/")
        if kind == "healthz":
            return {"multi_user": self.multi_user}
        if kind not in KINDS:
            raise RefusedError(404, f"{path} not found")
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if method == "POST":
            return self._create(kind, body or {}, allowed)
        if method == "DELETE":
            self._permit(self._get(kind, name), allowed)
            return self.held[kind].pop(name)
        return self._get(kind, name) if name else self._list(kind, query, allowed)

    def _create(self, kind: str, body: Tree, allowed: set[str]) -> Tree:
        strangers = body.keys() - set(KINDS[kind].attribute_map.values())
        if strangers:
            raise RefusedError(400, f"unknown field {sorted(strangers)[0]}")
        if kind != "experiments":
            experiment = self._get("experiments", body.get("experiment_id", ""))
            body = {**body, "namespace": experiment.get("namespace", "")}
            if not (body.get("pipeline_spec") or {}).get(
                "root", (body.get("pipeline_spec") or {}).get("pipeline_spec")
            ):
                raise RefusedError(400, "a run needs a pipeline")
        self._permit(body, allowed)
        if kind == "recurringruns":
            fields = body["trigger"]["cron_schedule"]["cron"].split()
            if len(fields) != 6 or not all(re.fullmatch(r"[\d*/,?A-Z-]+", part) for part in fields):
                raise RefusedError(400, "Invalid cron expression")
        self.count += 1
        item = {**body, IDS[kind]: f"{kind}-{self.count}"}
        self.held[kind][item[IDS[kind]]] = item
        return item

    def _list(self, kind: str, query: dict[str, str], allowed: set[str]) -> Tree:
        if self.multi_user and kind == "experiments" and not query.get("namespace"):
            raise RefusedError(400, "a multi-user server needs a namespace")
        if self.multi_user and query.get("namespace"):
            self._permit(query, allowed)
        items = list(self.held[kind].values())
        for name in ("namespace", "experiment_id") if self.multi_user else ("experiment_id",):
            items = [item for item in items if name not in query or item.get(name) == query[name]]
        for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
            items = [item for item in items if item.get(predicate["key"]) == predicate["stringValue"]]
        start = int(query.get("page_token") or 0)
        page = {LISTS[kind]: items[start : start + PAGE], "total_size": len(items)}
        return {**page, "next_page_token": str(start + PAGE)} if start + PAGE < len(items) else page

    def _get(self, kind: str, name: str) -> Tree:
        if story := self.stories.get(name):
            return story.pop(0) if len(story) > 1 else story[0]
        if name not in self.held[kind]:
            raise RefusedError(404, f"{kind} {name} not found")
        return self.held[kind][name]

    def _permit(self, body: Tree, allowed: set[str]) -> None:
        if self.multi_user and body.get("namespace", "") not in allowed:
            raise RefusedError(403, f"you may not use namespace {body.get('namespace', '')}")


@contextmanager
def serving_pipelines(pipelines: Pipelines) -> Iterator[str]:
    """Serve it on this machine; the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = 200, {}
            try:
                content = pipelines.answer(self.command, self.path, self.headers, json.loads(raw or "null"))
            except RefusedError as error:
                status, content = error.status, {"error": str(error), "code": 1, "message": str(error)}
            answer = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_DELETE = do_GET  # noqa: N815 - http.server's own names

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
