"""The rights of the steps' service account, asked of a Kubernetes API before a run is submitted."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.config import kube_config

from orchestration.kubeflow.rights import RightsError, check_rights

Tree = dict[str, Any]
ACCOUNTS = "/api/v1/namespaces/team/serviceaccounts/car-runner"


class Kubernetes:
    """What the API knows: whether the account is there, and which resources it may use."""

    def __init__(self) -> None:
        self.account_status = 200
        self.review_status = 201
        self.allowed = {"workflowtaskresults", "trainjobs", "pods", "events"}
        self.reviewed: list[Tree] = []

    def answer(self, path: str, body: Tree | None) -> tuple[int, Tree]:
        if path == ACCOUNTS:
            return self.account_status, {"metadata": {"name": "car-runner"}}
        assert body and path == "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        self.reviewed.append(body["spec"])
        is_allowed = body["spec"]["resourceAttributes"]["resource"] in self.allowed
        return self.review_status, {**body, "status": {"allowed": is_allowed}}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    kubernetes = Kubernetes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = kubernetes.answer(self.path, json.loads(raw) if raw else None)
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET  # noqa: N815 - http.server's own name

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "me", "user": {"token": "t"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    }  # fmt: skip
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    yield kubernetes
    server.shutdown()
    server.server_close()


def check(host: str = "", train_jobs: bool = False) -> str:
    return check_rights("team", "car-runner", host, train_jobs=train_jobs)


def test_an_account_with_its_rights_passes_without_a_word(api: Kubernetes) -> None:
    assert check(train_jobs=True) == ""
    assert {review["user"] for review in api.reviewed} == {"system:serviceaccount:team:car-runner"}
    assert [review["resourceAttributes"]["resource"] for review in api.reviewed] == [
        "workflowtaskresults", "workflowtaskresults", "trainjobs", "pods", "events"
    ]  # fmt: skip


@pytest.mark.parametrize("host", ["", "http://localhost:8080"])
def test_a_right_that_lacks_ends_the_command_before_the_run(api: Kubernetes, host: str) -> None:
    api.allowed -= {"workflowtaskresults"}
    with pytest.raises(RightsError, match="may not create workflowtaskresults in team, so its first pod"):
        check(host)


def test_rights_for_training_jobs_are_asked_for_if_there_are_any(api: Kubernetes) -> None:
    api.allowed -= {"events"}
    assert check() == ""
    with pytest.raises(RightsError, match=r"may not list events in team.*apply deploy/cluster/trainer\.yaml"):
        check(train_jobs=True)


def test_an_account_that_is_not_there_is_named(api: Kubernetes) -> None:
    api.account_status = 404
    with pytest.raises(RightsError, match=r"There is no service account car-runner in team: apply deploy/cl"):
        check()


def test_the_kubeconfigs_cluster_may_be_another_one(api: Kubernetes) -> None:
    api.account_status = 404
    sentence = check("https://kubeflow.example.com")
    assert sentence.startswith("In the kubeconfig's cluster: There is no service account car-runner")


def test_what_was_not_checked_is_told(api: Kubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    api.review_status = 403
    assert check().endswith("you may not create SubjectAccessReviews or read service accounts.")
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", "/nothing/here")
    assert check() == (
        "The rights of the service account car-runner in team were not checked: there is no kubeconfig here."
    )
