"""Hands a training over to Kubeflow Trainer and brings back what became of it: progress, result or reason.

The step writes what the nodes need into a folder they share, starts a TrainJob, prints what its first node
writes and takes the result. A step that is tried again takes up a job that still runs, else starts a new one,
which resumes from the state of the last. A step that is ended ends its job.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from car_model.bundle import Bundle
from car_model.training.torchrun_job import FitJob, Inputs
from car_model.training.train_car import Curves
from common.errors import UserError
from orchestration.train_job.backends import connect, remove, start
from orchestration.train_job.spec import Order

if TYPE_CHECKING:
    from kubeflow.trainer import TrainerClient

POLL = {"kubernetes": 10.0, "container": 1.0, "process": 0.5}  # seconds between looks
PATIENCE = 300  # seconds that the API may be away
COMPLETE, FAILED = "Complete", "Failed"
# torchrun's report on a process that a signal ended
KILLED = re.compile(r"rank\s*: (\d+) .*?(?:\n.*?){0,3}traceback\s*: Signal \d+ \((SIG\w+)\)")


class TrainJobError(UserError, RuntimeError):
    """A training job failed or could not be started; the message says which process, and of what."""


def hand_over(
    order: Order, inputs: Inputs, recipe: Mapping[str, Any], checkpoints: Path | None
) -> tuple[Bundle, Curves]:
    """Train in a job; what `fit_car` returns.

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
    digest = inputs.digest(recipe)[:16]
    job, prefix = FitJob(checkpoints / "jobs" / digest), f"car-{digest}-"
    client = _asked(lambda: connect(order), "reached")
    name = _running(client, prefix)
    if name is None:
        job.write(inputs, recipe, checkpoints / "car")
        name = f"{prefix}{secrets.token_hex(2)}"
        _asked(lambda: start(client, order, name, checkpoints, job.folder), "given a job", patience=0)
        print(f"Started training job {name}: {order.nodes} x {order.processes} processes.", flush=True)
    else:
        print(f"Training job {name} still runs; waiting for it.", flush=True)
    with _ended_by_signal():
        try:
            status, written = _follow(client, name, POLL[order.backend])
        finally:
            remove(client, order, name)
    if status != COMPLETE:
        raise TrainJobError(f"The training job {name} failed: {reason(job, order.world, written)}")
    return _taken(job, name)


def reason(job: FitJob, world: int, written: str) -> str:
    """Why a job failed, in a sentence: the process that failed of itself before those that lost it.

    Args:
        world: processes of the job.
        written: what its nodes wrote, with torchrun's report.
    """
    told = job.failures()
    for rank, failure in told.items():
        if not failure.broken:
            return f"process {rank + 1} of {world}: {failure.sentence}"
    for rank, signalled in KILLED.findall(written):
        if signalled != "SIGTERM":  # which torchrun ends the others with
            return f"process {int(rank) + 1} of {world} was killed ({signalled}; out of memory?)."
    silent = [str(rank + 1) for rank in range(world) if rank not in told]
    if silent and told:
        return f"process {', '.join(silent)} of {world} ended without a message; was it killed?"
    if told:
        rank, failure = next(iter(told.items()))
        return f"process {rank + 1} of {world}: {failure.sentence}"
    last = [line for line in written.splitlines() if line.strip()][-1:]
    return f"no process said why; the last line was: {last[0].strip()}" if last else "nothing was written."


def _follow(client: TrainerClient, name: str, every: float) -> tuple[str, str]:
    """Print what a job writes until it ends: its status, and all it wrote."""
    seen: set[str] = set()
    while True:
        job = _asked(lambda: client.get_job(name), "asked about its job")
        written = "\n".join(_logs(client, name))
        fresh = [line for line in written.splitlines() if line.strip() and line not in seen]
        seen.update(fresh)
        for line in fresh:
            print(line, flush=True)
        over = job.status in (COMPLETE, FAILED)
        if over and not any(step.status == "Running" for step in job.steps):
            return job.status, written
        time.sleep(every)


def _logs(client: TrainerClient, name: str) -> list[str]:
    """What nodes have written; nothing where they can't be asked, as before they run and after they went."""
    with contextlib.suppress(RuntimeError, TimeoutError, ValueError):
        return list(client.get_job_logs(name))
    return []


def _running(client: TrainerClient, prefix: str) -> str | None:
    """A job of these inputs that has not ended."""
    jobs = _asked(client.list_jobs, "asked for its jobs")
    alive = [job.name for job in jobs if job.name.startswith(prefix) and job.status not in (COMPLETE, FAILED)]
    return alive[0] if alive else None


def _asked(call: Any, what: str, patience: float = PATIENCE) -> Any:
    """The answer of Kubeflow Trainer, which may be away for a while."""
    away = retry_if_exception_type((RuntimeError, TimeoutError, OSError))
    tries = Retrying(retry=away, stop=stop_after_delay(patience), wait=wait_exponential(max=30), reraise=True)
    try:
        return tries(call)
    except Exception as error:
        cause = error.__cause__ or error
        told = " ".join(str(getattr(cause, "reason", "") or cause).split())
        raise TrainJobError(f"Kubeflow Trainer could not be {what}: {error} ({told}).") from error


def _taken(job: FitJob, name: str) -> tuple[Bundle, Curves]:
    try:
        made = job.result()
    except FileNotFoundError as error:
        raise TrainJobError(
            f"The training job {name} completed but left nothing in {job.folder}: its nodes must see the "
            "same folder as this step."
        ) from error
    shutil.rmtree(job.folder, ignore_errors=True)
    return made


@contextlib.contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Let SIGTERM, by which a platform cancels a step, unwind it, so that its job ends too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise SystemExit("ended from outside")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
