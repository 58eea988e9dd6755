"""How a run ended: a summary whatever happened, posted to a webhook if there is one."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from common.code_digest import ROOT
from components.conclude import conclude
from orchestration.kubeflow.ending import Ending, RunSummary
from orchestration.kubeflow.webhook import ATTEMPTS, notify
from registry.channels.channel import promote, stage
from registry.run_records import read_ending
from registry.store.open import open_store
from tests.registry.bundles import make_release

SUMMARY = RunSummary(
    ending=Ending.PROMOTED, step="", error="", failing=(), run_id="r1", git_commit="", channel="production",
    promoted=True, release="a", entry=1, text="done",
)  # fmt: skip
Serve = Callable[[list[int]], tuple[str, list[Any]]]


@pytest.fixture
def webhook() -> Iterator[Serve]:
    """A webhook that answers with these statuses in turn, and keeps what it was sent."""
    servers: list[ThreadingHTTPServer] = []

    def start(statuses: list[int]) -> tuple[str, list[Any]]:
        taken: list[Any] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(statuses[min(len(taken), len(statuses)) - 1])
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/secret-path", taken

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def released(registry: Path, who: str) -> str:
    """Put a release in production; its digest."""
    store = open_store(str(registry))
    release = make_release(store, registry.parent / "made").release
    stage(store, release, who=who, why="a test")
    promote(store, "production", release, who=who, why="a test")
    return release


def test_a_webhook_gets_one_post(webhook: Serve) -> None:
    url, taken = webhook([200])
    assert notify(url, SUMMARY)
    assert taken == [SUMMARY.model_dump(mode="json")]


def test_a_busy_webhook_is_tried_again(webhook: Serve) -> None:
    url, taken = webhook([503, 200])
    assert notify(url, SUMMARY)
    assert len(taken) == 2


@pytest.mark.parametrize("open_port", [True, False])
def test_a_webhook_that_accepts_nothing_is_a_warning_without_its_address(
    webhook: Serve, caplog: pytest.LogCaptureFixture, open_port: bool
) -> None:
    url, taken = webhook([404]) if open_port else ("http://127.0.0.1:9/secret-path", [])
    with caplog.at_level(logging.WARNING):
        assert not notify(url, SUMMARY)
    assert len(taken) == (ATTEMPTS if open_port else 0)
    assert ("status 404" if open_port else "ConnectionError") in caplog.text
    assert "secret-path" not in caplog.text


def test_the_step_stores_prints_and_posts_the_same(
    tmp_path: Path, webhook: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, taken = webhook([200])
    monkeypatch.setenv("CAR_NOTIFY_URL", url)
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:9")
    registry = tmp_path / "registry"
    release = released(registry, "pipeline run r1")
    artifact = dsl.Artifact(uri=str(tmp_path / "summary"))
    status = dsl.PipelineTaskFinalStatus("COMPLETE", "job", "exit-handler-1", 0, "")
    about = {"run_id": "r1", "registry": str(registry), "channel": "production"}
    conclude.python_func(status=status, git_commit="abc", summary=artifact, **about)
    stored = json.loads(Path(artifact.path).read_text())
    assert stored == taken[0] == json.loads(read_ending(open_store(registry), "r1") or b"")
    assert stored["text"] == capsys.readouterr().out.strip()
    assert artifact.metadata == {"ending": "promoted", "promoted": True, "release": release}


def test_a_registry_that_cannot_be_written_changes_nothing_about_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:9")
    (tmp_path / "file").touch()
    artifact = dsl.Artifact(uri=str(tmp_path / "summary"))
    status = dsl.PipelineTaskFinalStatus("FAILED", "job", "exit-handler-1", 0, "")
    about = {"run_id": "r1", "registry": str(tmp_path / "file" / "registry"), "channel": "production"}
    conclude.python_func(status=status, git_commit="abc", summary=artifact, **about)
    assert "The registry does not keep how the run ended" in caplog.text
    assert json.loads(Path(artifact.path).read_text())["ending"] == "failed"


def test_the_exit_step_imports_what_it_needs_in_kfps_process_for_steps() -> None:
    program = "import orchestration.kubeflow.ending, orchestration.kubeflow.webhook"
    subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "_KFP_RUNTIME": "true"}, check=True, cwd=ROOT
    )
