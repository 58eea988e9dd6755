"""Model versions of a running server: register one, replay on it, retire others without losing a request."""

from __future__ import annotations

import json
import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.digests import file_digest
from common.files import atomic_path
from serving.answering.golden import GoldenRequests, ReplayReport, replay
from serving.archive.build import MODEL_NAME, ArchiveInfo, read_archive
from serving.errors import ServingError
from serving.torchserve import process
from serving.torchserve.client import Client
from serving.torchserve.server import TorchServe
from serving.torchserve.state_dir import StateDir, report_write_errors

logger = logging.getLogger(__name__)
# TorchServe ends a worker that needs longer than its response timeout (30 s), so no request takes longer.
DRAIN_SECONDS = 90
# A request that a worker has taken is in no queue any more, and TorchServe drops it unanswered when the
# version is removed. So the queue has to be empty and every worker idle for this long.
QUIET_SECONDS = 1.0
PARTIAL = ".partial"  # suffix of `atomic_path`'s temporary files


WARM_UP = 20  # requests before latency is measured
SAMPLES = 200


def stored_name(version: str) -> str:
    """The file name of a version's archive in the model store."""
    return f"{MODEL_NAME}-{version}.mar"


def store_archive(state: StateDir, archive: Path, version: str) -> Path:
    """Copy an archive into the model store in one step and return its path there."""
    target = state.store / stored_name(version)
    with report_write_errors(state.store), atomic_path(target) as partial:
        shutil.copyfile(archive, partial)
        if file_digest(partial) != file_digest(archive):
            raise ServingError(f"{archive} changed while it was copied to {state.store}; try again.")
    return target


def register_and_wait(server: TorchServe, archive: Path) -> ArchiveInfo:
    """Register an archive and wait until a worker has loaded it; if that fails, remove it again.

    Raises ServingError if the model does not load: it says why, or shows the end of the log.
    """
    info = read_archive(archive)
    if info.name != MODEL_NAME:
        raise ServingError(f"{archive} holds a model named {info.name!r}; it must be {MODEL_NAME!r}.")
    stored = store_archive(server.state, archive, info.version)
    position = process.log_position(server.state)
    try:
        server.client.register(stored.name)
        server.wait_for_workers(info.version, position)
    except ServingError as error:
        reason = process.load_failure(server.state, position) or f"{error}\n{process.log_tail(server.state)}"
        remove_version(server, info.version)
        raise ServingError(f"{archive.name} does not load in TorchServe: {reason}") from error
    return info


def replay_on_server(
    client: Client, golden: GoldenRequests, release: str, version: str | None = None, samples: int = SAMPLES
) -> ReplayReport:
    """Replay on one model version (default: the server's default one); if that passed, measure latency.

    Raises ServingError as `replay` does.
    """
    report = replay(golden, release, lambda request: client.predict(request, version))
    if not report.passed or not samples:
        return report
    bodies = [json.dumps(request).encode() for request in golden.requests]
    for i in range(WARM_UP):
        client.send(bodies[i % len(bodies)], version)
    seconds = np.empty(samples)
    for i in range(samples):
        started = time.perf_counter()
        client.send(bodies[i % len(bodies)], version)
        seconds[i] = time.perf_counter() - started
    p50, p99 = np.percentile(seconds * 1000, [50, 99]).round(2)
    return replace(report, p50_ms=float(p50), p99_ms=float(p99))


def remove_version(server: TorchServe, version: str) -> None:
    """Unregister a version and delete its archive from the store."""
    if version in server.client.versions():
        server.client.unregister(version)
    (server.state.store / stored_name(version)).unlink(missing_ok=True)


def retire_others(server: TorchServe, version: str) -> list[str]:
    """Remove every version but this one, once it has answered what it had accepted; return their names."""
    retiring = [name for name in server.client.versions() if name != version]
    activity = process.WorkerActivity()
    quiet_polls = 0

    def is_drained() -> bool:
        nonlocal quiet_polls
        versions = server.client.versions()
        statuses = [versions[name] for name in retiring if name in versions]
        busy = activity.is_busy(pid for status in statuses for pid in status.workers)
        quiet_polls = 0 if busy or any(status.pending for status in statuses) else quiet_polls + 1
        return quiet_polls * process.POLL_SECONDS > QUIET_SECONDS

    if retiring and not process.wait_until(is_drained, DRAIN_SECONDS):
        # a version that never rests must not stay forever
        logger.warning("%s still works after %s s and is removed.", ", ".join(retiring), DRAIN_SECONDS)
    for name in retiring:
        server.client.unregister(name)
    for path in [*server.state.store.glob("*.mar"), *server.state.store.glob(f".*{PARTIAL}")]:
        if path.name != stored_name(version):
            path.unlink()
    return retiring
