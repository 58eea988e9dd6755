"""Model versions of a running server: bring one up from an archive, let others go without a lost request."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from common.digests import file_digest
from serving.archive.build import MODEL_NAME, ArchiveInfo, read_archive
from serving.errors import ServingError
from serving.torchserve import process
from serving.torchserve.server import TorchServe
from serving.torchserve.state_dir import StateDir, writing

logger = logging.getLogger(__name__)
# TorchServe ends a worker that needs longer than its response timeout (30 s), so nothing waits for longer.
DRAIN_SECONDS = 90
# A request that a worker has taken is in no queue any more, and TorchServe forgets it, unanswered, when the
# version is removed. So the queue has to be empty and every worker idle for this long.
QUIET_SECONDS = 1.0
POLL_SECONDS = 0.1
PARTIAL = ".partial"


def stored_name(version: str) -> str:
    """The file name of a version's archive within the model store."""
    return f"{MODEL_NAME}-{version}.mar"


def store(state: StateDir, archive: Path, version: str) -> Path:
    """Copy an archive into the model store, whole or not at all."""
    target = state.store / stored_name(version)
    partial = state.store / f".{target.name}{PARTIAL}"
    try:
        with writing(state.store):
            shutil.copyfile(archive, partial)
            if file_digest(partial) != file_digest(archive):
                raise ServingError(f"{archive} changed while it was copied to {state.store}; try again.")
            partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def register_and_wait(server: TorchServe, archive: Path) -> ArchiveInfo:
    """Register an archive and wait until a worker has loaded it; on failure nothing of it stays.

    Raises:
        ServingError: where the model does not load; the message says why, or shows the end of the log.
    """
    info = read_archive(archive)
    if info.name != MODEL_NAME:
        raise ServingError(f"{archive} holds a model named {info.name!r}; it must be {MODEL_NAME!r}.")
    stored = store(server.state, archive, info.version)
    position = process.log_position(server.state)
    try:
        server.client.register(stored.name)
        server.wait_for_workers(info.version, position)
    except ServingError as error:
        reason = process.load_failure(server.state, position) or f"{error}\n{process.log_tail(server.state)}"
        drop(server, info.version)
        raise ServingError(f"{archive.name} does not load in TorchServe: {reason}") from error
    return info


def drop(server: TorchServe, version: str) -> None:
    """Unregister a version and delete its archive from the store."""
    if version in server.client.versions():
        server.client.unregister(version)
    (server.state.store / stored_name(version)).unlink(missing_ok=True)


def retire_others(server: TorchServe, keep: str) -> list[str]:
    """Let every other version finish what it has accepted, then remove it; returns their names."""
    others = [version for version in server.client.versions() if version != keep]
    if others:
        _drain(server, others)
    for version in others:
        server.client.unregister(version)
    for path in [*server.state.store.glob("*.mar"), *server.state.store.glob(f".*{PARTIAL}")]:
        if path.name != stored_name(keep):
            path.unlink()
    return others


def _drain(server: TorchServe, versions: list[str]) -> None:
    """Wait until versions that get no new requests have answered all that they had accepted."""
    work = process.Work()
    quiet = 0

    def long_enough() -> bool:
        nonlocal quiet
        known = server.client.versions()
        old = [known[version] for version in versions if version in known]
        busy = work.goes_on(pid for status in old for pid in status.workers)
        quiet = 0 if busy or any(status.pending for status in old) else quiet + 1
        return quiet * POLL_SECONDS > QUIET_SECONDS

    Retrying(
        stop=stop_after_delay(DRAIN_SECONDS),
        wait=wait_fixed(POLL_SECONDS),
        retry=retry_if_result(lambda drained: not drained),
        retry_error_callback=lambda _: logger.warning(  # a version that never rests must not stay for ever
            "%s still works after %s s and is removed.", ", ".join(versions), DRAIN_SECONDS
        ),
    )(long_enough)
