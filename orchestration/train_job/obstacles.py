"""What keeps the nodes of a training job from training, as Kubernetes tells it in pods and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestration.pod_status import pod_problem

Tree = Mapping[str, Any]  # JSON of the API
SOON, FOR_A_NODE = 180.0, 1800.0  # seconds: an autoscaler may still bring a node that has room
MOUNTS = ("FailedMount", "FailedAttachVolume")
MISSING = "not found"  # of a claim, about which the scheduler says that no node fits


@dataclass(frozen=True)
class Obstacle:
    """Why a job's nodes don't train, and for how long that may pass by itself."""

    sentence: str
    patience: float
    """Seconds; 0 for what no waiting changes."""


def find_obstacle(nodes: int, pods: Sequence[Tree], events: Sequence[Tree]) -> Obstacle | None:
    """The first obstacle of a job of so many nodes; None if there is none.

    Args:
        events: the warnings about its Jobs and pods.
    """
    for pod in pods:
        if memory := _memory_exceeded(pod):
            return Obstacle(memory, 0)
        problem = "" if pod["status"].get("phase") == "Failed" else pod_problem(pod)
        if problem:
            waits_for_a_node = problem.startswith("no node can take") and MISSING not in problem
            return Obstacle(f"a node can't start: {problem}", FOR_A_NODE if waits_for_a_node else SOON)
    pending = {pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") == "Pending"}
    for event in events:
        message = " ".join(str(event["message"]).split()).rstrip(".")
        if event["reason"] == "FailedCreate" and len(pods) < nodes:
            patience = FOR_A_NODE if "quota" in message else SOON
            return Obstacle(f"Kubernetes refuses a node's pod: {message}.", patience)
        if event["reason"] in MOUNTS and event["involvedObject"]["name"] in pending:
            return Obstacle(f"a node's volume can't be mounted: {message}.", SOON)
    return None


def last_words(pods: Sequence[Tree]) -> str:
    """What Kubernetes says about a pod that failed, in a sentence; "" if none did."""
    failed = [pod for pod in pods if pod["status"].get("phase") == "Failed"]
    return f"a node's pod failed: {pod_problem(failed[0])}" if failed else ""


def _memory_exceeded(pod: Tree) -> str:
    for container in pod["status"].get("containerStatuses") or []:
        for state in (container.get("state") or {}, container.get("lastState") or {}):
            if (state.get("terminated") or {}).get("reason") == "OOMKilled":
                limit = (container.get("resources") or {}).get("limits", {}).get("memory", "its machine")
                return (
                    f"a node needed more memory than its limit of {limit}; give the train_job of the "
                    "cluster file more memory, or a smaller batch_size in the recipe."
                )
    return ""
