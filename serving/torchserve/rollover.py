"""Roll a server over to a release: the new version proves itself next to the old one before it takes over."""

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
from serving.answering.golden import SERVER_ERROR, GoldenRequests, ReplayReport
from serving.archive.build import read_archive
from serving.errors import RequestRefusedError, ServingError
from serving.torchserve import process
from serving.torchserve.client import BUSY
from serving.torchserve.config import ServerConfig
from serving.torchserve.server import TorchServe
from serving.torchserve.state_dir import DeployedRelease, ServedChannel, StateDir
from serving.torchserve.versions import (
    register_and_wait,
    remove_version,
    replay_on_server,
    retire_others,
    store_archive,
    stored_name,
)

logger = logging.getLogger(__name__)
ATTEMPTS = 3  # pings or requests without an answer before a running server counts as dead
LATENCY_SAMPLES = 50  # enough to notice a slow machine; infra_validate measures properly


class DeployError(ServingError):
    """The release was not deployed; what was served before is still served."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A release that a server has been rolled over to."""

    release: str
    version: str
    """Its model version in TorchServe."""
    url: str
    """Where it answers predictions."""
    changed: bool
    """False if the server served it already."""
    retired: tuple[str, ...]
    """Versions that were removed."""
    replay: ReplayReport
    """The golden requests, replayed on the new version."""
    seconds: float
    """How long the rollover took."""

    def sentence(self, channel: str) -> str:
        """The outcome in words, for the release of a channel."""
        verb = "now serves" if self.changed else "serves already"
        return f"{self.url} {verb} {channel}, release {self.release[:12]}: {self.replay.sentence()}."


def roll_over(
    archive: Path,
    release: str,
    state_dir: Path | str,
    golden: Path,
    config: ServerConfig | None = None,
    *,
    validated_sha256: str,
    served: ServedChannel | None = None,
) -> Deployment:
    """Serve a release from the folder's TorchServe, and start that if it is down.

    The new version is registered next to the old one, answers the golden requests and becomes the default;
    only then does the old one drain and leave. Deploying what is deployed already changes nothing. If the
    process is killed half-way, one whole version serves; deploying again finishes the job.

    Args:
        golden: golden.json of the release.
        config: settings of a server that has to be started.
        validated_sha256: digest in the infra validation's report; no other archive is served.

    Raises:
        DeployError: the release is not the default afterwards; the old one still answers.
    """
    state = StateDir(state_dir)
    with state.exclusive():
        try:
            if served:
                served.write(state)
            info = read_archive(archive)
            if info.release != release:
                raise ServingError(f"{archive} holds release {info.release[:12]}, not the one to deploy.")
            if (digest := file_digest(archive)) != validated_sha256:
                raise ServingError(
                    f"{archive} has digest {digest[:12]}, but the archive that was validated has "
                    f"{validated_sha256[:12]}; package and validate it again."
                )
            target = DeployedRelease(
                release=release, version=info.version, archive=stored_name(info.version), sha256=digest
            )
            deployment = _roll_over(archive, target, state, GoldenRequests.read(golden), config)
            process.supervise(state)
            return deployment
        except (ServingError, OSError) as error:  # an OSError is a full disk, for example
            raise DeployError(f"Release {release[:12]} was not deployed: {error}") from error


def _roll_over(
    archive: Path,
    target: DeployedRelease,
    state: StateDir,
    golden: GoldenRequests,
    config: ServerConfig | None,
) -> Deployment:
    started = time.monotonic()
    version = target.version
    server, is_new = _attach_or_start(state, config)
    # A wrong answer is not death: a server that answers stays up, and the replay says what is wrong with it.
    if server.client.default_version() == version and not any(
        _is_alive(server, version, golden.requests[0]) for _ in range(ATTEMPTS)
    ):
        TorchServe.stop(state.root, supervisor=False)
        server, is_new = TorchServe.start(state.root, config), True
    changed = server.client.default_version() != version
    try:
        if changed:
            remove_version(server, version)  # left behind by a deployment that was killed
            register_and_wait(server, archive)
        report = replay_on_server(server.client, golden, target.release, version, LATENCY_SAMPLES)
        if not report.passed:
            raise ServingError(f"{report.sentence()}.")
        # Record what a restart has to load (a full disk may prevent that), then let the version answer.
        stored = state.store / target.archive
        if (
            not stored.is_file() or file_digest(stored) != target.sha256
        ):  # lost or damaged since it was loaded
            store_archive(state, archive, version)
        previous = DeployedRelease.load_or_none(state)
        target.write(state)
        try:
            server.client.set_default(version)
        except ServingError:
            if previous:
                previous.write(state)
            raise
    except (ServingError, OSError):
        client = server.client
        if changed and (client.default_version() != version or len(client.versions()) == 1):
            remove_version(server, version)
        if is_new and not client.versions():
            TorchServe.stop(state.root, supervisor=False)
        raise
    retired = tuple(retire_others(server, version))
    server.client.refresh_header()
    return Deployment(
        release=target.release,
        version=version,
        url=server.client.prediction_url,
        changed=changed,
        retired=retired,
        replay=report,
        seconds=round(time.monotonic() - started, 2),
    )


def _attach_or_start(state: StateDir, config: ServerConfig | None) -> tuple[TorchServe, bool]:
    """The folder's server, and whether it was started just now; a start loads the last release if it can."""
    try:
        server = TorchServe.attach(state.root)
        if any(server.is_up() for _ in range(ATTEMPTS)):
            return server, False
        logger.warning("The server in %s does not answer and is started again.", state.root)
    except ServingError as error:
        logger.debug("Starting a server: %s", error)
    state.require_room()  # a server that hangs because the disk is full is not stopped: no other could start
    # It hangs, or its start was killed before it was recorded.
    TorchServe.stop(state.root, supervisor=False)
    try:
        return restore(state.root, config), True
    except ServingError as error:
        if state.deployed.is_file():
            logger.warning("The release deployed last does not come back: %s", error)
        TorchServe.stop(state.root, supervisor=False)
        return TorchServe.start(state.root, config), True


def restore(state_dir: Path | str, config: ServerConfig | None = None) -> TorchServe:
    """Start the server with the release that was deployed last, after a stop, a crash or a reboot.

    Raises ServingError if nothing was deployed, or the stored archive has changed or does not load; nothing
    runs then.
    """
    state = StateDir(state_dir)
    deployed = DeployedRelease.load(state)
    archive = deployed.verify_archive(state)
    position = process.log_position(state)
    server = TorchServe.start(state.root, config, load=archive.name)
    try:
        server.wait_for_workers(deployed.version, position)
    except ServingError:
        TorchServe.stop(state.root, supervisor=False)
        raise
    process.supervise(state)
    return server


def restart_if_dead(state_dir: Path | str) -> tuple[str, bool]:
    """Start the server again with the release that was deployed last, if no release answers any more.

    This needs no registry. A server that answers gets its header file brought up to date. Returns the release
    that answers and whether the server was started for it; "" if none was ever deployed, or one answers that
    was not recorded. Raises ServingError as `restore` does, and, before anything is stopped, if a full disk
    would prevent a start.
    """
    state = StateDir(state_dir)
    if not state.deployed.is_file():
        return "", False
    with state.exclusive():
        if version := next(filter(None, (_answering_version(state) for _ in range(ATTEMPTS))), None):
            try:
                TorchServe.attach(state.root).client.refresh_header()
            except ServingError as error:  # it answers all the same
                logger.warning("The header file of %s may hold an old key: %s", state.root, error)
            last = DeployedRelease.load_or_none(state)
            return last.release if last and last.version == version else "", False
        deployed = DeployedRelease.load(state)
        deployed.verify_archive(state)
        state.require_room()
        TorchServe.stop(state.root, supervisor=False)
        restore(state.root)
    return deployed.release, True


def _answering_version(state: StateDir) -> str | None:
    """The default version, if it answers, which /ping does not say; a busy one counts as well."""
    from serving.answering.answer import HEALTH  # which brings torch

    try:
        server = TorchServe.attach(state.root)
        version = server.client.default_version() if server.is_up() else None
        return version if version and _is_alive(server, version, json.loads(HEALTH)) else None
    except ServingError:
        return None


def _is_alive(server: TorchServe, version: str, request: Mapping[str, Any]) -> bool:
    """Whether a version answers anything, or is only too busy to: a restart would make that worse."""
    try:
        server.predict(request, version)
    except RequestRefusedError as refusal:
        if refusal.status == BUSY:
            status = server.client.versions().get(version)
            return status is not None and status.ready_workers > 0
        return refusal.status < SERVER_ERROR
    except ServingError:
        return False
    return True


def curl_line(server: TorchServe, request: Mapping[str, Any]) -> str:
    """A line to paste: curl reads the key from its private file, so it is on no command line."""
    server.client.refresh_header()
    header = ["-H", f"@{server.state.header}", "-H", "Content-Type: application/json"]
    body = json.dumps(request, separators=(",", ":"))
    return shlex.join(["curl", "-sS", *header, "--data", body, server.client.prediction_url])
