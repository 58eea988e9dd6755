"""Start, find and stop one TorchServe that outlives the process that started it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from common.digests import canonical_json
from serving.errors import ServingError
from serving.torchserve import process
from serving.torchserve.client import Client
from serving.torchserve.config import Ports, ServerConfig, render
from serving.torchserve.state_dir import StateDir, read_json, write_private, writing

START_SECONDS = 60
WORKER_SECONDS = 90
POLL_SECONDS = 0.1


class NotYetError(Exception):
    """What is waited for has not come about."""


@dataclass(frozen=True)
class TorchServe:
    """A running server: its folder, its ports and a client that holds its keys."""

    state: StateDir
    ports: Ports
    client: Client

    @classmethod
    def start(
        cls,
        state_dir: Path | str,
        config: ServerConfig | None = None,
        ports: Ports | None = None,
        load: str | None = None,
    ) -> TorchServe:
        """Start a server and wait until its APIs answer.

        Args:
            state_dir: the server's folder, created where missing.
            config: heap, threads, token life and the like.
            ports: loopback ports; by default those of the last start where free, else any free ones.
            load: name of an archive in the model store to bring up.

        Raises:
            ServingError: where one runs already, a port is taken, Java is missing, or it dies.
        """
        state = StateDir.at(state_dir)
        config = config or ServerConfig()
        _make_room(state)
        if ports:
            ports.require_free()
        ports = ports or Ports.choose(_last_ports(state))
        write_private(state.config, render(config, ports, state, load))
        started = process.launch(state, config)
        _record(state, started, ports)
        server = cls(state, ports, Client(state, ports))
        server._wait_until_up(started)
        return server

    @classmethod
    def attach(cls, state_dir: Path | str) -> TorchServe:
        """Find the server that runs in a folder.

        Raises:
            ServingError: where none runs there.
        """
        state = StateDir.at(state_dir)
        ports = _recorded_ports(state) if process.frontend_process(state) else None
        if ports is None:
            raise ServingError(f"No TorchServe runs in {state.root}; deploy a release, or start it again.")
        return cls(state, ports, Client(state, ports))

    @staticmethod
    def stop(state_dir: Path | str) -> int:
        """End the server of a folder with all its workers; returns how many processes ended (0: none ran)."""
        state = StateDir.at(state_dir)
        ended = process.stop_processes(state)
        with writing(state.root):
            for path in (state.keys, state.header):
                path.unlink(missing_ok=True)
        shutil.rmtree(state.scratch, ignore_errors=True)
        return ended

    def is_up(self) -> bool:
        """Whether the process lives and its front end answers; ask a golden request about the model."""
        if process.frontend_process(self.state) is None:
            return False
        try:
            return self.client.ping()
        except ServingError:
            return False

    def predict(self, request: Mapping[str, Any], version: str | None = None) -> dict[str, Any]:
        """Ask for recommendations; see `Client.predict`."""
        return self.client.predict(request, version)

    def wait_for_workers(self, version: str, since: int, seconds: float = WORKER_SECONDS) -> None:
        """Wait until a version has a worker that has loaded the model.

        Args:
            version: as registered.
            since: `process.log_position` from before the workers started.
            seconds: how long to wait.

        Raises:
            ServingError: where a worker cannot load it, or none is ready in time.
        """

        def ready() -> None:
            status = self.client.versions().get(version)
            if status is None or status.ready_workers == 0:
                if reason := process.load_failure(self.state, since):
                    raise ServingError(f"Version {version} does not load: {reason}")
                raise NotYetError

        try:
            _waiting(seconds)(ready)
        except RetryError as error:
            raise ServingError(
                f"Version {version} has no ready worker after {seconds:g} s; the log ends with:\n"
                f"{process.log_tail(self.state)}"
            ) from error

    def _wait_until_up(self, started: psutil.Process) -> None:
        def answers() -> None:
            if not process.is_living(started):
                raise ServingError(
                    f"TorchServe ended at its start; its log ends with:\n{process.log_tail(self.state)}"
                )
            try:
                self.client.versions()
            except (ServingError, KeyError) as error:  # no keys yet, not listening yet
                raise NotYetError from error

        try:
            _waiting(START_SECONDS)(answers)
        except (RetryError, ServingError) as error:
            self.stop(self.state.root)
            if isinstance(error, ServingError):
                raise
            raise ServingError(
                f"TorchServe did not answer within {START_SECONDS} s and was stopped; its log ends with:\n"
                f"{process.log_tail(self.state)}"
            ) from error
        self.client.refresh_header()


def _make_room(state: StateDir) -> None:
    if running := process.frontend_process(state):
        raise ServingError(
            f"A TorchServe (process {running.pid}) runs in {state.root} already; stop it first."
        )
    process.stop_processes(state)  # workers that a killed server left behind
    state.create()
    state.keys.unlink(missing_ok=True)


def _recorded_ports(state: StateDir) -> Ports | None:
    """The ports that the last start noted, None where it noted none; ServingError for a damaged note."""
    record = read_json(state.server)
    if record is None:
        return None
    try:
        return Ports(**{name: int(port) for name, port in record["ports"].items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ServingError(f"{state.server} is damaged; stop the server and start it again.") from error


def _last_ports(state: StateDir) -> dict[str, int] | None:
    """The ports to prefer: with the same ones, a server that comes back is found by those who knew it."""
    try:
        ports = _recorded_ports(state)
    except ServingError:
        return None
    return ports.as_dict() if ports else None


def _waiting(seconds: float) -> Retrying:
    return Retrying(
        stop=stop_after_delay(seconds),
        wait=wait_fixed(POLL_SECONDS),
        retry=retry_if_exception_type(NotYetError),
    )


def _record(state: StateDir, started: psutil.Process, ports: Ports) -> None:
    record = {"pid": started.pid, "created": started.create_time(), "ports": ports.as_dict()}
    write_private(state.server, canonical_json(record | {"recorded": time.time()}).decode())
