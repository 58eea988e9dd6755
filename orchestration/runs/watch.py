"""Follow a run on Kubeflow: a line per step as in a local run, what keeps a pod from starting, and the end.

KFP's API knows which step is how far, but stops reporting the tasks of a large run before its end, and never
says why a pod does not start or a step failed. The run's pods say both, if Kubernetes shows them.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field

from orchestration.kubeflow.client import Kubeflow, SubmitError
from orchestration.kubeflow.ending import RunState
from orchestration.kubeflow.run_pods import PodsError, RunPods, StepFailure, StepPod
from orchestration.kubeflow.runs import (
    CANCELLED_STATES,
    FAILED_STATE,
    Run,
    could_not_start,
    failed_step,
    tasks,
)
from orchestration.local.progress import Progress
from orchestration.local.runner import count_steps
from orchestration.resources import RESOURCES

SUCCEEDED_STATE = "SUCCEEDED"
FINAL_STATES = (SUCCEEDED_STATE, FAILED_STATE, "CANCELED", "SKIPPED")
UNUSUAL_STEPS = {"choose-encoder", "embed", "merge", "not-promoted"}
POLL_SECONDS = 10.0
QUIET_SECONDS = 60.0  # without any pod, after which that is said
MAX_OUTAGE = 300.0  # seconds without an answer
REFUSALS = range(400, 500)  # statuses that asking again does not change


@dataclass
class Watch:
    """Follows one run and prints what changes."""

    kubeflow: Kubeflow
    run_id: str
    progress: Progress
    pods: RunPods | None = None
    unknown: tuple[str, ...] = ()  # why pods can't be seen
    _printed: set[str] = field(default_factory=set)

    def follow(self) -> RunState:
        """Print progress until the run ends; returns what is known about its steps then.

        Raises:
            SubmitError: Kubeflow refuses to show the run, or has not answered for MAX_OUTAGE.
        """
        try:
            self.pods = RunPods(self.kubeflow.namespace)
        except PodsError as error:
            self._hide_pods(error)
        start = time.monotonic()
        while True:
            run = self._ask()
            self.progress.total = _count(run)
            pods = self._list_pods()
            self._print_steps(run, pods)
            for pod in pods:
                if pod.phase == "Pending" and pod.problem:  # whose numbers change as a cluster grows
                    self._print_once(f"{pod.step}: {pod.problem}", f"{pod.step}: {pod.problem[:30]}")
            if run.state in FINAL_STATES:
                return self._end(run, pods)
            if not pods and not tasks(run) and time.monotonic() - start >= QUIET_SECONDS:
                self._print_once(
                    "Nothing has started for a minute. Does Argo's workflow controller run? "
                    f"kubectl get workflows,pods -n {self.kubeflow.namespace} -l pipeline/runid={self.run_id}"
                )
            time.sleep(POLL_SECONDS)

    def _ask(self) -> Run:
        """The run, asked for again while nobody answers."""
        start = time.monotonic()
        while True:
            try:
                return self.kubeflow.run(self.run_id)
            except SubmitError as error:
                if error.status in REFUSALS or time.monotonic() - start >= MAX_OUTAGE:
                    raise
                self._print_once(f"{error} Trying again.")
            time.sleep(POLL_SECONDS)

    def _list_pods(self) -> list[StepPod]:
        if self.pods is None:
            return []
        try:
            return self.pods.of_run(self.run_id)
        except PodsError as error:
            self._hide_pods(error)
            return []

    def _hide_pods(self, error: PodsError) -> None:
        self.pods, self.unknown = None, (str(error),)
        self._print_once(f"{error} What keeps a step from starting, or why it failed, can't be told here.")

    def _print_steps(self, run: Run, pods: list[StepPod]) -> None:
        """A line for every step that ended since, in the pipeline's order."""
        final = run.state in FINAL_STATES
        reported, tries = defaultdict(list), defaultdict(list)
        for task in tasks(run):
            reported[task.display_name].append(task)
        for pod in {pod.task: pod for pod in pods if not pod.driver}.values():
            tries[pod.step].append(pod)
        for step in RESOURCES:
            states = {task.state for task in reported[step]}
            phases = {pod.phase for pod in tries[step]}
            if step in self._printed:
                continue
            if FAILED_STATE in states or (final and "Failed" in phases):
                self._printed.add(step)
                self.progress.ended(step, "  failed", style="red")
            elif states == {SUCCEEDED_STATE} or (phases == {"Succeeded"} and (final or not any(states))):
                self._printed.add(step)
                cached = bool(pods) and not tries[step]
                seconds = [pod.seconds or 0.0 for pod in tries[step]] or [
                    (task.end_time - task.start_time).total_seconds()
                    for task in reported[step]
                    if task.start_time and task.end_time
                ]
                self.progress.ended(step, "  cached" if cached else f"{max(seconds, default=0):6.1f} s")

    def _end(self, run: Run, pods: list[StepPod]) -> RunState:
        failures: tuple[StepFailure, ...] = ()
        cancelled = run.state in CANCELLED_STATES
        if could_not_start(run):
            account = run.service_account or "of the run"
            failures = (
                StepFailure(
                    "root-driver",
                    f"KFP's first pod ended at once. May the service account {account} report to Kubeflow? "
                    "It needs the Role pipeline-runner (standalone) or the ClusterRole kubeflow-edit "
                    "(multi-user); see deploy/cluster/runner.yaml.",
                ),
            )
        elif self.pods:
            failures = tuple(self.pods.failures(pods))
        elif step := failed_step(run):
            failures = (StepFailure(step, ""),)
        return RunState(str(run.state), failures, cancelled=cancelled, unknown=self.unknown)

    def _print_once(self, line: str, key: str = "") -> None:
        if (key or line) not in self._printed:
            self._printed.add(key or line)
            self.progress.note(line)


def _count(run: Run) -> int:
    """Number of steps that the run can have; without its specification, that of the usual pipeline."""
    spec = run.pipeline_spec or {}
    spec = spec.get("pipeline_spec", spec)  # it stands beside the platform's
    return count_steps(spec) if "root" in spec else len(RESOURCES.keys() - UNUSUAL_STEPS)
