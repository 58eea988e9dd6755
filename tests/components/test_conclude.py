"""How a run ended: a summary whatever happened, posted to a webhook if there is one."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from components.conclude import conclude
from orchestration.kubeflow.webhook import ATTEMPTS, RunSummary, notify, run_summary
from registry.channels.channel import head, promote, stage
from registry.store.open import open_store
from tests.registry.bundles import make_release

SUMMARY = RunSummary(
    state="SUCCEEDED", error="", run_id="r1", git_commit="", channel="production", promoted=True, release="a",
    entry=1, text="done",
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


def ended(registry: Path, state: str = "SUCCEEDED", error: str | None = None) -> RunSummary:
    return run_summary(
        state, error, run_id="r1", registry=str(registry), channel="production", git_commit="abc"
    )


def released(registry: Path, who: str) -> str:
    """Put a release in production; its digest."""
    store = open_store(str(registry))
    release = make_release(store, registry.parent / "made").release
    stage(store, release, who=who, why="a test")
    promote(store, "production", release, who=who, why="a test")
    return release


def test_a_run_that_promoted_says_so(tmp_path: Path) -> None:
    release = released(tmp_path / "registry", "pipeline run r1")
    summary = ended(tmp_path / "registry")
    assert (summary.promoted, summary.release, summary.entry) == (True, release, 1)
    assert summary.text.startswith(
        f"Pipeline run r1 succeeded and promoted its release. production uses release {release[:12]} (no. 1, "
    )


def test_a_run_that_promoted_nothing_says_what_is_in_use(tmp_path: Path) -> None:
    release = released(tmp_path / "registry", "pipeline run r0")
    summary = ended(tmp_path / "registry")
    assert (summary.promoted, summary.release) == (False, release)
    assert summary.text.startswith("Pipeline run r1 succeeded and promoted nothing. production uses release")


def test_a_failure_gives_its_reason(tmp_path: Path) -> None:
    summary = ended(tmp_path / "registry", "FAILED", "train failed:\n  out of memory" + "!" * 1000)
    assert summary.text.startswith("Pipeline run r1 ended as FAILED: train failed: out of memory!!!")
    assert summary.text.endswith("! production is empty.")
    assert len(summary.text) < 700
    assert ended(tmp_path / "registry", "CANCELLED").text.startswith("Pipeline run r1 ended as CANCELLED. ")


def test_an_unreadable_registry_is_part_of_the_summary(tmp_path: Path) -> None:
    released(tmp_path / "registry", "pipeline run r1")
    (entry,) = (tmp_path / "registry" / "channels" / "production").iterdir()
    entry.write_text("{}")
    summary = ended(tmp_path / "registry", "FAILED", "boom")
    assert summary.text.startswith("Pipeline run r1 ended as FAILED: boom What production uses is unknown: ")
    assert (summary.promoted, summary.release) == (False, "")


def test_a_webhook_gets_one_post(webhook: Serve) -> None:
    url, taken = webhook([200])
    assert notify(url, SUMMARY)
    assert taken == [SUMMARY.model_dump()]


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
    release = released(tmp_path / "registry", "pipeline run r1")
    artifact = dsl.Artifact(uri=str(tmp_path / "summary"))
    status = dsl.PipelineTaskFinalStatus("FAILED", "job", "exit-handler-1", 1, "deploy failed")
    about = {"run_id": "r1", "registry": str(tmp_path / "registry"), "channel": "production"}
    conclude.python_func(status=status, git_commit="abc", summary=artifact, **about)
    stored = json.loads(Path(artifact.path).read_text())
    assert stored == taken[0]
    assert stored["text"] == capsys.readouterr().out.strip()
    assert artifact.metadata == {"state": "FAILED", "promoted": True, "release": release}
    assert head(open_store(str(tmp_path / "registry")), "production")
