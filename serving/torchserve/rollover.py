"""Roll a server over to a release: the new version proves itself beside the old one before it takes over."""

from __future__ import annotations

import json
import logging
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.digests import file_digest
from serving.answering.golden import SERVER_ERROR, Golden
from serving.archive.build import ArchiveError, read_archive
from serving.errors import ServingError
from serving.torchserve import process
from serving.torchserve.client import BUSY, RequestRefusedError
from serving.torchserve.config import ServerConfig
from serving.torchserve.replay import GoldenReport, replay
from serving.torchserve.server import TorchServe
from serving.torchserve.state_dir import DeployedRelease, StateDir
from serving.torchserve.versions import drop, register_and_wait, retire_others, store, stored_name

logger = logging.getLogger(__name__)
PATIENCE = 3  # pings, and questions, before a server that runs is held to be dead
HEALTH = {"history": [], "k": 1, "explain": False}
LATENCY_SAMPLES = 50  # enough to notice a slow machine; infra_validate measures properly


class DeployError(ServingError):
    """The release was not deployed; what was served before is still served."""


@dataclass(frozen=True)
class Deployment:
    """A release that answers."""

    release: str
    version: str
    url: str
    changed: bool
    retired: tuple[str, ...]
    golden: GoldenReport
    seconds: float


def roll_over(
    archive: Path,
    release: str,
    state_dir: Path | str,
    golden: Path,
    config: ServerConfig | None = None,
    *,
    validated: str,
) -> Deployment:
    """Serve a release from the folder's TorchServe, starting it where it is down.

    The new version is registered beside the old, answers the golden requests, becomes the default, and
    only then does the old one drain and leave. Deploying what is already deployed changes nothing. A
    process killed half-way leaves one whole version serving; deploying again finishes the job.

    Args:
        validated: SHA-256 that the infra validation's report names; no other archive is served.

    Raises:
        DeployError: where the release is not the default afterwards; the old one still answers.
    """
    state = StateDir.at(state_dir)
    with state.exclusive():
        try:
            _check_archive(archive, release, validated)
            return _roll_over(archive, release, state, Golden.read(golden), config)
        except (ServingError, ArchiveError, OSError) as error:  # a full disk, for example
            raise DeployError(f"Release {release[:12]} was not deployed: {error}") from error


def restore(state_dir: Path | str, config: ServerConfig | None = None) -> TorchServe:
    """Start the server with the release that was deployed last, after a stop, a crash or a reboot.

    Raises:
        ServingError: where nothing was deployed, the stored archive is not the deployed one any more, or
            it does not load; nothing runs then.
    """
    state = StateDir.at(state_dir)
    deployed = DeployedRelease.load(state)
    archive = deployed.verify_archive(state)
    position = process.log_position(state)
    server = TorchServe.start(state.root, config, load=archive.name)
    try:
        server.wait_for_workers(deployed.version, position)
    except ServingError:
        TorchServe.stop(state.root)
        raise
    return server


def serves(state_dir: Path | str, release: str) -> bool:
    """Whether a release answers from this folder, which /ping does not say; being busy counts as well."""
    try:
        deployed = DeployedRelease.read(StateDir.at(state_dir))
    except ServingError:
        return False
    if deployed is None or deployed.release != release:
        return False
    return _answering(StateDir.at(state_dir)) == deployed.version


def restart_if_dead(state_dir: Path | str, config: ServerConfig | None = None) -> str | None:
    """Start the server again where no release answers any more, with the one that was deployed last.

    Needs no registry. Returns that release, or None where one answers, or none was ever deployed.

    Raises:
        ServingError: as `restore`; and where a start would fail for want of room, before anything is stopped.
    """
    state = StateDir.at(state_dir)
    if not state.deployed.is_file():
        return None
    with state.exclusive():
        if any(_answering(state) for _ in range(PATIENCE)):
            return None
        deployed = DeployedRelease.load(state)
        deployed.verify_archive(state)
        state.require_room()
        TorchServe.stop(state.root)
        restore(state.root, config)
    return deployed.release


def _answering(state: StateDir) -> str | None:
    """The default version, if it answers."""
    try:
        server = TorchServe.attach(state.root)
        version = server.client.default_version() if server.is_up() else None
        return version if version and _is_alive(server, version, HEALTH) else None
    except ServingError:
        return None


def curl_line(server: TorchServe, request: Mapping[str, Any]) -> str:
    """A line to paste: the key goes from its private file into curl, never onto a command line."""
    server.client.refresh_header()
    header = shlex.quote(f"@{server.state.header}")
    body = shlex.quote(json.dumps(request, separators=(",", ":")))
    return (
        f"curl -sS -H {header} -H 'Content-Type: application/json' --data {body} "
        f"{server.client.prediction_url}"
    )


def _roll_over(
    archive: Path, release: str, state: StateDir, golden: Golden, config: ServerConfig | None
) -> Deployment:
    started = time.monotonic()
    version = read_archive(archive).version
    found, fresh = _running(state, config)
    server = _replace_dead(found, version, golden, config)
    fresh |= server is not found
    try:
        changed, report = _bring_in_version(server, archive, release, version, golden)
    except (ServingError, OSError):
        if fresh and not server.client.versions():
            TorchServe.stop(state.root)
        raise
    retired = tuple(retire_others(server, version))
    server.client.refresh_header()
    seconds = round(time.monotonic() - started, 2)
    return Deployment(release, version, server.client.prediction_url, changed, retired, report, seconds)


def _check_archive(archive: Path, release: str, validated: str) -> None:
    info = read_archive(archive)
    if info.release != release:
        raise ServingError(f"{archive} holds release {info.release[:12]}, not the one to deploy.")
    if (found := file_digest(archive)) != validated:
        raise ServingError(
            f"{archive} has digest {found[:12]}, but the archive that was validated has {validated[:12]}; "
            "package and validate it again."
        )


def _running(state: StateDir, config: ServerConfig | None) -> tuple[TorchServe, bool]:
    """The folder's server and whether it was started just now, with what was deployed last if it can."""
    try:
        server = TorchServe.attach(state.root)
        if any(server.is_up() for _ in range(PATIENCE)):
            return server, False
        logger.warning("The server in %s does not answer and is started again.", state.root)
    except ServingError as error:
        logger.debug("Starting a server: %s", error)
    state.require_room()  # a server that hangs for want of room is not stopped before another can start
    TorchServe.stop(state.root)  # one that hangs, or whose start was killed before it was recorded
    try:
        return restore(state.root, config), True
    except ServingError as error:
        if state.deployed.is_file():
            logger.warning("The release deployed last does not come back: %s", error)
        TorchServe.stop(state.root)
        return TorchServe.start(state.root, config), True


def _bring_in_version(
    server: TorchServe, archive: Path, release: str, version: str, golden: Golden
) -> tuple[bool, GoldenReport]:
    """Make a version the default if it answers as expected; says whether anything had to change."""
    changed = server.client.default_version() != version
    if changed:
        drop(server, version)  # what a killed deployment may have left
        register_and_wait(server, archive)
    try:
        report = replay(server.client, golden, release, version, LATENCY_SAMPLES)
        if not report.passed:
            raise ServingError(f"{report.sentence()}.")
        _switch(server, archive, release, version)
    except (ServingError, OSError):
        if changed and (server.client.default_version() != version or len(server.client.versions()) == 1):
            drop(server, version)
        raise
    return changed, report


def _switch(server: TorchServe, archive: Path, release: str, version: str) -> None:
    """Write down what a restart brings back, which a full disk may forbid, then let the version answer."""
    before = DeployedRelease.load_or_none(server.state)
    _record(server.state, archive, release, version)
    try:
        server.client.set_default(version)
    except ServingError:
        if before:
            before.write(server.state)
        raise


def _replace_dead(
    server: TorchServe, version: str, golden: Golden, config: ServerConfig | None
) -> TorchServe:
    """Start anew where the very version to deploy is the default and gives no answer at all.

    A wrong answer is not death: what answers stays up, and the replay says what is wrong with it.
    """
    if server.client.default_version() != version:
        return server
    if any(_is_alive(server, version, golden.requests[0]) for _ in range(PATIENCE)):
        return server
    TorchServe.stop(server.state.root)
    return TorchServe.start(server.state.root, config)


def _is_alive(server: TorchServe, version: str, request: Mapping[str, Any]) -> bool:
    """Whether a version answers anything, or is only too busy to; starting that anew would make it worse."""
    try:
        server.predict(request, version)
    except RequestRefusedError as refusal:
        return refusal.status < SERVER_ERROR or (refusal.status == BUSY and _has_worker(server, version))
    except ServingError:
        return False
    return True


def _has_worker(server: TorchServe, version: str) -> bool:
    status = server.client.versions().get(version)
    return status is not None and status.ready_workers > 0


def _record(state: StateDir, archive: Path, release: str, version: str) -> None:
    stored = state.store / stored_name(version)
    digest = file_digest(archive)
    if not stored.is_file() or file_digest(stored) != digest:  # lost or damaged since it was loaded
        store(state, archive, version)
    DeployedRelease(release, version, stored.name, digest).write(state)
