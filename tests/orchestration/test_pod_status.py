"""Pods that cannot start or die, as a real Kubernetes described them: each becomes one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestration.pod_status import pod_problem

PODS: dict[str, Any] = json.loads((Path(__file__).parent / "kubeflow" / "answers" / "pods.json").read_text())
SENTENCES = {
    "bad-image": "its image registry.example/car:missing cannot be pulled: failed to pull and unpack image",
    "deadline": "it took longer than its time limit of 5 seconds.",
    "exit-1": "width 30 must be a multiple of heads 4.",
    "missing-claim": 'no node can take its pod: 0/1 nodes are available: persistentvolumeclaim "nothing"',
    "missing-secret": 'its container cannot be started: secret "nothing" not found.',
    "no-gpu": "no node can take its pod: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
    "out-of-memory": "it needed more memory than its limit of 100Mi.",
    "root-user": "its container cannot be started: container's runAsUser breaks non-root policy",
    "unschedulable": "no node can take its pod: 0/1 nodes are available: 1 Insufficient cpu.",
}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_that_cannot_start_or_dies_is_explained(name: str) -> None:
    assert pod_problem(PODS[name]).startswith(SENTENCES[name])


@pytest.mark.parametrize("phase", ["Pending", "Running", "Succeeded"])
def test_a_pod_that_is_well_has_no_problem(phase: str) -> None:
    state = (
        {"terminated": {"exitCode": 0, "reason": "Completed"}} if phase == "Succeeded" else {"running": {}}
    )
    containers = [{"name": "main", "image": "car", "state": state}]
    assert pod_problem({"status": {"phase": phase, "containerStatuses": containers}}) == ""


def test_the_step_speaks_for_its_pod_and_helpers_that_ended_well_do_not() -> None:
    done = {"terminated": {"exitCode": 0, "message": "done"}}
    failed = {"terminated": {"exitCode": 1, "message": "The step train failed: width 30 is odd."}}
    containers = [
        {"name": "wait", "image": "argo", "state": done},
        {"name": "main", "image": "car", "state": failed},
    ]
    assert pod_problem({"status": {"phase": "Failed", "containerStatuses": containers}}) == "width 30 is odd."
    failed["terminated"].pop("message")
    assert "main ended with exit code 1" in pod_problem(
        {"status": {"phase": "Failed", "containerStatuses": containers}}
    )
