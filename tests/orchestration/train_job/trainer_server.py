"""Kubeflow Trainer on one machine, for tests: the HTTP API its client speaks, and what its controller does.

A TrainJob that is created is checked against the models of Kubeflow's own API, and its nodes are started as
processes here, in the environment that the torch plugin gives them. There is no cluster behind it: whether
pods are admitted, scheduled and given their volumes is not tried.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from kubeflow_trainer_api import models

API = "/apis/trainer.kubeflow.org/v1alpha1"
SPACE = "team"
TOKEN = "let-me-in"
Tree = dict[str, Any]
NODE = {"name": "node", "image": "pytorch/pytorch", "command": ["torchrun"]}
RUNTIME: Tree = {  # as Kubeflow installs it, in short
    "apiVersion": "trainer.kubeflow.org/v1alpha1",
    "kind": "ClusterTrainingRuntime",
    "metadata": {"name": "torch-distributed", "labels": {"trainer.kubeflow.org/framework": "torch"}},
    "spec": {
        "mlPolicy": {"numNodes": 1, "torch": {"numProcPerNode": "auto"}},
        "template": {
            "spec": {
                "replicatedJobs": [
                    {
                        "name": "node",
                        "template": {
                            "metadata": {
                                "labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
                            },
                            "spec": {"template": {"spec": {"containers": [NODE]}}},
                        },
                    }
                ]
            }
        },
    },
}


@dataclass
class Job:
    """A TrainJob and the processes of its nodes."""

    body: Tree
    nodes: list[subprocess.Popen] = field(default_factory=list)

    def status(self) -> str:
        """Running, Complete or Failed; one failed node ends the others, as a JobSet does."""
        codes = [node.poll() for node in self.nodes]
        if any(codes):
            self.end()
            return "Failed"
        return "Complete" if codes and all(code == 0 for code in codes) else "Running"

    def end(self) -> None:
        for node in self.nodes:
            node.terminate()
        for node in self.nodes:
            node.wait()


@dataclass
class Trainer:
    """The API's state."""

    logs: Path
    jobs: dict[str, Job] = field(default_factory=dict)
    created: list[Tree] = field(default_factory=list)
    refuse: str = ""  # what to answer a TrainJob with instead
    stuck: Tree | None = None  # pods and events that Kubernetes had for a Job, instead of nodes that run
    refused: dict[str, int] = field(default_factory=dict)  # part of a path -> status of the answer
    log_of_requests: list[str] = field(default_factory=list)

    def create(self, body: Tree) -> Tree:
        checked = models.TrainerV1alpha1TrainJob.from_dict(body)
        assert checked and checked.spec and checked.spec.trainer
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body["metadata"] |= {"namespace": SPACE, "creationTimestamp": now}
        self.created.append(body)
        job = self.jobs[body["metadata"]["name"]] = Job(body)
        trainer, port = body["spec"]["trainer"], free_port()
        python, *words = [*trainer["command"], *trainer["args"]]
        assert python == "python"
        for rank in range(0 if self.stuck else trainer["numNodes"]):
            env = {variable["name"]: variable["value"] for variable in trainer["env"]}
            env |= {"PET_NNODES": str(trainer["numNodes"]), "PET_NODE_RANK": str(rank)}
            env |= {
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": str(port),
                "PET_NPROC_PER_NODE": "auto",
            }
            with self.log(body["metadata"]["name"], rank).open("w") as out:
                job.nodes.append(
                    subprocess.Popen(
                        [sys.executable, *words], env={**os.environ, **env}, stdout=out, stderr=out
                    )
                )
        return body

    def read(self, name: str) -> Tree:
        job = self.jobs[name]
        status = job.status()
        conditions: list[Tree] = []
        if status != "Running":
            when = job.body["metadata"]["creationTimestamp"]
            conditions = [
                {
                    "type": status,
                    "status": "True",
                    "reason": status,
                    "message": "",
                    "lastTransitionTime": when,
                }
            ]
        return {**job.body, "status": {"conditions": conditions}}

    def events(self, name: str) -> list[Tree]:
        """The events, about this job's nodes."""
        events = json.loads(json.dumps(self.stuck["events"] if self.stuck else []))
        for event in events:
            event["involvedObject"]["name"] = f"{name}-node-0"
        return [event for event in events if event["type"] == "Warning"]

    def pods(self, name: str) -> list[Tree]:
        phases = {None: "Running", 0: "Succeeded"}
        pods: list[Tree] = []
        when = self.jobs[name].body["metadata"]["creationTimestamp"]
        for pod in self.stuck["pods"] if self.stuck else []:
            about = {**pod["metadata"], "labels": self.labels(name, 0), "creationTimestamp": when}
            pods.append({**pod, "metadata": about})
        for rank, node in enumerate(self.jobs[name].nodes):
            about = {
                "name": f"{name}-node-{rank}", "labels": self.labels(name, rank), "creationTimestamp": when
            }  # fmt: skip
            status = {"phase": phases.get(node.poll(), "Failed")}
            pods.append({"metadata": about, "spec": {"containers": [NODE]}, "status": status})
        return pods

    def labels(self, name: str, rank: int) -> Tree:
        return {
            "jobset.sigs.k8s.io/jobset-name": name,
            "jobset.sigs.k8s.io/replicatedjob-name": "node",
            "batch.kubernetes.io/job-completion-index": str(rank),
        }

    def log(self, name: str, rank: int) -> Path:
        return self.logs / f"{name}-node-{rank}"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _handler(trainer: Trainer) -> type[BaseHTTPRequestHandler]:
    spaced = f"{API}/namespaces/{SPACE}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            trainer.log_of_requests.append(path)
            refused = [status for part, status in trainer.refused.items() if part in path]
            if refused:
                self.answer(refused[0], {"message": "no"})
            elif self.headers.get("authorization") != f"Bearer {TOKEN}":
                self.answer(401, {"message": "Unauthorized"})
            elif path == f"{API}/clustertrainingruntimes/torch-distributed":
                self.answer(200, RUNTIME)
            elif path == f"{spaced}/trainjobs":
                self.answer(200, {"metadata": {}, "items": [trainer.read(name) for name in trainer.jobs]})
            elif (match := re.fullmatch(f"{spaced}/trainjobs/(.+)", path)) and match[1] in trainer.jobs:
                self.answer(200, trainer.read(match[1]))
            elif path == f"/api/v1/namespaces/{SPACE}/pods":
                name = re.search(r"jobset-name(?:=|%3D)([a-z0-9-]+)", query)[1]  # type: ignore[index]
                self.answer(200, {"kind": "PodList", "items": trainer.pods(name)})
            elif path == f"/api/v1/namespaces/{SPACE}/events":
                items = [event for name in trainer.jobs for event in trainer.events(name)]
                self.answer(200, {"kind": "EventList", "items": items})
            elif match := re.fullmatch(f"/api/v1/namespaces/{SPACE}/pods/(.+)/log", path):
                self.answer(200, (trainer.logs / match[1]).read_text())
            else:
                self.answer(404, {"message": f"{path} not found"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if trainer.refuse:
                self.answer(403, {"message": trainer.refuse})
            else:
                self.answer(201, trainer.create(body))

        def do_DELETE(self) -> None:
            job = trainer.jobs.pop(self.path.partition("?")[0].rpartition("/")[2], None)
            if job:
                job.end()
            self.answer(200 if job else 404, {})

        def answer(self, status: int, content: Tree | str) -> None:
            raw = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler


@contextmanager
def serving_trainer(folder: Path) -> Iterator[tuple[Trainer, Path]]:
    """The API and a kubeconfig that leads to it; what still runs is ended."""
    (folder / "logs").mkdir(parents=True)
    trainer = Trainer(folder / "logs")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(trainer))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    named = {"cluster": "here", "user": "me", "namespace": SPACE}
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "me", "user": {"token": TOKEN}}],
        "contexts": [{"name": "here", "context": named}],
    }  # fmt: skip
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    try:
        yield trainer, folder / "kubeconfig"
    finally:
        server.shutdown()
        server.server_close()
        for job in trainer.jobs.values():
            job.end()
