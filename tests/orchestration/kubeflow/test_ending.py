"""How a run ended: from what a real backend said about runs whose end is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from car_model.evidence.verdict import Verdict
from orchestration.kubeflow.ending import Ending, RunState, RunSummary, run_summary
from orchestration.kubeflow.run_pods import StepFailure
from registry.channels.channel import promote, stage
from registry.run_records import read_ending, record_ending, record_verdict
from registry.store.open import open_store
from tests.orchestration.kubeflow.kfp_server import Pipelines
from tests.orchestration.kubeflow.pods_server import (
    FINAL_STATUSES,
    NAMESPACE,
    POD_STATUSES,
    RUNS,
    Cluster,
    step_pod,
)
from tests.registry.bundles import make_bundle, make_evidence, make_release

RUN = "r1"
RACE = "The channel production moved since entry 1: ann put release 012345678901 in use with entry 2."
FAILED_POD = {
    "spec": {"containers": [{"name": "main"}]},
    "status": {
        "phase": "Failed",
        "containerStatuses": [
            {"name": "main", "image": "car", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
        ],
    },
}


@pytest.fixture
def hidden_pods(cluster: Cluster) -> None:
    cluster.status = 403


def released(registry: Path, run_id: str, seed: int = 0) -> str:
    """Put a release in production, as a run does; its digest."""
    store, who = open_store(registry), f"pipeline run {run_id}"
    release = make_release(store, registry.parent / "made", seed).release
    stage(store, release, who=who, why="a test")
    promote(store, "production", release, who=who, why="a test")
    return release


def refused(registry: Path) -> Verdict:
    """Keep a verdict that refused the run's release, as the step not-promoted does."""
    folder = registry.parent / "refused"
    bundle = make_bundle(folder / "bundle")
    path = make_evidence(folder, bundle, blessed=False)["verdict.json"]
    record_verdict(open_store(registry), RUN, path.read_bytes())
    return Verdict.read(path)


def ended(registry: Path, run: str) -> RunSummary:
    """The summary of a run, of which the backend said what it really said."""
    state = RunState.observe(FINAL_STATUSES[run]["state"], RUN, NAMESPACE)
    return run_summary(state, run_id=RUN, registry=str(registry), channel="production", git_commit="abc")


def test_a_run_that_promoted(registry: Path, cluster: Cluster) -> None:
    release = released(registry, RUN)
    cluster.pods = [step_pod(RUN, step) for step in ("train", "release", "deploy")]
    summary = ended(registry, "promoted_with_shards")
    assert (summary.ending, summary.promoted, summary.release) == (Ending.PROMOTED, True, release)
    assert summary.text.startswith(
        f"Pipeline run r1 promoted its release. production uses release {release[:12]} (no. 1, "
    )
    second = released(registry, "r2", seed=1)
    summary = ended(registry, "promoted_with_shards")
    assert (summary.ending, summary.promoted, summary.release) == (Ending.PROMOTED, True, second)
    assert "It was replaced since by pipeline run r2. production uses release" in summary.text


def test_a_run_whose_release_is_in_use_already(registry: Path, cluster: Cluster) -> None:
    release = released(registry, "r0")
    cluster.pods = [step_pod(RUN, "release")]
    for run in ("already_in_use", "repetition_from_cache"):
        summary = ended(registry, run)
        assert (summary.ending, summary.promoted, summary.release) == (Ending.IN_USE, False, release)
        assert "made the release that is already in use. production uses" in summary.text


@pytest.mark.parametrize("state", ["refused_by_gate", "promoted_with_shards"])  # RUNNING, COMPLETE
def test_a_run_that_the_gate_refused_names_the_conditions(
    registry: Path, cluster: Cluster, state: str
) -> None:
    verdict = refused(registry)
    cluster.pods = [step_pod(RUN, "not-promoted")]
    summary = ended(registry, state)
    assert summary.ending is Ending.REFUSED
    assert summary.failing == tuple(f"{item.name}: {item.detail}" for item in verdict.blockers)
    assert summary.text == (
        "Pipeline run r1 promoted nothing: the gate refused its release. beats popularity: It is 0.1. "
        "production is empty."
    )


def test_a_refused_run_that_requires_a_promotion_is_still_refused(registry: Path, cluster: Cluster) -> None:
    refused(registry)
    cluster.pods = [step_pod(RUN, "not-promoted", FAILED_POD)]
    assert ended(registry, "ingest_failed").ending is Ending.REFUSED
    cluster.pods.append(step_pod(RUN, "report", POD_STATUSES["out-of-memory"]))
    summary = ended(registry, "ingest_failed")
    assert (summary.ending, summary.step) == (Ending.FAILED, "report")


def test_a_failed_step_is_named_with_its_sentence(registry: Path, cluster: Cluster) -> None:
    pod = step_pod(RUN, "ingest", FAILED_POD)
    cluster.pods = [step_pod(RUN, "resolve-source"), pod]
    cluster.logs[pod["metadata"]["name"]] = (  # KFP's launcher and Argo write below the step
        "Traceback ...\nThe step ingest failed: orders.csv is empty.\n"
        "F1130 main.go:54] failed to execute component: exit status 1\nError: exit status 1\n"
    )
    summary = ended(registry, "ingest_failed")
    assert (summary.ending, summary.step, summary.error) == (Ending.FAILED, "ingest", "orders.csv is empty.")
    assert summary.text == (
        "Pipeline run r1 failed in the step ingest: orders.csv is empty. production is empty."
    )


def test_running_is_a_failure_if_a_step_hit_its_time_limit(registry: Path, cluster: Cluster) -> None:
    cluster.pods = [step_pod(RUN, "train", POD_STATUSES["deadline"])]
    summary = ended(registry, "train_hit_its_deadline")
    assert summary.ending is Ending.FAILED
    assert "failed in the step train: it took longer than its time limit of 5 seconds." in summary.text


def test_running_is_cancelled_if_a_person_ended_the_run(registry: Path, cluster: Cluster) -> None:
    cluster.terminated = True
    cluster.pods = [step_pod(RUN, "train", FAILED_POD)]  # killed with the run
    summary = ended(registry, "terminated_by_a_person")
    assert (summary.ending, summary.step) == (Ending.CANCELLED, "")
    assert summary.text == "Pipeline run r1 was cancelled. production is empty."


def test_a_failure_after_the_promotion_is_a_failure_that_says_so(registry: Path, cluster: Cluster) -> None:
    release = released(registry, RUN)
    cluster.pods = [step_pod(RUN, "release"), step_pod(RUN, "deploy", POD_STATUSES["out-of-memory"])]
    summary = ended(registry, "lost_the_race_in_release")
    assert (summary.ending, summary.step, summary.promoted) == (Ending.FAILED, "deploy", True)
    assert f"limit of 100Mi. Before that it had promoted release {release[:12]}." in summary.text


def test_a_lost_pod_that_was_replaced_is_no_failure(registry: Path, cluster: Cluster) -> None:
    released(registry, RUN)
    lost = {"spec": {"containers": []}, "status": {"phase": "Failed", "reason": "NodeLost"}}
    cluster.pods = [step_pod(RUN, "train", lost), step_pod(RUN, "train", retry=1, minute=1)]
    assert ended(registry, "pod_lost_in_train_then_resumed").ending is Ending.PROMOTED
    cluster.pods.pop()
    assert ended(registry, "lost_the_race_in_release").error == "NodeLost."


def test_a_run_that_wrote_to_another_registry_is_no_success(registry: Path, cluster: Cluster) -> None:
    cluster.pods = [step_pod(RUN, "release")]
    summary = ended(registry, "registry_in_a_folder")
    assert summary.ending is Ending.UNKNOWN
    assert f"ended well, but nothing was promoted: did its steps see {registry}?" in summary.text


@pytest.mark.parametrize(
    ("run", "ending", "text"),
    [
        ("train_hit_its_deadline", Ending.FAILED, "failed in the step train: It left no reason."),
        ("ingest_failed", Ending.FAILED, "failed in the step ingest: It left no reason."),
        ("lost_the_race_in_release", Ending.FAILED, "failed; in which step could not be found out."),
        ("refused_by_gate", Ending.UNKNOWN, "could not be found out. Kubeflow's state is RUNNING."),
    ],
)
@pytest.mark.usefixtures("hidden_pods")
def test_without_rights_to_see_pods_the_api_is_asked_and_the_summary_says_so(
    registry: Path, pipelines: Pipelines, run: str, ending: Ending, text: str
) -> None:
    pipelines.held["runs"][RUN] = RUNS[run]
    summary = ended(registry, run)
    assert summary.ending is ending
    assert f"{text} Kubernetes does not show the pods of team: 403 Forbidden. production" in summary.text


@pytest.mark.usefixtures("hidden_pods")
def test_a_cancelled_run_is_known_from_the_api_too(registry: Path, pipelines: Pipelines) -> None:
    pipelines.held["runs"][RUN] = {**RUNS["refused_by_gate"], "state": "CANCELING"}
    assert ended(registry, "terminated_by_a_person").ending is Ending.CANCELLED


@pytest.mark.usefixtures("hidden_pods")
def test_what_cannot_be_asked_is_said_and_the_registry_decides(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:9")
    summary = ended(registry, "ingest_failed")
    assert summary.ending is Ending.FAILED
    assert "403 Forbidden. Kubeflow's API does not answer at http://127.0.0.1:9." in summary.text
    refused(registry)
    assert ended(registry, "refused_by_gate").ending is Ending.REFUSED


def test_an_unreadable_registry_is_part_of_the_summary(registry: Path) -> None:
    released(registry, RUN)
    (entry,) = (registry / "channels" / "production").iterdir()
    entry.write_text("{}")
    state = RunState("FAILED", (StepFailure("release", RACE),))
    summary = run_summary(state, run_id=RUN, registry=str(registry), channel="production", git_commit="")
    assert summary.text.startswith(
        f"Pipeline run r1 failed in the step release: {RACE} What production uses is unknown: "
    )
    assert (summary.promoted, summary.release) == (False, "")
    summary = run_summary(
        RunState("COMPLETE"), run_id=RUN, registry=str(registry), channel="production", git_commit=""
    )
    assert summary.ending is Ending.UNKNOWN
    assert "ended well, as far as is known. What production uses is unknown" in summary.text


def test_another_platform_says_itself_how_a_run_ended(registry: Path) -> None:
    for state, error, ending, text in (
        (
            "FAILED",
            "The replica\nran out of memory.",
            Ending.FAILED,
            "failed: The replica ran out of memory.",
        ),
        ("CANCELLED", "", Ending.CANCELLED, "was cancelled."),
    ):
        summary = run_summary(
            RunState(state, error=error), run_id=RUN, registry=str(registry), channel="x", git_commit=""
        )
        assert (summary.ending, summary.error) == (ending, error)
        assert text in summary.text


def test_a_long_sentence_is_cut(registry: Path) -> None:
    state = RunState("FAILED", (StepFailure("train", "out of\n memory" + "!" * 1000),))
    summary = run_summary(state, run_id=RUN, registry=str(registry), channel="production", git_commit="")
    assert "train: out of memory!!!" in summary.text
    assert len(summary.text) < 700


def test_a_run_that_is_retried_ends_twice_and_the_last_end_counts(registry: Path) -> None:
    store = open_store(registry)
    assert read_ending(store, RUN) is None
    for text in (b"failed", b"promoted", b"promoted"):
        record_ending(store, RUN, text)
    assert read_ending(store, RUN) == b"promoted"
    assert read_ending(store, "r") is None
