"""Following a run on Kubeflow: lines per step, what keeps it from starting, and how it ends."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from common.cli import DONE, FAILED, NOT_PROMOTED
from orchestration.kubeflow.ending import RunState, run_summary
from orchestration.runs import watch
from orchestration.runs.commands import app
from registry.run_records import record_ending
from registry.store.open import open_store
from tests.orchestration.kubeflow.kfp_server import Pipelines
from tests.orchestration.kubeflow.pods_server import (
    NAMESPACE,
    POD_STATUSES,
    RUNNING,
    RUNS,
    SUCCEEDED,
    Cluster,
    step_pod,
)
from tests.orchestration.kubeflow.test_ending import FAILED_POD, refused, released
from tests.pipeline.test_pipeline_run import steps

RUN = "r1"
STEPS = ("resolve-champion", "resolve-source", "ingest", "validate", "tokenize", "train", "train-baseline")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.0)


def car(*words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--namespace", NAMESPACE])


def follow(registry: Path) -> Result:
    return car("watch", RUN, "--registry", str(registry))


def unfinished(run: str, *steps: str) -> dict[str, Any]:
    """A run as it was when only these steps had ended."""
    answer: dict[str, Any] = {**copy.deepcopy(RUNS[run]), "state": "RUNNING"}
    details = answer["run_details"]
    details["task_details"] = [item for item in details["task_details"] if item.get("display_name") in steps]
    return answer


def test_a_refused_run_is_followed_to_its_end_and_is_not_promoted(
    registry: Path, pipelines: Pipelines, cluster: Cluster
) -> None:
    refused(registry)
    assert cluster.pods == []  # none is left
    pipelines.stories[RUN] = [
        unfinished("refused_by_gate"),
        unfinished("refused_by_gate", "resolve-source", "ingest"),
        RUNS["refused_by_gate"],
    ]
    ended = follow(registry)
    assert ended.exit_code == NOT_PROMOTED, ended.output
    outcomes = steps(ended.stdout)
    assert list(outcomes)[:2] == ["resolve-source", "ingest"]  # they were reported first
    assert set(STEPS) < outcomes.keys()
    assert outcomes["train"] == "20.0 s"
    assert "release" not in outcomes
    assert "promoted nothing: the gate refused its release. beats popularity: It is 0.1." in ended.stdout
    assert "/#/runs/details/r1" in ended.stdout


def test_a_repetition_shows_which_steps_were_cached(
    registry: Path, pipelines: Pipelines, cluster: Cluster
) -> None:
    released(registry, "r0")
    world = ("resolve-champion", "resolve-source", "release", "deploy", "conclude")
    cluster.pods = [step_pod(RUN, step) for step in world]
    pipelines.stories[RUN] = [RUNS["repetition_from_cache"]]
    ended = follow(registry)
    assert ended.exit_code == DONE, ended.output
    assert {step for step, outcome in steps(ended.stdout).items() if outcome != "cached"} == set(world)
    assert "made the release that is already in use" in ended.stdout


def test_steps_that_the_api_stopped_reporting_are_known_from_their_pods(
    registry: Path, pipelines: Pipelines, cluster: Cluster
) -> None:
    released(registry, RUN)
    cluster.pods = [step_pod(RUN, step) for step in (*STEPS, "package", "release", "deploy")]
    pipelines.stories[RUN] = [RUNS["already_in_use"]]
    ended = follow(registry)
    assert ended.exit_code == DONE, ended.output
    assert {"release", "deploy"} <= steps(ended.stdout).keys()
    assert "promoted its release" in ended.stdout


def test_a_failed_step_ends_the_watch_with_its_sentence(
    registry: Path, pipelines: Pipelines, cluster: Cluster
) -> None:
    cluster.pods = [step_pod(RUN, "resolve-source"), step_pod(RUN, "ingest", FAILED_POD)]
    cluster.logs[f"{RUN}-ingest-0"] = "The step ingest failed: orders.csv is empty.\nError: exit status 1\n"
    pipelines.stories[RUN] = [RUNS["ingest_failed"]]
    ended = follow(registry)
    assert ended.exit_code == FAILED
    assert steps(ended.stdout)["ingest"] == "failed"
    assert "failed in the step ingest: orders.csv is empty." in ended.stdout


def test_what_the_exit_step_wrote_counts(registry: Path, pipelines: Pipelines, cluster: Cluster) -> None:
    released(registry, "r0")
    pipelines.stories[RUN] = [RUNS["repetition_from_cache"]]
    summary = run_summary(
        RunState("RUNNING", cancelled=True),
        run_id=RUN,
        registry=str(registry),
        channel="staging",
        git_commit="",
    )
    record_ending(open_store(registry), RUN, summary.model_dump_json().encode())
    ended = follow(registry)
    assert (ended.exit_code, "run r1 was cancelled." in ended.stdout) == (FAILED, True)


@pytest.mark.parametrize("name", ["bad-image", "no-gpu", "missing-claim", "missing-secret", "root-user"])
def test_a_pod_that_cannot_start_is_told_at_the_first_look(
    registry: Path, pipelines: Pipelines, cluster: Cluster, name: str
) -> None:
    cluster.pods = [step_pod(RUN, "ingest", POD_STATUSES[name])]
    pipelines.stories[RUN] = [unfinished("ingest_failed")] * 3 + [RUNS["ingest_failed"]]
    ended = follow(registry)
    told = [line for line in ended.stdout.splitlines() if line.strip().startswith("ingest: ")]
    assert len(told) == 1, ended.output
    assert re.search("cannot be pulled|no node can take|cannot be started", told[0])


def test_a_service_account_that_may_not_report_is_told(
    registry: Path, pipelines: Pipelines, cluster: Cluster
) -> None:
    cluster.status = 403
    pipelines.stories[RUN] = [RUNS["service_account_without_role"]]
    ended = follow(registry)
    assert ended.exit_code == FAILED
    assert "Kubernetes does not show the pods of team: 403 Forbidden." in ended.stdout
    assert "May the service account car-runner report to Kubeflow? It needs the Role" in ended.stdout


def test_a_run_of_which_nothing_starts_is_told(
    registry: Path, pipelines: Pipelines, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "QUIET_SECONDS", 0.0)
    pipelines.stories[RUN] = [unfinished("ingest_failed")] * 3 + [RUNS["ingest_failed"]]
    ended = follow(registry)
    assert ended.stdout.count("Nothing has started for a minute.") == 1
    assert "kubectl get workflows,pods -n team -l pipeline/runid=r1" in ended.stdout


def test_a_run_that_is_not_there_is_refused_at_once(registry: Path, pipelines: Pipelines) -> None:
    ended = follow(registry)
    assert ended.exit_code == FAILED
    assert "refused: 404 runs r1 not found." in ended.stderr


def test_a_server_that_does_not_answer_is_asked_again_for_a_while(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MAX_OUTAGE", 0.0)
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:9")
    ended = follow(registry)
    assert ended.exit_code == FAILED
    assert "No Kubeflow Pipelines answers at http://127.0.0.1:9" in ended.stderr


def test_runs_are_listed_with_their_endings(registry: Path, pipelines: Pipelines) -> None:
    pipelines.held["runs"] = {run: RUNS[run] for run in ("ingest_failed", "repetition_from_cache")}
    listed = car("runs")
    assert listed.exit_code == 0, listed.output
    assert re.search(r"ingest-failed +2026-11-30 11:18 +FAILED *$", listed.stdout, flags=re.MULTILINE)
    summary = run_summary(
        RunState("FAILED"),
        run_id="ingest-failed",
        registry=str(registry),
        channel="production",
        git_commit="",
    )
    record_ending(open_store(registry), "ingest-failed", summary.model_dump_json().encode())
    listed = car("runs", "--registry", str(registry))
    assert re.search(r"ingest-failed +2026-11-30 11:18 +FAILED +failed", listed.stdout)


def test_logs_of_every_try_are_printed(cluster: Cluster) -> None:
    cluster.pods = [
        step_pod(RUN, "train-driver"),
        step_pod(RUN, "train", FAILED_POD),
        step_pod(RUN, "train", RUNNING, retry=1, minute=1),
        step_pod(RUN, "ingest", SUCCEEDED),
        step_pod(RUN, "report", POD_STATUSES["bad-image"]),
    ]
    cluster.logs = {f"{RUN}-train-0": "epoch 1\n", f"{RUN}-train-1": "epoch 2\n"}
    printed = car("logs", RUN, "train")
    assert (printed.exit_code, printed.stdout) == (0, "epoch 1\nepoch 2\n")
    waiting = car("logs", RUN, "report")
    assert "report has not started: its image registry.example/car:missing cannot be pulled" in waiting.stderr
    missing = car("logs", RUN, "trian")
    assert missing.exit_code == FAILED
    assert "no pod of a step trian in team; there are: train, ingest, report." in missing.stderr
