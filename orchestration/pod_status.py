"""What keeps a pod from starting, or ended it, in a sentence: from its status in the Kubernetes API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestration.step import FAILURE_LINE

Pod = Mapping[str, Any]  # JSON of the API
IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
START_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
MAX_MESSAGE = 300  # characters of Kubernetes' own message


def pod_problem(pod: Pod) -> str:
    """What is wrong with a pod, in a sentence that a step's name and a colon can precede; "" for nothing."""
    if pod["status"].get("phase") == "Failed":
        return _why_failed(pod)
    for condition in pod["status"].get("conditions") or []:
        if (condition["type"], condition["status"]) == ("PodScheduled", "False"):
            return f"no node can take its pod: {_short(condition.get('message'))}"
    for container in _containers(pod):
        waiting = container["state"].get("waiting") or {}
        if waiting.get("reason") in IMAGE_REASONS:
            return f"its image {container['image']} cannot be pulled: {_short(waiting.get('message'))}"
        if waiting.get("reason") in START_REASONS:
            return f"its container cannot be started: {_short(waiting.get('message'))}"
    return ""


def _why_failed(pod: Pod) -> str:
    if pod["status"].get("reason") == "DeadlineExceeded":
        return f"it took longer than its time limit of {pod['spec'].get('activeDeadlineSeconds')} seconds."
    for container in _containers(pod):
        terminated = container["state"].get("terminated") or {}
        if not terminated.get("exitCode"):
            continue
        if terminated.get("reason") == "OOMKilled":
            (limits,) = [
                (item.get("resources") or {}).get("limits") or {}
                for item in pod["spec"]["containers"]
                if item["name"] == container["name"]
            ]
            return f"it needed more memory than its limit of {limits.get('memory', 'its node')}."
        if message := terminated.get("message", "").strip():
            match = FAILURE_LINE.search(message)
            return match["sentence"] if match else _short(message.splitlines()[-1])
        return f"its container {container['name']} ended with exit code {terminated['exitCode']}."
    return _short(pod["status"].get("message") or pod["status"].get("reason"))


def _containers(pod: Pod) -> list[Mapping[str, Any]]:
    status = pod["status"]
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _short(message: str | None) -> str:
    text = " ".join((message or "Kubernetes does not say why").split()).rstrip(".")
    return f"{text[:MAX_MESSAGE]}..." if len(text) > MAX_MESSAGE else f"{text}."
