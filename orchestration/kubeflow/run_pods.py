"""The pods of a run, read from Kubernetes: in a pod with its service account, elsewhere by the kubeconfig."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import kubernetes
import urllib3

from common.errors import UserError
from orchestration.pod_status import Pod, pod_problem
from orchestration.step import FAILURE_LINE

RUN_LABEL = "pipeline/runid"
NODE_NAME = "workflows.argoproj.io/node-name"  # of a step's try: RUN(0).root(0)...train(0).executor(1)
DRIVER = "-driver"  # KFP's own pod before that of a step
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")  # of a pod
TIMEOUT = 10  # seconds per request
LOG_TAIL = 200  # lines that a step's last sentence is looked for in


class PodsError(UserError, RuntimeError):
    """Kubernetes could not be asked about pods; the message is one sentence that says why."""


@dataclass(frozen=True)
class StepPod:
    """One try of a step, or of the driver that KFP runs before it."""

    name: str
    step: str  # of a driver too; KFP's own groups are "root" and the like
    driver: bool
    task: str  # the same for all tries of one task
    created: datetime
    phase: str
    problem: str  # what keeps it from starting, or ended it; "" for nothing
    seconds: float | None  # that its container ran

    @classmethod
    def from_api(cls, pod: Pod) -> StepPod:
        """A pod as the API gives it."""
        metadata, status = pod["metadata"], pod["status"]
        task = re.sub(r"\(\d+\)$", "", metadata.get("annotations", {}).get(NODE_NAME, metadata["name"]))
        names = re.sub(r"\([^)]*\)", "", task).split(".")
        driver = names[-1].endswith(DRIVER)
        step = names[-2] if names[-1] == "executor" else names[-1].removesuffix(DRIVER)
        (main, *_) = [
            item["state"].get("terminated") or {}
            for item in status.get("containerStatuses") or []
            if item["name"] == "main"
        ] or [{}]
        seconds = None
        if main.get("startedAt") and main.get("finishedAt"):
            seconds = (_time(main["finishedAt"]) - _time(main["startedAt"])).total_seconds()
        return cls(
            name=metadata["name"],
            step=step,
            driver=driver,
            task=task,
            created=_time(metadata["creationTimestamp"]),
            phase=status.get("phase", "Unknown"),
            problem=pod_problem(pod),
            seconds=seconds,
        )


@dataclass(frozen=True)
class StepFailure:
    """A step that failed, and why."""

    step: str
    sentence: str  # "" if nothing says why


class RunPods:
    """Reads the pods of runs in a namespace; every method raises PodsError if Kubernetes can't be asked."""

    def __init__(self, namespace: str = "") -> None:
        """Find the cluster that this process runs in, or the kubeconfig's; "" for the namespace of this pod.

        Raises PodsError.
        """
        if not namespace and OWN_NAMESPACE.is_file():
            namespace = OWN_NAMESPACE.read_text().strip()
        self.namespace = namespace or "kubeflow"
        configuration = kubernetes.client.Configuration()
        try:
            kubernetes.config.load_incluster_config(client_configuration=configuration)
        except kubernetes.config.ConfigException:
            try:
                kubernetes.config.load_kube_config(
                    os.environ.get("KUBECONFIG") or None, client_configuration=configuration
                )
            except (kubernetes.config.ConfigException, OSError) as error:
                raise PodsError("Pods cannot be seen from here: there is no kubeconfig.") from error
        configuration.retries = 1
        self._client = kubernetes.client.ApiClient(configuration)

    def of_run(self, run_id: str) -> list[StepPod]:
        """Pods of a run, oldest first."""
        call = kubernetes.client.CoreV1Api(self._client).list_namespaced_pod
        answer = self._request(call, self.namespace, label_selector=f"{RUN_LABEL}={run_id}")
        return sorted(map(StepPod.from_api, json.loads(answer)["items"]), key=lambda pod: pod.created)

    def log(self, name: str, tail: int | None = None) -> str:
        """What a step's container wrote: everything that is kept, or the last lines."""
        call = kubernetes.client.CoreV1Api(self._client).read_namespaced_pod_log
        options: dict[str, Any] = {} if tail is None else {"tail_lines": tail}
        return self._request(call, name, self.namespace, container="main", **options).decode(errors="replace")

    def was_terminated(self, run_id: str) -> bool:
        """Whether a person ended the run: KFP gives its workflow no more time then."""
        call = kubernetes.client.CustomObjectsApi(self._client).list_namespaced_custom_object
        selector = f"{RUN_LABEL}={run_id}"
        answer = self._request(
            call, "argoproj.io", "v1alpha1", self.namespace, "workflows", label_selector=selector
        )
        return any(item["spec"].get("activeDeadlineSeconds") == 0 for item in json.loads(answer)["items"])

    def failures(self, pods: Iterable[StepPod]) -> list[StepFailure]:
        """Steps that were not tried again after they failed, in the order in which they started."""
        last_tries = {pod.task: pod for pod in pods}
        return [
            StepFailure(pod.step, self._sentence(pod)) for pod in last_tries.values() if pod.phase == "Failed"
        ]

    def _sentence(self, pod: StepPod) -> str:
        """What a failed step wrote at last, where its pod's status knows no better than an exit code."""
        if " ended with exit code " not in pod.problem:
            return pod.problem
        try:
            lines = self.log(pod.name, LOG_TAIL).splitlines()
        except PodsError:
            return pod.problem
        said = [match["sentence"] for line in lines if (match := FAILURE_LINE.search(line))]
        return said[-1] if said else pod.problem

    def _request(self, call: Callable[..., Any], *arguments: str, **options: Any) -> bytes:
        try:
            answer = call(*arguments, _preload_content=False, _request_timeout=TIMEOUT, **options)
            return bytes(answer.data)
        except kubernetes.client.ApiException as error:
            raise PodsError(
                f"Kubernetes does not show the pods of {self.namespace}: {error.status} {error.reason}."
            ) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise PodsError(f"Kubernetes does not answer ({type(error).__name__}).") from error


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
