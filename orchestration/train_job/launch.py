"""Train in a job of Kubeflow Trainer and bring back its progress and its result, or why it failed.

The step writes what the nodes need into a folder they share, starts a TrainJob, prints what its first node
writes and takes the result. A step that is retried waits for a job that still runs, else starts a new one,
which resumes from the last one's state. A step that is cancelled ends its job; the job of a step that is
killed and not tried again ends by itself (`FitJob.abandoned`).
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

from car_model.bundle import Bundle
from car_model.evidence.training import TrainingCurves
from car_model.training.torchrun_job import FitJob, Inputs
from common.digests import json_digest
from common.errors import UserError
from orchestration.train_job.backends import KubernetesBackend
from orchestration.train_job.spec import RUN_ID, TrainJobSpec

if TYPE_CHECKING:
    from kubeflow.trainer import TrainerClient

Result = TypeVar("Result")
MAX_OUTAGE = 300  # seconds that the API may be unavailable
REMEDIES = {  # by the status of an answer that no repetition changes
    401: "; the token of the step's service account is not accepted",
    403: "; the step's service account needs the rights in deploy/cluster/trainer.yaml",
    404: "; Kubeflow Trainer or the runtime of the train_job is not installed, or the job was removed",
}
COMPLETE, FAILED = "Complete", "Failed"
# torchrun's report on a process that a signal ended
KILLED = re.compile(r"rank\s*: (\d+) .*?(?:\n.*?){0,3}traceback\s*: Signal \d+ \((SIG\w+)\)")


class TrainJobError(UserError, RuntimeError):
    """A training job failed or could not be started; the message says which process failed, and why."""


def run_train_job(
    spec: TrainJobSpec, inputs: Inputs, recipe: Mapping[str, Any], checkpoints: Path | None
) -> tuple[Bundle, TrainingCurves]:
    """Train in a job; returns what `fit_car` returns.

    Args:
        checkpoints: the folder that nodes and step share; the state to resume from lies in it.

    Raises:
        TrainJobError: there is no such folder, no job can be started, or it failed.
    """
    if checkpoints is None:
        raise TrainJobError(
            "A training job needs a folder that its nodes and this step share: give the cluster file a "
            "cache, or the run checkpoints."
        )
    backend = KubernetesBackend()
    run = os.environ.get(RUN_ID, "")  # equal runs at once have a job each
    digest = json_digest([inputs.digest(recipe), str(checkpoints), run])[:16]
    job, prefix = FitJob(checkpoints / "jobs" / digest), f"car-{digest}-"
    client = _request(backend.connect, "reached")
    running = [
        item.name
        for item in _request(client.list_jobs, "asked for its jobs")
        if item.name.startswith(prefix) and item.status not in (COMPLETE, FAILED)
    ]
    if running:
        name = running[0]
        print(f"Training job {name} still runs; waiting for it.", flush=True)
    else:
        job.write(inputs, recipe, checkpoints / "car")
        name = f"{prefix}{secrets.token_hex(2)}"
        start = functools.partial(backend.start, client, spec, name, checkpoints, job.folder)
        _request(start, "given a job", max_outage=0)
        print(f"Started training job {name}: {spec.nodes} x {spec.processes} processes.", flush=True)
    with _sigterm_unwinds():
        try:
            reason = _follow(backend, client, name, job, spec)
        finally:
            backend.remove(client, name)
    if reason:
        raise TrainJobError(f"The training job {name} failed: {reason}")
    try:
        result = job.result()
    except FileNotFoundError as error:
        raise TrainJobError(
            f"The training job {name} completed but left nothing in {job.folder}: its nodes must see the "
            "same folder as this step."
        ) from error
    shutil.rmtree(job.folder, ignore_errors=True)
    return result


def own_failure(job: FitJob, world: int) -> str:
    """The error of a process that failed by itself, in a sentence; "" for none."""
    for rank, failure in job.failures().items():
        if not failure.broken:
            return f"process {rank + 1} of {world}: {failure.sentence}"
    return ""


def failure_reason(job: FitJob, world: int, output: str, last_words: str = "") -> str:
    """Why a job of `world` processes failed, in a sentence.

    The process that failed by itself comes before those that lost it.

    Args:
        output: what its nodes and torchrun wrote.
        last_words: what Kubernetes says about its pods.
    """
    if sentence := own_failure(job, world):
        return sentence
    failures = job.failures()
    for rank, name in KILLED.findall(output):
        if name != "SIGTERM":  # which torchrun ends the others with
            return f"process {int(rank) + 1} of {world} was killed ({name}; out of memory?)."
    silent = [str(rank + 1) for rank in range(world) if rank not in failures]
    if silent and failures:
        return f"process {', '.join(silent)} of {world} ended without a message; was it killed?"
    if failures:
        rank, failure = next(iter(failures.items()))
        return f"process {rank + 1} of {world}: {failure.sentence}"
    if last_words:
        return last_words
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return f"no process said why; the last line was: {lines[-1]}" if lines else "nothing was written."


def _follow(
    backend: KubernetesBackend, client: TrainerClient, name: str, fit: FitJob, spec: TrainJobSpec
) -> str:
    """Print what a job writes until it ends or can't go on; returns why it failed, "" if it did not."""
    printed: set[str] = set()
    obstacle, since = None, 0.0
    while True:
        fit.watch()
        job = _request(lambda: client.get_job(name), "asked about its job")
        output = ""
        with contextlib.suppress(RuntimeError, TimeoutError, ValueError):  # nodes not up yet, or gone
            output = "\n".join(client.get_job_logs(name))
        for line in output.splitlines():
            if line.strip() and line not in printed:
                print(line, flush=True)
                printed.add(line)
        ended = job.status in (COMPLETE, FAILED)
        if ended and not any(step.status == "Running" for step in job.steps):
            if job.status == COMPLETE:
                return ""
            return failure_reason(fit, spec.world, output, backend.last_words(client, name))
        if reason := own_failure(fit, spec.world):  # restarts in place would only repeat it
            return reason
        before, obstacle = obstacle, backend.obstacle(client, name, spec.nodes)
        if obstacle and (before is None or obstacle.patience != before.patience):
            print(f"Training job {name}: {obstacle.sentence}", flush=True)
            since = time.monotonic()
        if obstacle and time.monotonic() - since >= obstacle.patience:
            return obstacle.sentence
        time.sleep(backend.poll_seconds)


def _request(call: Callable[[], Result], action: str, max_outage: float | None = None) -> Result:
    """Kubeflow Trainer's answer to a call, repeated while the API is unavailable."""
    retrying = Retrying(
        retry=retry_if_exception(_is_outage),
        stop=stop_after_delay(MAX_OUTAGE if max_outage is None else max_outage),
        wait=wait_exponential(max=30),
        reraise=True,
    )
    try:
        return retrying(call)
    except Exception as error:
        cause = error.__cause__ or error
        detail = " ".join(str(getattr(cause, "reason", "") or cause).split())
        remedy = REMEDIES.get(getattr(cause, "status", 0), "")
        raise TrainJobError(f"Kubeflow Trainer could not be {action}: {error} ({detail}){remedy}.") from error


def _is_outage(error: BaseException) -> bool:
    """Whether the API may answer later; not after it has refused."""
    status = getattr(error.__cause__ or error, "status", None)
    refused = isinstance(status, int) and 400 <= status < 500 and status not in (408, 429)
    return isinstance(error, RuntimeError | TimeoutError | OSError) and not refused


@contextlib.contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """Turn SIGTERM, by which a platform cancels a step, into an exception, so that the job is removed too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def unwind(*_: object) -> None:
        raise SystemExit("cancelled")

    previous = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
