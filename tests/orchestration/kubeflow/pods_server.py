"""The part of Kubernetes' API that shows a run's pods, their logs and its workflow, over HTTP, for tests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Tree = dict[str, Any]
ANSWERS = Path(__file__).parent / "answers"
POD_STATUSES: Tree = json.loads((ANSWERS / "pods.json").read_text())
RUNS: Tree = json.loads((ANSWERS / "runs.json").read_text())
FINAL_STATUSES: Tree = json.loads((ANSWERS / "final_statuses.json").read_text())
NAMESPACE = "team"
SUCCEEDED: Tree = {"spec": {"containers": []}, "status": {"phase": "Succeeded"}}
RUNNING: Tree = {"spec": {"containers": []}, "status": {"phase": "Running"}}


def step_pod(run_id: str, step: str, pod: Tree = SUCCEEDED, retry: int = 0, minute: int = 0) -> Tree:
    """A pod of a step's try as KFP names and labels it; `pod` has spec and status."""
    group = "blessed" if step in ("release", "deploy") else "car-on-kubeflow"
    driver = step.endswith("-driver")
    task = f"{step}({retry})" if driver else f"{step}(0).executor({retry})"
    return {
        **pod,
        "metadata": {
            "name": f"{run_id}-{step}-{retry}",
            "creationTimestamp": f"2026-11-30T11:{minute:02}:00Z",
            "labels": {"pipeline/runid": run_id},
            "annotations": {
                "workflows.argoproj.io/node-name": f"{run_id}(0).root(0).exit-handler-1(0).{group}(0).{task}"
            },
        },
    }


@dataclass
class Cluster:
    """What the server holds.

    Attributes:
        logs: what the main container of a pod wrote, by the pod's name.
        terminated: whether a person ended the run.
        status: of every answer; not 200 refuses.
    """

    pods: list[Tree] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    terminated: bool = False
    status: int = 200

    def answer(self, path: str) -> str:
        """The answer to a GET."""
        parts = urlsplit(path)
        words = parts.path.strip("/").split("/")
        if words[-1] == "log":
            return self.logs.get(words[-2], "")
        (selector,) = parse_qs(parts.query)["labelSelector"]
        label, value = selector.split("=")
        if words[-1] == "workflows":
            return json.dumps({"items": [{"spec": {"activeDeadlineSeconds": 0} if self.terminated else {}}]})
        assert words == ["api", "v1", "namespaces", NAMESPACE, "pods"]
        return json.dumps({"items": [pod for pod in self.pods if pod["metadata"]["labels"][label] == value]})


@contextmanager
def serving_cluster(cluster: Cluster, folder: Path) -> Iterator[Path]:
    """Serve it on this machine; a kubeconfig that leads to it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = cluster.answer(self.path).encode() if cluster.status == 200 else b"{}"
            self.send_response(cluster.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kubeconfig = folder / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "test", "user": {"token": "t"}}],
    }
    kubeconfig.write_text(yaml.safe_dump(config))
    try:
        yield kubeconfig
    finally:
        server.shutdown()
        server.server_close()
